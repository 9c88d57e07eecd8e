"""One submitted request: from its parts' outcomes to its future."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from accelserve.backends.base import Device
from accelserve.batching.batch_queue import Pending
from accelserve.batching.batch_run import Outcome, Run
from accelserve.batching.stack import join_rows
from accelserve.batching.work import Scored, Work
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Timing
from accelserve.tensors import Tensor, describe_tensor

# What failed for the device's sake may go well elsewhere, or a moment later.
_RETRY_AFTER_S = {Kind.DEVICE_LOST: 1, Kind.DEVICE_MEMORY: 1}


class Answer(NamedTuple):
    """What became of one part: the run that decided it, its outputs or error, and where it ran."""

    run: Run
    outcome: Outcome
    device: Device


class Request:
    """Collects the outcomes of its parts, nearly always one, and settles its future once.

    pendings: its parts in the queue, taken ones included, until it is settled. withdraw: called a moment after
    the future is done, if parts may be left. Belongs to the event loop; only `future` is known outside.
    """

    __slots__ = ("_answers", "_deadline_ns", "_left", "_submitted_ns", "_withdraw", "future", "pendings")

    def __init__(
        self,
        future: asyncio.Future[Scored],
        works: Sequence[Work],
        submitted_ns: int,
        withdraw: "Callable[[Request], None]",
    ) -> None:
        self.future = future
        self._withdraw = withdraw
        self._submitted_ns = submitted_ns
        self._deadline_ns = works[0].deadline_ns
        self._left = len(works)
        self._answers: list[Answer | None] = [None] * len(works) if len(works) > 1 else []
        self.pendings = [
            Pending(
                work.group,
                max(work.rows, 1),  # a request without rows takes a place too
                work.nbytes,
                submitted_ns,
                work.deadline_ns,
                work.priority,
                not work.batched,
                Part(self, work, index),
            )
            for index, work in enumerate(works)
        ]

    def queued(self) -> None:
        """From now on there is something to withdraw."""
        self.future.add_done_callback(self._done)

    def _done(self, _: asyncio.Future[Scored]) -> None:
        self._withdraw(self)

    def part_done(self, index: int, run: Run, outcome: Outcome, device: Device, now_ns: int) -> None:
        """Take the outcome of one part; the last one, or the first error, settles the request."""
        if self.future.done():
            return
        if isinstance(outcome, ScoringError):
            self.fail(outcome)
        elif self._deadline_ns is not None and now_ns >= self._deadline_ns:
            self.fail(ScoringError(Kind.DEADLINE, f"the deadline passed during the run, {self._age(now_ns)}"))
        elif not self._answers:
            queue_ns = run.started_ns - self._submitted_ns
            timing = Timing(queue_ns, run.compute_ns, run.rows, run.modelled_device_ns)
            self.pendings = []
            self.future.remove_done_callback(self._done)  # nothing is left to withdraw
            self.future.set_result(Scored(outcome, timing, (device,)))
        else:
            self._answers[index] = Answer(run, outcome, device)
            self._left -= 1
            if not self._left:
                self._join()

    def fail(self, error: ScoringError) -> None:
        """Fail with an error of its own: one that is raised collects its raiser's frames."""
        if not self.future.done():
            retry_after_s = error.retry_after_s or _RETRY_AFTER_S.get(error.kind)
            own = ScoringError(error.kind, error.message, reason=error.reason, retry_after_s=retry_after_s)
            own.__cause__ = error.__cause__ or (error if error.kind is Kind.INTERNAL else None)  # for the log
            self.future.set_exception(own)

    def expired(self, now_ns: int, where: str) -> None:
        self.fail(ScoringError(Kind.DEADLINE, f"the deadline passed in the queue of {where}, {self._age(now_ns)}"))

    def let_go(self) -> list[Pending]:
        """Its parts, of which it keeps nothing: no cycle is left to the collector."""
        pendings, self.pendings, self._answers = self.pendings, [], []
        return pendings

    def _age(self, now_ns: int) -> str:
        return f"{(now_ns - self._submitted_ns) / 1e6:.1f} ms after the request came"

    def _join(self) -> None:
        answers = [answer for answer in self._answers if answer is not None]
        runs = [answer.run for answer in answers]
        modelled = [run.modelled_device_ns for run in runs if run.modelled_device_ns is not None]
        timing = Timing(
            min(run.started_ns for run in runs) - self._submitted_ns,
            sum(run.compute_ns for run in runs),
            max(run.rows for run in runs),
            sum(modelled) if modelled else None,
        )
        try:
            devices = tuple(dict.fromkeys(answer.device for answer in answers))
            self.future.set_result(Scored(self._joined(answers), timing, devices))
        except ScoringError as error:
            self.fail(error)

    def _joined(self, answers: Sequence[Answer]) -> dict[str, Tensor]:
        parts = [answer.outcome for answer in answers if not isinstance(answer.outcome, ScoringError)]
        for pending, outputs in zip(self.pendings, parts, strict=True):
            for name, tensor in outputs.items():
                if not tensor.ndim or tensor.shape[0] != pending.rows:
                    message = f'output "{name}": want {pending.rows} rows as in its part, got {describe_tensor(tensor)}'
                    raise ScoringError(Kind.PRECONDITION, message)
        return join_rows(parts)


class Part:
    """What one place in the queue stands for: the whole request, or a piece of one over `max_batch_size`."""

    __slots__ = ("index", "request", "work")

    def __init__(self, request: Request, work: Work, index: int) -> None:
        self.request = request
        self.work = work
        self.index = index

    @staticmethod
    def of(pending: Pending) -> "Part":
        part = pending.payload
        assert isinstance(part, Part)
        return part
