"""Do two sessions answer alike? Output by output, in a batch and row by row."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelserve.backends.base import Batch, Session
from accelserve.convert.samples import Inputs, widened
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor, describe_tensor

# Largest difference, in units of the reference output's largest magnitude. Other types have to be equal.
TOLERANCE = 1e-4
_FLOATS = "fc"
_BLAME = (Kind.INVALID, Kind.UNDECODABLE)

_Taken = tuple[str, Inputs, Mapping[str, Tensor]]  # a sample's name, the sample, and the reference's outputs


@dataclass(frozen=True, slots=True)
class OutputReport:
    """How one output compared. tensor: its type and shape. error: the largest, in units of the largest magnitude."""

    name: str
    tensor: str
    error: float
    equal: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """rows_independent: whether the candidate's rows answer alike alone and in the batch; None without a batch."""

    signature: str
    sample: str
    batch_sizes: tuple[int, ...]
    outputs: tuple[OutputReport, ...]
    rows_independent: bool | None

    @property
    def equal(self) -> bool:
        return all(output.equal for output in self.outputs)

    @property
    def error(self) -> float:
        return max((output.error for output in self.outputs), default=0.0)


def compare(
    reference: Session,
    candidate: Session,
    signature: Signature,
    samples: Iterable[tuple[str, Inputs]],
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compare with the first sample that the reference takes, in a batch and each row alone.

    Raises ScoringError(PRECONDITION) when it takes none, or when the candidate refuses what the reference takes.
    """
    return _compared(reference, candidate, signature, tolerance, _first_taken(reference, signature, samples))


def compare_widely(
    reference: Session,
    candidate: Session,
    signature: Signature,
    samples: Iterable[tuple[str, Inputs]],
    tolerance: float = TOLERANCE,
) -> list[Comparison]:
    """As `compare`, and again with numbers of both signs in that sample's place, if the reference makes sense of any.

    A conversion that rounds to zero in place of down answers alike to all numbers that are not negative.
    """
    taken = _first_taken(reference, signature, samples)
    found = [_compared(reference, candidate, signature, tolerance, taken)]
    wider = _first_sensible(reference, signature, widened(*taken[:2]))
    return [*found, _compared(reference, candidate, signature, tolerance, wider)] if wider else found


def _compared(
    reference: Session, candidate: Session, signature: Signature, tolerance: float, taken: _Taken
) -> Comparison:
    name, inputs, wanted = taken
    got = _candidate(candidate, signature, inputs)
    pairs = {key: [(got[key], wanted[key])] for key in signature.outputs}
    rows = _rows(signature, inputs)
    independent: bool | None = None
    if rows > 1:
        independent = True
        for row in range(rows):
            alone = {key: tensor[row : row + 1] for key, tensor in inputs.items()}
            got_alone, wanted_alone = _candidate(candidate, signature, alone), run(reference, signature, alone)
            for key, pair in pairs.items():
                pair.append((got_alone[key], wanted_alone[key]))
                in_batch = difference(got[key][row : row + 1], got_alone[key])
                independent = independent and _small(in_batch, got_alone[key], tolerance)
    outputs = tuple(_report(key, pair, tolerance) for key, pair in pairs.items())
    return Comparison(signature.name, name, tuple(sorted({1, rows})) if rows else (), outputs, independent)


def _first_taken(session: Session, signature: Signature, samples: Iterable[tuple[str, Inputs]]) -> _Taken:
    refused = "there is none"
    for name, inputs in samples:
        try:
            return name, inputs, run(session, signature, inputs)
        except ScoringError as error:
            if error.kind not in _BLAME:
                raise
            refused = error.message
    message = f'signature "{signature.name}" takes none of the samples ({refused})'
    raise ScoringError(Kind.PRECONDITION, f"{message}; give one that it takes with --sample FILE")


def _first_sensible(session: Session, signature: Signature, samples: Iterable[tuple[str, Inputs]]) -> _Taken | None:
    """The first sample that is answered with finite numbers: what a model makes of others is nobody's wish."""
    for name, inputs in samples:
        with suppress(ScoringError):
            outputs = run(session, signature, inputs)
            if all(np.isfinite(tensor).all() for tensor in outputs.values() if _is_float(tensor)):
                return name, inputs, outputs
    return None


def _candidate(session: Session, signature: Signature, inputs: Inputs) -> Mapping[str, Tensor]:
    try:
        return run(session, signature, inputs)
    except ScoringError as error:
        message = f'signature "{signature.name}" does not run as the original does: {error.message}'
        raise ScoringError(Kind.PRECONDITION, message) from error


def run(session: Session, signature: Signature, inputs: Inputs) -> Mapping[str, Tensor]:
    """All outputs. Raises what the session raises, the error of a single row too."""
    result = session.run(Batch(signature.name, inputs, tuple(signature.outputs), max(_rows(signature, inputs), 1)))
    for error in result.item_errors.values():
        raise error
    return result.outputs


def _rows(signature: Signature, inputs: Inputs) -> int:
    """How many rows ride together; 0 without a batch axis."""
    return len(next(iter(inputs.values()))) if signature.batched else 0


def _report(key: str, pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> OutputReport:
    """The worst of an output's comparisons; the tensor named is that of the batch."""
    errors = [difference(got, wanted) for got, wanted in pairs]
    worst = max(range(len(pairs)), key=errors.__getitem__)
    got, wanted = pairs[worst]
    equal = _small(errors[worst], wanted, tolerance)
    return OutputReport(key, describe_tensor(pairs[0][1]), errors[worst], equal, "" if equal else _note(got, wanted))


def _small(error: float, wanted: Tensor, tolerance: float) -> bool:
    return error <= (tolerance if _is_float(wanted) else 0.0)


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype.kind in _FLOATS or tensor.dtype.name.startswith(("bfloat", "float"))


def difference(got: Tensor, wanted: Tensor) -> float:
    """0 when equal; for floats the largest difference over the largest magnitude; infinite when not comparable."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    if not _is_float(wanted):
        return 0.0 if np.array_equal(got, wanted) else float("inf")
    kind = np.complex128 if wanted.dtype.kind == "c" else np.float64
    left, right = got.astype(kind), wanted.astype(kind)
    finite = np.isfinite(right)
    if not np.array_equal(np.isfinite(left), finite) or not _same_infinities(left[~finite], right[~finite]):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(right[finite]).max()) or 1.0
    return float(np.abs(left[finite] - right[finite]).max()) / scale


def _same_infinities(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right, equal_nan=True))


def _note(got: Tensor, wanted: Tensor) -> str:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"want {describe_tensor(wanted)}, got {describe_tensor(got)}"
    if _is_float(wanted):
        return "too far apart"
    index = tuple(int(i) for i in np.argwhere(np.asarray(got != wanted))[0])
    want, found = (np.asarray(tensor[index]).item() for tensor in (wanted, got))
    return f"want {want!r}, got {found!r} at {list(index)}"
