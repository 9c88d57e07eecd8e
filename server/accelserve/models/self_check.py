"""Before a model is AVAILABLE: run it at the sizes it will run, and prove that its tensor path tells the truth.

Two proofs: the codecs give back the tensors they were given, and a row's answer is the same alone and in a batch. A
third where the device normalises pictures: their answers are those of the same pictures normalised on the host.
A mismatch fails the load. What cannot be tried (no sample that the model accepts) is said, not assumed.
"""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accelserve.backends.base import Batch, Session
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.models.pixels import PixelPath
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DEFAULT_SIGNATURE, Shape, Signature, Tensor, TensorSpec, describe_tensor

# Raises ScoringError when tensors do not survive a codec's round trip; given by the runtime, which knows the codecs.
CodecCheck = Callable[[Mapping[str, Tensor]], None]

# Largest difference of one row alone and in a batch, in units of the output's largest magnitude (at least 1). Kernels
# chosen by batch size add in another order, so float results may differ in the last bits; other types must be equal.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
_FREE_SIZE = 1  # inner axes of any size
_FREE_PICTURE_SIZE = 64
_DEVICE_FAULTS = (Kind.DEVICE_LOST, Kind.DEVICE_MEMORY, Kind.DEVICE_MISSING)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was tried. passed: False when it was not possible; detail says what was compared, or why not.

    suspect: every run failed, and not for the sample's sake. That a request will do better is possible, and unlikely.
    """

    passed: bool
    detail: str
    suspect: bool = False


def run_sizes(policy: BatchPolicy) -> tuple[int, ...]:
    """Batch sizes to warm: all allowed ones, else the smallest and the largest."""
    return policy.allowed_batch_sizes or tuple(sorted({1, policy.max_batch_size}))


def check_session(
    session: Session,
    policy: BatchPolicy,
    check_codecs: CodecCheck,
    deterministic: bool,
    signatures: Mapping[str, Signature] | None = None,
) -> CheckReport:
    """Warm up and check a session; blocks.

    signatures: by the name that clients use, what runs for it; None: these themselves.
    Raises ScoringError(PRECONDITION) on a mismatch, and what the session raises when its device fails.
    """
    signature = _main_signature(session.signatures if signatures is None else signatures)
    if signature is None or not signature.inputs:
        return CheckReport(False, "not run: no signature that can be asked without changing the model")
    try:
        samples, outputs = _first_accepted(session, signature, min(2, run_sizes(policy)[-1]))
    except ScoringError as error:
        if error.kind in _DEVICE_FAULTS:
            raise
        detail = f"not run: the model accepts no generated sample ({error.message})"
        return CheckReport(False, detail, suspect=error.kind is Kind.INTERNAL)
    check_codecs(samples)
    check_codecs(outputs)
    if not signature.batched:
        return CheckReport(True, "codec round trip; no batch axis, requests run one by one")
    sizes = run_sizes(policy)
    for size in sizes:
        _compare_batch(session, signature, samples, size, deterministic)
    return CheckReport(True, f"codec round trip; rows alone equal rows in batches of {_listed(sizes)}")


def check_pixels(
    session: Session, public: Signature, path: PixelPath, steps: Preprocessing, policy: BatchPolicy, deterministic: bool
) -> str:
    """Warm up on pixels and hold their answers against those of the floats that the host makes; blocks.

    public: the signature that clients name. Returns what was done, for people. Raises as `check_session`.
    """
    (spec,) = public.inputs.values()
    counts = sorted({1, min(2, run_sizes(policy)[-1])}) if public.batched else [1]
    for count in counts:
        pixels = _sample_pixels(steps, count)
        try:
            wanted = _run(session, public, {spec.name: normalised(pixels, steps, spec)}, count)
        except ScoringError as error:
            if error.kind in _DEVICE_FAULTS:
                raise
            return f"pixels not checked: the model accepts no generated picture ({error.message})"
        found = _run(session, path.signature, {spec.name: pixels}, count)
        for name in wanted:
            _compare_normalised(name, found[name], wanted[name], session.device.id, deterministic)
    if public.batched:
        for size in run_sizes(policy):
            _compare_batch(session, path.signature, {spec.name: _sample_pixels(steps, counts[-1])}, size, deterministic)
    return "pixels normalised on the device get the host's answers"


def normalised(pixels: Tensor, steps: Preprocessing, spec: TensorSpec) -> Tensor:
    """By its definition: uint8 [n, H, W, C] -> `spec`'s dtype in the layout of `steps`."""
    mean, scale = np.array(steps.mean, np.float32), np.array(steps.scale, np.float32)
    values = (pixels.astype(np.float32) - mean) * scale
    return np.asarray(values if steps.layout == "NHWC" else values.transpose(0, 3, 1, 2), spec.dtype.numpy, order="C")


def _sample_pixels(steps: Preprocessing, rows: int) -> Tensor:
    """Row i is the same for every `rows` above i."""
    random = np.random.default_rng(20190501)
    return random.integers(0, 256, (rows, *steps.size, steps.channels), np.uint8)


def _compare_normalised(name: str, found: Tensor, wanted: Tensor, device: str, deterministic: bool) -> None:
    if not _close(found, wanted, _tolerance(wanted, deterministic)):
        message = f'output "{name}": a picture normalised on {device} gets another answer than on the host'
        remedy = 'say normalize = "host" under [preprocessing] of accelserve.toml'
        raise ScoringError(Kind.PRECONDITION, f"{message}; {remedy}", reason="self_check")


def _tolerance(tensor: Tensor, deterministic: bool) -> float:
    return 0.0 if deterministic else TOLERANCES.get(str(tensor.dtype), 0.0)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def _main_signature(signatures: Mapping[str, Signature]) -> Signature | None:
    if DEFAULT_SIGNATURE in signatures:
        return signatures[DEFAULT_SIGNATURE]
    return next(iter(signatures.values())) if len(signatures) == 1 else None


def _first_accepted(
    session: Session, signature: Signature, rows: int
) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    """Sample inputs of so many rows that the model accepts, and its outputs for them. rows: 2, or 1 alone."""
    error = ScoringError(Kind.INVALID, "no sample")
    for texts in ((tiny_png(rising=True), tiny_png(rising=False)), (b"0", b"1"), (b"", b"")):
        samples = {name: sample(spec, rows, texts) for name, spec in signature.inputs.items()}
        try:
            return samples, _run(session, signature, samples, rows)
        except ScoringError as refused:
            if refused.kind in _DEVICE_FAULTS:
                raise
            error = refused
        if not any(spec.dtype.is_string for spec in signature.inputs.values()):
            break
    raise error


def sample(spec: TensorSpec, rows: int, texts: tuple[bytes, bytes]) -> Tensor:
    """Rows of which neighbours differ (unless both texts are equal), the same in every process.

    Floats lie in [0, 1); integers are 0 and 1, which any table has; strings are the two texts in turn; free inner axes
    get a small size.
    """
    shape = sample_shape(spec, rows)
    if spec.dtype.numpy.kind not in "iubO":
        generator = np.random.default_rng(20190501)
        return generator.random(shape, dtype=np.float32).astype(spec.dtype.numpy)
    chessboard: Tensor = np.indices(shape).sum(axis=0) % 2
    values: Tensor = np.array(texts if spec.dtype.is_string else (0, 1), dtype=spec.dtype.numpy)
    return np.asarray(values[chessboard], spec.dtype.numpy)  # a lone string would become numpy's fixed-width bytes


def sample_shape(spec: TensorSpec, rows: int) -> Shape:
    """Of a sample with so many rows, where the first axis is free; other free axes get a small size."""
    shape = spec.shape if spec.shape is not None else (rows,)
    picture = len(shape) == 4 and (shape[-1] in (1, 3) or shape[1] in (1, 3))
    free = _FREE_PICTURE_SIZE if picture else _FREE_SIZE
    inner = tuple(size if size >= 0 else free for size in shape[1:])
    return () if not shape else ((rows if shape[0] < 0 else shape[0]), *inner)


def _run(session: Session, signature: Signature, inputs: Mapping[str, Tensor], rows: int) -> Mapping[str, Tensor]:
    result = session.run(Batch(signature.name, inputs, tuple(signature.outputs), rows if signature.batched else 1))
    for error in result.item_errors.values():
        raise error
    return result.outputs


def _compare_batch(
    session: Session, signature: Signature, samples: Mapping[str, Tensor], size: int, deterministic: bool
) -> None:
    """Run `size` rows (the two samples in turn), and the first and last of them alone."""
    batch = {name: np.resize(rows, (size, *rows.shape[1:])) for name, rows in samples.items()}
    together = _run(session, signature, batch, size)
    for name, output in together.items():
        if output.ndim == 0 or output.shape[0] != size:
            got = describe_tensor(output)
            message = f'output "{name}" has a free first axis in the signature, but {size} rows gave {got}; {_REMEDY}'
            raise ScoringError(Kind.PRECONDITION, message)
    for row in {0, size - 1}:
        alone = _run(session, signature, {name: rows[row : row + 1] for name, rows in batch.items()}, 1)
        for name in together:
            _compare(name, together[name][row : row + 1], alone[name], row, size, deterministic)


_REMEDY = "set [batching] max_batch_size = 1 in accelserve.toml if the model mixes its rows on purpose"


def _compare(name: str, batched: Tensor, alone: Tensor, row: int, size: int, deterministic: bool) -> None:
    if not _close(batched, alone, _tolerance(alone, deterministic)):
        message = f'output "{name}": row {row} of a batch of {size} differs from the same row alone; {_REMEDY}'
        raise ScoringError(Kind.PRECONDITION, message, reason="self_check")


def _close(left: Tensor, right: Tensor, tolerance: float) -> bool:
    if left.shape != right.shape:
        return False
    if tolerance == 0.0:
        return bool(np.array_equal(left, right, equal_nan=left.dtype.kind in "fc"))
    wide_left, wide_right = left.astype(np.float64), right.astype(np.float64)
    scale = max(1.0, float(np.max(np.abs(wide_right[np.isfinite(wide_right)]), initial=0.0)))
    return bool(np.allclose(wide_left, wide_right, rtol=0.0, atol=tolerance * scale, equal_nan=True))


def tiny_png(rising: bool) -> bytes:
    """A grey ramp of 8 x 8 pixels, RGB: what a model that decodes pictures itself can be asked with."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    columns = range(8) if rising else range(7, -1, -1)
    rows = b"".join(b"\0" + bytes(8 * x + 4 * y for x in columns for _ in range(3)) for y in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
