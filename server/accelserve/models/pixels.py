"""Where pictures are normalised: by the host as it decodes them, or by the model's device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accelserve.backends.base import Session, TakesPixels
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import Manifest
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature


@dataclass(frozen=True, slots=True)
class PixelPath:
    """How pictures for one signature are scored as pixels, which its device normalises.

    signature: what they run under; no client can name it. preprocessing: the host's part of the work.
    """

    signature: Signature
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True)
class PixelPaths:
    """by_signature: for those that the device normalises. where: for each signature that normalises, in words."""

    by_signature: Mapping[str, PixelPath] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)


def take_pixels(
    sessions: Sequence[Session], preprocessing: Mapping[str, Preprocessing], manifest: Manifest
) -> PixelPaths:
    """Ask a model's sessions to take pixels where that is wanted; by default those on a GPU.

    A CPU gains nothing: the decode threads normalise as fast as a session does. Raises ScoringError(PRECONDITION) with
    the reason when the model's file asks for what cannot be, and what a session raises that fails at it.
    """
    paths: dict[str, PixelPath] = {}
    where: dict[str, str] = {}
    wanted = manifest.normalize or _default(sessions)
    for name, steps in preprocessing.items():
        (spec,) = sessions[0].signatures[name].inputs.values()
        if manifest.normalize is None and spec.dtype.name == "uint8":
            continue
        where[name] = "on the host"
        if wanted == "host":
            continue
        try:
            taken = [_take(session, name, steps) for session in sessions]
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
    return PixelPaths(paths, where)


def _default(sessions: Sequence[Session]) -> str:
    return "device" if all(session.device.kind is DeviceKind.GPU for session in sessions) else "host"


def _take(session: Session, signature: str, steps: Preprocessing) -> Signature:
    if not isinstance(session, TakesPixels):
        raise ScoringError(Kind.UNSUPPORTED, f"the back end of {session.device.id} does not take pixels")
    return session.take_pixels(signature, steps)
