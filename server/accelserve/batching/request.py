"""One submitted request: from what became of its places in the queue to its ticket."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from accelserve.backends.base import Device
from accelserve.batching.batch_queue import Closed, Pending, Waits
from accelserve.batching.batch_run import Outcome, Run
from accelserve.batching.stack import join_rows
from accelserve.batching.work import Scored, Work
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Timing
from accelserve.tensors import Tensor, describe_tensor
from accelserve.ticket import Ticket

# What failed for the device's sake may go well elsewhere, or a moment later.
_RETRY_AFTER_S = {Kind.DEVICE_LOST: 1, Kind.DEVICE_MEMORY: 1}

_new = tuple.__new__  # of a NamedTuple, without the detour over its own: 0.15 µs instead of 0.3


class Ride(NamedTuple):
    """The batch that a part was in. closed: what ended the wait for more."""

    device: Device
    closed: str
    settled_ns: int


class Part(Waits, Protocol):
    """One place in the queue. Belongs to the event loop."""

    work: Work

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        ...

    def took(self, run: Run, outcome: Outcome, position: int, ride: Ride) -> None:
        """Its run is done. position: in the batch, from 0."""
        ...

    def fail(self, error: ScoringError) -> None:
        """End its request, unless that is over."""
        ...

    def expired(self, now_ns: int, where: str) -> None: ...


class Whole(Ticket[Scored]):
    """A request that rides in one piece, as nearly all do: a `Part`, and its ticket. work: gone when it is done."""

    __slots__ = (
        "_withdraw",
        "alone",
        "arrived_ns",
        "deadline_ns",
        "group",
        "leaves_ns",
        "nbytes",
        "order",
        "priority",
        "rows",
        "waits_for",
        "work",
    )
    order: int
    waits_for: Closed
    leaves_ns: int

    def __init__(
        self, work: Work, submitted_ns: int, loop: asyncio.AbstractEventLoop, withdraw: Callable[[Part], None]
    ) -> None:
        super().__init__(loop)
        self._withdraw = withdraw
        self.work = work
        self.group = work.group
        self.rows = work.rows or 1  # a request without rows takes a place too
        self.nbytes = work.nbytes
        self.arrived_ns = submitted_ns
        self.deadline_ns = work.deadline_ns
        self.priority = work.priority
        self.alone = not work.batched

    def withdrawn(self) -> None:
        del self.work
        self._withdraw(self)

    def took(self, run: Run, outcome: Outcome, position: int, ride: Ride) -> None:
        if self._state:  # done
            return
        if isinstance(outcome, ScoringError):
            self.fail(outcome)
        elif self.deadline_ns is not None and ride.settled_ns >= self.deadline_ns:
            self.fail(_late(self.arrived_ns, ride.settled_ns))
        else:
            timing = _new(
                Timing,
                (
                    run.started_ns - self.arrived_ns,
                    run.compute_ns,
                    run.rows,
                    run.modelled_device_ns,
                    position,
                    ride.closed,
                ),
            )
            del self.work  # the caller may keep his ticket
            self.settle(_new(Scored, (outcome, timing, (ride.device,))))

    def fail(self, error: Exception) -> None:
        if not self.done():
            super().fail(_own(error))

    def expired(self, now_ns: int, where: str) -> None:
        self.fail(_expired(self.arrived_ns, now_ns, where))


class Piece(Pending):
    """A part of a request over `max_batch_size`."""

    __slots__ = ("_index", "_request", "work")

    def __init__(self, work: Work, submitted_ns: int, request: "Cut", index: int) -> None:
        super().__init__(work.group, work.rows, work.nbytes, submitted_ns, work.deadline_ns, work.priority)
        self.work = work
        self._request = request
        self._index = index

    def done(self) -> bool:
        return self._request.done()

    def took(self, run: Run, outcome: Outcome, position: int, ride: Ride) -> None:
        self._request.piece_done(self._index, run, outcome, ride)

    def fail(self, error: ScoringError) -> None:
        self._request.fail(error)

    def expired(self, now_ns: int, where: str) -> None:
        self.fail(_expired(self.arrived_ns, now_ns, where))


class _Answer(NamedTuple):
    run: Run
    outputs: dict[str, Tensor]
    ride: Ride


class Cut(Ticket[Scored]):
    """A request that rides in pieces: the last one's outcome, or the first error, settles it."""

    __slots__ = ("_answers", "_left", "_submitted_ns", "_withdraw", "pieces")

    def __init__(
        self,
        works: Sequence[Work],
        submitted_ns: int,
        loop: asyncio.AbstractEventLoop,
        withdraw: Callable[[Part], None],
    ) -> None:
        super().__init__(loop)
        self._withdraw = withdraw
        self._submitted_ns = submitted_ns
        self.pieces = [Piece(work, submitted_ns, self, index) for index, work in enumerate(works)]
        self._left = len(works)
        self._answers: list[_Answer | None] = [None] * len(works)

    def piece_done(self, index: int, run: Run, outcome: Outcome, ride: Ride) -> None:
        if self.done():
            return
        deadline_ns = self.pieces[index].deadline_ns
        if isinstance(outcome, ScoringError):
            self.fail(outcome)
        elif deadline_ns is not None and ride.settled_ns >= deadline_ns:
            self.fail(_late(self._submitted_ns, ride.settled_ns))
        else:
            self._answers[index] = _Answer(run, dict(outcome), ride)
            self._left -= 1
            if not self._left:
                self._join()

    def fail(self, error: Exception) -> None:
        if not self.done():
            super().fail(_own(error))

    def withdrawn(self) -> None:
        """What is left leaves the queue, and no cycle is left to the collector."""
        pieces, self.pieces, self._answers = self.pieces, [], []
        for piece in pieces:
            self._withdraw(piece)

    def _join(self) -> None:
        answers = [answer for answer in self._answers if answer is not None]
        runs = [answer.run for answer in answers]
        modelled = [run.modelled_device_ns for run in runs if run.modelled_device_ns is not None]
        timing = Timing(
            min(run.started_ns for run in runs) - self._submitted_ns,
            sum(run.compute_ns for run in runs),
            max(run.rows for run in runs),
            sum(modelled) if modelled else None,
            0,
            answers[0].ride.closed,
        )
        pieces, self.pieces, self._answers = self.pieces, [], []
        try:
            devices = tuple(dict.fromkeys(answer.ride.device for answer in answers))
            scored = Scored(_joined(pieces, answers), timing, devices)
        except ScoringError as error:
            self.fail(error)
        else:
            self.settle(scored)


def _joined(pieces: Sequence[Piece], answers: Sequence[_Answer]) -> dict[str, Tensor]:
    for piece, answer in zip(pieces, answers, strict=True):
        for name, tensor in answer.outputs.items():
            if not tensor.ndim or tensor.shape[0] != piece.rows:
                message = f'output "{name}": want {piece.rows} rows as in its part, got {describe_tensor(tensor)}'
                raise ScoringError(Kind.PRECONDITION, message)
    return join_rows([answer.outputs for answer in answers])


def _own(error: Exception) -> Exception:
    """An error of the request's own: one that is raised collects its raiser's frames."""
    if not isinstance(error, ScoringError):
        return error
    retry_after_s = error.retry_after_s or _RETRY_AFTER_S.get(error.kind)
    own = ScoringError(error.kind, error.message, reason=error.reason, retry_after_s=retry_after_s)
    own.__cause__ = error.__cause__ or (error if error.kind is Kind.INTERNAL else None)  # for the log
    return own


def _expired(submitted_ns: int, now_ns: int, where: str) -> ScoringError:
    message = f"the deadline passed in the queue of {where}, {_age(submitted_ns, now_ns)}"
    return ScoringError(Kind.DEADLINE, message)


def _late(submitted_ns: int, now_ns: int) -> ScoringError:
    return ScoringError(Kind.DEADLINE, f"the deadline passed during the run, {_age(submitted_ns, now_ns)}")


def _age(submitted_ns: int, now_ns: int) -> str:
    return f"{(now_ns - submitted_ns) / 1e6:.1f} ms after the request came"
