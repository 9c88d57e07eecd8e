"""What a model's own file says, held against its signatures and against what the device takes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from accelserve.backends.base import Capabilities, DecodedInput, Device, SessionOptions
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.image_signature import check_fits, guess_preprocessing
from accelserve.models.manifest import Manifest, with_signature
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature

logger = logging.getLogger("accelserve.models")


def session_options(manifest: Manifest, threads: int | None) -> SessionOptions:
    """What a model's own file asks of its sessions. threads: as decided by whoever comes first."""
    policy = manifest.batching
    return SessionOptions(threads, manifest.backend, policy.max_batch_size, policy.allowed_batch_sizes)


def check_instances(
    model: str, devices: Sequence[Device], capabilities: Sequence[Capabilities], instances: int
) -> None:
    """Raises ScoringError(PRECONDITION) when a device takes fewer models than there are to be instances."""
    for device, each in zip(devices, capabilities, strict=True):
        most = each.models_per_device
        if most is not None and instances > most:
            message = f'model "{model}": want {instances} instances on {device.id}, which takes {most}'
            raise ScoringError(Kind.PRECONDITION, f"{message}; say instances = {most}")


def fit_policy(policy: BatchPolicy, capabilities: Capabilities) -> BatchPolicy:
    """The policy within what the device takes: larger requests are split by the scheduler."""
    most = capabilities.max_batch
    if most is None or policy.max_batch_size <= most:
        return policy
    sizes = tuple(size for size in policy.allowed_batch_sizes if size < most)
    return replace(policy, max_batch_size=most, allowed_batch_sizes=(*sizes, most) if sizes else ())


def check_labels(manifest: Manifest, signatures: Mapping[str, Signature]) -> None:
    """Labels must be as many as the classes, where a signature says how many these are.

    Raises ScoringError(PRECONDITION).
    """
    if manifest.labels is None:
        return
    for signature in signatures.values():
        shapes = [spec.shape for spec in signature.outputs.values() if spec.dtype.numpy.kind == "f"]
        widths = {shape[-1] for shape in shapes if shape is not None and len(shape) == 2 and shape[-1] > 0}
        if widths and len(manifest.labels) not in widths:
            classes = " or ".join(map(str, sorted(widths)))
            message = f"{manifest.source}: {len(manifest.labels)} labels, but the model has {classes} classes"
            raise ScoringError(Kind.PRECONDITION, message)


def picture_preprocessing(manifest: Manifest, signatures: Mapping[str, Signature]) -> dict[str, Preprocessing]:
    """For each signature with one dense picture input: what is done to a picture before it.

    Raises ScoringError(PRECONDITION) when the model's file contradicts the signature.
    """
    found = {}
    for name, signature in signatures.items():
        if len(signature.inputs) != 1:
            continue
        spec = next(iter(signature.inputs.values()))
        values = manifest.preprocessing if spec.shape is not None and len(spec.shape) == 4 else {}
        preprocessing = with_signature(values, guess_preprocessing(spec))
        if preprocessing is not None and not spec.dtype.is_string:
            try:
                check_fits(preprocessing, spec)
            except ScoringError as error:
                raise ScoringError(Kind.PRECONDITION, f"{manifest.source}: {error.message}") from error
            found[name] = preprocessing
    wanted = manifest.preprocessing or (manifest.normalize == "device" and manifest.decode == "model")
    if wanted and not found:
        message = f"{manifest.source}: [preprocessing] is given, but no signature has a single dense picture input"
        raise ScoringError(Kind.PRECONDITION, message)
    return found


def tell_guesses(model: str, preprocessing: Mapping[str, Preprocessing]) -> None:
    """Log what is done to pictures that nothing was said about."""
    for signature, steps in preprocessing.items():
        if steps.guessed:
            logger.info(
                "%s: pictures for %s are decoded as the signature suggests: %s to %dx%d, %s, %s, x * %.4g; "
                "say otherwise in the model's accelserve.toml",
                model,
                signature,
                steps.resize,
                *steps.size,
                steps.channel_order,
                steps.layout,
                steps.scale[0],
            )


def tell_decoded(model: str, decoded: Mapping[str, DecodedInput]) -> None:
    """Log how far our decoder is from that of each model whose pictures it decodes in its place."""
    for signature, each in decoded.items():
        if each.only:
            continue
        logger.info(
            "%s: the server decodes pictures for %s in the model's place: pixels differ by up to %.1f of 255 from "
            "its own, outputs by up to %.2g of their largest",
            model,
            signature,
            each.pixel_error,
            each.output_error,
        )
