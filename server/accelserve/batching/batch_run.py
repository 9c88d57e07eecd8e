"""One batch through a session, on the model thread: stack, run, split; and again one by one if that fails."""

import logging
import traceback
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import NamedTuple

from accelserve.backends.base import Batch, BatchResult, Session, buffers_of, runs_apart
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.stack import split_rows, stack_rows
from accelserve.batching.work import Work
from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor, describe_tensor

logger = logging.getLogger("accelserve.batching")

# The device failed, not the request: trying the rows one by one only keeps the others waiting.
_FAIL_ALIKE = (Kind.DEVICE_LOST, Kind.DEVICE_MEMORY)

Outcome = Mapping[str, Tensor] | ScoringError
Buffers = Callable[[str, int], Mapping[str, Tensor] | None]


class Run(NamedTuple):
    """One call of the session. rows: real ones; padded_rows: those the model ran; compute_ns includes stacking."""

    rows: int
    padded_rows: int
    started_ns: int
    compute_ns: int
    modelled_device_ns: int | None = None


class Report(NamedTuple):
    """What became of a batch. answers: for each work the run that decided it, and its outputs or its error."""

    runs: tuple[Run, ...]
    answers: tuple[tuple[Run, Outcome], ...]


@dataclass(frozen=True, slots=True)
class BatchRunner:
    """Runs batches of one model; blocks, never raises. name: the model's, for the log and in messages."""

    session: Session
    policy: BatchPolicy
    clock: Clock
    name: str
    _buffers: Buffers = field(init=False)
    _apart: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_apart", runs_apart(self.session))
        object.__setattr__(self, "_buffers", buffers_of(self.session))

    def run(self, works: Sequence[Work]) -> Report:
        """Answer works of one group. When a batch of several fails, each is run once more by itself."""
        started_ns = self.clock.now_ns()
        try:
            return self._run(works)
        except BaseException as error:  # a fault of ours, not the model's; its thread lives on all the same
            logger.exception("the batch runner of %s failed", self.name)
            broken = ScoringError(Kind.INTERNAL, f"{self.name} lost a batch: unforeseen {type(error).__name__}")
            run = Run(sum(work.rows for work in works), 0, started_ns, 0)
            return Report((), tuple((run, broken) for _ in works))

    def _run(self, works: Sequence[Work]) -> Report:
        run, outcomes = self._attempt(works)
        if not isinstance(outcomes, ScoringError):
            return Report((run,), tuple(zip(repeat(run), outcomes)))
        if len(works) == 1 or outcomes.kind in _FAIL_ALIKE:
            return Report((run,), tuple((run, outcomes) for _ in works))
        reports = [self._run_alone(work, run) for work in works]
        answers = tuple(answer for report in reports for answer in report.answers)
        return Report((run, *(again for report in reports for again in report.runs)), answers)

    def _run_alone(self, work: Work, failed: Run) -> Report:
        """Reruns take time: who nobody waits for any more is left out."""
        if work.deadline_ns is not None and self.clock.now_ns() >= work.deadline_ns:
            message = f"the deadline passed while {self.name} ran a failed batch again, one request at a time"
            return Report((), ((failed, ScoringError(Kind.DEADLINE, message)),))
        return self._run((work,))

    def _attempt(self, works: Sequence[Work]) -> tuple[Run, list[Outcome] | ScoringError]:
        """One call of the session. An error is that of the whole batch."""
        counts = [work.rows for work in works]
        rows = sum(counts)
        padded = self.policy.padded_rows(rows) if works[0].batched and rows else rows
        started_ns = self.clock.now_ns()
        modelled_ns: int | None = None
        outcomes: list[Outcome] | ScoringError
        try:
            if self._apart and rows == padded:
                outcomes = [self._lone(work) for work in works]
            else:
                result = self.session.run(_stack(works, rows, padded, self._buffers))
                modelled_ns = result.modelled_device_ns
                outcomes = _split(works, counts, padded, result, self.name)
                if result.item_errors:
                    for index, error in _errors_by_work(counts, result.item_errors).items():
                        outcomes[index] = error
                    _forget_tracebacks(outcomes)
        except ScoringError as error:
            outcomes = error
            if error.kind is Kind.INTERNAL:
                _note_origin(error)
            _forget_tracebacks([error])
        except BaseException as error:  # even SystemExit: a model must not end its thread
            logger.exception("%s failed with %d requests, %d rows", self.name, len(works), rows)
            outcomes = ScoringError(Kind.INTERNAL, f"{self.name} failed: unforeseen {type(error).__name__}")
            outcomes.__cause__ = error
            _note_origin(error)
            _forget_tracebacks([outcomes])
        run = Run(rows, padded, started_ns, self.clock.now_ns() - started_ns, modelled_ns)
        return run, outcomes

    def _lone(self, work: Work) -> Outcome:
        """One of the works of a session that runs apart. Raises whatever that raises."""
        result = self.session.run(Batch(work.signature.name, work.inputs, work.outputs, work.rows))
        (outcome,) = _split((work,), (work.rows,), work.rows, result, self.name)
        return outcome


def _stack(works: Sequence[Work], rows: int, padded: int, buffers: Buffers) -> Batch:
    """The works' rows as one batch, in the session's own memory where it lends any. A lone work is not copied here."""
    head = works[0]
    if len(works) == 1 and rows == padded:
        inputs = head.inputs
    else:
        own = buffers(head.signature.name, padded) or {}
        inputs = {name: stack_rows([w.inputs[name] for w in works], padded, own.get(name)) for name in head.inputs}
    return Batch(head.signature.name, inputs, head.outputs, rows)


def _split(works: Sequence[Work], counts: Sequence[int], padded: int, result: BatchResult, model: str) -> list[Outcome]:
    """Each work's outputs. counts: the works' rows.

    A lone work that was not padded gets the outputs as they are; else raises ScoringError(PRECONDITION) for an output
    whose first axis is not the rows that ran.
    """
    names, outputs = works[0].outputs, result.outputs
    for name in names:
        if name not in outputs:
            raise ScoringError(Kind.INTERNAL, f'{model} gave no output "{name}"')
    if len(works) == 1 and padded == counts[0]:
        return [{name: outputs[name] for name in names}]
    pieces = {name: _split_output(model, name, outputs[name], counts, padded) for name in names}
    if len(pieces) == 1:  # the usual case, five times as fast
        (name,) = pieces
        return [{name: piece} for piece in pieces[name]]
    return [{name: pieces[name][i] for name in work.outputs} for i, work in enumerate(works)]


def _split_output(model: str, name: str, tensor: Tensor, counts: Sequence[int], padded: int) -> list[Tensor]:
    if not tensor.ndim or tensor.shape[0] != padded:
        message = f'{model} output "{name}": want {padded} rows as in the batch, got {describe_tensor(tensor)}'
        raise ScoringError(Kind.PRECONDITION, message)
    return split_rows(tensor, counts)


def _errors_by_work(counts: Sequence[int], item_errors: Mapping[int, ScoringError]) -> dict[int, ScoringError]:
    """The first row's error for each work that owns a faulty row; those of padding are nobody's."""
    ends = list(accumulate(counts))
    errors: dict[int, ScoringError] = {}
    for row in sorted(item_errors):
        index = bisect_right(ends, row)
        if index < len(counts):
            errors.setdefault(index, item_errors[row])
    return errors


def _note_origin(error: BaseException) -> None:
    """Keep as text where it came from, for the log of the request that it fails."""
    if not getattr(error, "__notes__", None):  # a session may raise one object again and again
        error.add_note("Traceback of the model's thread:\n" + "".join(traceback.format_tb(error.__traceback__)))


def _forget_tracebacks(outcomes: Sequence[object]) -> None:
    """Errors outlive the batch; the frames in their tracebacks would keep its tensors, and form cycles with them."""
    found = list(outcomes)
    seen: set[int] = set()
    while found:
        error = found.pop()
        if isinstance(error, BaseException) and id(error) not in seen:
            seen.add(id(error))
            error.__traceback__ = None
            found += (error.__cause__, error.__context__)
