"""Where pictures are normalised: by the host as it decodes them, or by the model's device. And where decoded: by the
server always, unless the model's own graph does that and its file does not hand it over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from accelserve.backends.base import DecodedFor, DecodedInput, Session, TakesPixels
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import Manifest
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DEFAULT_SIGNATURE, Signature


@dataclass(frozen=True, slots=True)
class PixelPath:
    """How decoded pictures for one signature are scored under another, which no client can name.

    signature: that one; its device normalises, or it takes what the graph of the first would have made of strings.
    preprocessing: the host's part of the work.
    """

    signature: Signature
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True)
class PixelPaths:
    """by_signature: for those that the device normalises, and those of `decoded`.

    where: for each signature that normalises, in words. decoded: for those that take strings, which the server decodes.
    """

    by_signature: Mapping[str, PixelPath] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    decoded: Mapping[str, DecodedInput] = field(default_factory=dict)

    def dense(self, signature: Signature) -> Signature:
        """What runs on tensors that the host has made ready: the signature itself, or of strings its stand-in."""
        decoded = self.decoded.get(signature.name)
        return signature if decoded is None else decoded.signature


_LEAVES_DECODING = "accelonnx"  # the format of models that have no decoder of their own


def take_decoded(sessions: Sequence[Session], manifest: Manifest, model_format: str) -> dict[str, DecodedInput]:
    """What the server decodes in the model's place; nothing unless the model's format or its file says so.

    Raises ScoringError(PRECONDITION) with the reason where it is wanted and cannot be, for `serving_default` or for all
    signatures, or is too far from what the model's own graph makes.
    """
    if model_format == _LEAVES_DECODING:
        return {name: _left(sessions, name) for name in sessions[0].signatures if _takes_strings(sessions[0], name)}
    if manifest.decode != "server":
        return {}
    found: dict[str, DecodedInput] = {}
    reasons: dict[str, str] = {}
    for name in sessions[0].signatures:
        if not _takes_strings(sessions[0], name):
            continue
        try:
            found[name], *_ = [_decoded(session, name) for session in sessions]
        except ScoringError as error:
            if error.kind is not Kind.UNSUPPORTED:
                raise
            reasons[name] = error.message
    asked = f'{manifest.source}: [preprocessing] decode = "server"'
    if not found or DEFAULT_SIGNATURE in reasons:
        reason = reasons.get(DEFAULT_SIGNATURE) or "; ".join(reasons.values()) or "no signature takes strings"
        raise ScoringError(Kind.PRECONDITION, f'{asked} cannot be: {reason}; say decode = "model"')
    for name, decoded in found.items():
        _check_error(f"{asked}: {name}", decoded, manifest.decode_tolerance)
    return found


def _takes_strings(session: Session, name: str) -> bool:
    return any(spec.dtype.is_string for spec in session.signatures[name].inputs.values())


def _left(sessions: Sequence[Session], name: str) -> DecodedInput:
    try:
        found, *_ = [_decoded(session, name) for session in sessions]
    except ScoringError as error:
        message = f'signature "{name}" takes pictures that nothing decodes: {error.message}'
        raise ScoringError(Kind.PRECONDITION, message) from error
    return found


def _decoded(session: Session, signature: str) -> DecodedInput:
    if not isinstance(session, DecodedFor):
        message = f"only a converted SavedModel gives its decoding away, and {session.device.id} runs another"
        raise ScoringError(Kind.UNSUPPORTED, message)
    return session.take_decoded(signature)


def _check_error(asked: str, decoded: DecodedInput, tolerance: float) -> None:
    """Not a number is too far, too."""
    if not decoded.output_error <= tolerance:
        found = f"outputs differ by {decoded.output_error:.2g} (pixels by {decoded.pixel_error:.0f} of 255)"
        remedy = 'say decode = "model", or raise decode_tolerance if that is near enough'
        message = f"{asked}: from what the model's own decoding gives, {found}; tolerance {tolerance:g}; {remedy}"
        raise ScoringError(Kind.PRECONDITION, message, reason="self_check")


def take_pixels(
    sessions: Sequence[Session],
    preprocessing: Mapping[str, Preprocessing],
    manifest: Manifest,
    decoded: Mapping[str, DecodedInput] = MappingProxyType({}),
) -> PixelPaths:
    """Ask a model's sessions to take pixels where that is wanted; by default those on a GPU.

    A CPU gains nothing: the decode threads normalise as fast as a session does. Raises ScoringError(PRECONDITION) with
    the reason when the model's file asks for what cannot be, and what a session raises that fails at it.
    """
    paths = {name: PixelPath(each.signature, each.preprocessing) for name, each in decoded.items()}
    where: dict[str, str] = {}
    wanted = manifest.normalize or _default(sessions)
    for name, steps in preprocessing.items():
        signature = decoded[name].signature if name in decoded else sessions[0].signatures[name]
        (spec,) = signature.inputs.values()
        if manifest.normalize is None and spec.dtype.name == "uint8":
            continue
        where[name] = "on the host"
        if wanted == "host":
            continue
        try:
            taken = [_take(session, signature.name, steps) for session in sessions]
        except ScoringError as error:
            if error.kind is not Kind.UNSUPPORTED:
                raise
            if manifest.normalize is not None:
                message = f'{manifest.source}: [preprocessing] normalize = "device" cannot be: {error.message}'
                raise ScoringError(Kind.PRECONDITION, f'{message}; say "host"') from error
            where[name] = f"on the host, since {error.message}"
        else:
            paths[name] = PixelPath(taken[0], steps.host_part())
            where[name] = "on the device"
    return PixelPaths(paths, where, decoded)


def _default(sessions: Sequence[Session]) -> str:
    return "device" if all(session.device.kind is DeviceKind.GPU for session in sessions) else "host"


def _take(session: Session, signature: str, steps: Preprocessing) -> Signature:
    if not isinstance(session, TakesPixels):
        raise ScoringError(Kind.UNSUPPORTED, f"the back end of {session.device.id} does not take pixels")
    return session.take_pixels(signature, steps)
