"""One submitted request: from what became of its places in the queue to its ticket."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from accelserve.backends.base import Device
from accelserve.batching.batch_queue import Pending
from accelserve.batching.batch_run import Outcome, Run
from accelserve.batching.stack import join_rows
from accelserve.batching.work import Scored, Work
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Timing
from accelserve.tensors import Tensor, describe_tensor
from accelserve.ticket import Ticket

# What failed for the device's sake may go well elsewhere, or a moment later.
_RETRY_AFTER_S = {Kind.DEVICE_LOST: 1, Kind.DEVICE_MEMORY: 1}

Withdraw: TypeAlias = "Callable[[Part], None]"


class Ride(NamedTuple):
    """The batch that a part was in. closed: what ended the wait for more."""

    device: Device
    closed: str
    settled_ns: int


class Part(Pending):
    """One place in the queue. Belongs to the event loop."""

    __slots__ = ("work",)

    def __init__(self, work: Work, submitted_ns: int) -> None:
        self.work = work
        self.group = work.group
        self.rows = work.rows or 1  # a request without rows takes a place too
        self.nbytes = work.nbytes
        self.arrived_ns = submitted_ns
        self.deadline_ns = work.deadline_ns
        self.priority = work.priority
        self.alone = not work.batched
        self.payload = None

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        raise NotImplementedError

    def took(self, run: Run, outcome: Outcome, position: int, ride: Ride) -> None:
        """Its run is done. position: in the batch, from 0."""
        raise NotImplementedError

    def fail(self, error: ScoringError) -> None:
        """End its request, unless that is over."""
        raise NotImplementedError

    def expired(self, now_ns: int, where: str) -> None:
        age = _age(self.arrived_ns, now_ns)
        self.fail(ScoringError(Kind.DEADLINE, f"the deadline passed in the queue of {where}, {age}"))


class Whole(Part):
    """A request that rides in one piece, as nearly all do."""

    __slots__ = ("_withdraw", "ticket")

    def __init__(
        self, work: Work, submitted_ns: int, loop: asyncio.AbstractEventLoop, withdraw: Callable[[Part], None]
    ) -> None:
        super().__init__(work, submitted_ns)
        self._withdraw = withdraw
        self.ticket: Ticket[Scored] = Ticket(loop, self._withdrawn)

    @property
    def over(self) -> bool:
        return self.ticket.done()

    def took(self, run: Run, outcome: Outcome, position: int, ride: Ride) -> None:
        if self.ticket.done():
            return
        if isinstance(outcome, ScoringError):
            self.fail(outcome)
        elif self.deadline_ns is not None and ride.settled_ns >= self.deadline_ns:
            self.fail(_late(self.arrived_ns, ride.settled_ns))
        else:
            timing = Timing(
                run.started_ns - self.arrived_ns,
                run.compute_ns,
                run.rows,
                run.modelled_device_ns,
                position,
                ride.closed,
            )
            self.ticket.settle(Scored(outcome, timing, (ride.device,)))

    def fail(self, error: ScoringError) -> None:
        if not self.ticket.done():
            self.ticket.fail(_own(error))

    def _withdrawn(self) -> None:
        self._withdraw(self)


class Piece(Part):
    """A part of a request over `max_batch_size`."""

    __slots__ = ("_index", "_request")

    def __init__(self, work: Work, submitted_ns: int, request: "Cut", index: int) -> None:
        super().__init__(work, submitted_ns)
        self._request = request
        self._index = index

    @property
    def over(self) -> bool:
        return self._request.ticket.done()

    def took(self, run: Run, outcome: Outcome, position: int, ride: Ride) -> None:
        self._request.piece_done(self._index, run, outcome, ride)

    def fail(self, error: ScoringError) -> None:
        if not self.over:
            self._request.ticket.fail(_own(error))


class _Answer(NamedTuple):
    run: Run
    outputs: dict[str, Tensor]
    ride: Ride


class Cut:
    """A request that rides in pieces: the last one's outcome, or the first error, settles it."""

    __slots__ = ("_answers", "_left", "_submitted_ns", "_withdraw", "pieces", "ticket")

    def __init__(
        self,
        works: Sequence[Work],
        submitted_ns: int,
        loop: asyncio.AbstractEventLoop,
        withdraw: Callable[[Part], None],
    ) -> None:
        self._withdraw = withdraw
        self._submitted_ns = submitted_ns
        self.ticket: Ticket[Scored] = Ticket(loop, self._let_go)
        self.pieces = [Piece(work, submitted_ns, self, index) for index, work in enumerate(works)]
        self._left = len(works)
        self._answers: list[_Answer | None] = [None] * len(works)

    def piece_done(self, index: int, run: Run, outcome: Outcome, ride: Ride) -> None:
        if self.ticket.done():
            return
        deadline_ns = self.pieces[index].deadline_ns
        if isinstance(outcome, ScoringError):
            self.ticket.fail(_own(outcome))
        elif deadline_ns is not None and ride.settled_ns >= deadline_ns:
            self.ticket.fail(_late(self._submitted_ns, ride.settled_ns))
        else:
            self._answers[index] = _Answer(run, dict(outcome), ride)
            self._left -= 1
            if not self._left:
                self._join()

    def _let_go(self) -> None:
        """Nobody waits any more: what is left leaves the queue, and no cycle is left to the collector."""
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
            self.ticket.fail(_own(error))
        else:
            self.ticket.settle(scored)


def _joined(pieces: Sequence[Piece], answers: Sequence[_Answer]) -> dict[str, Tensor]:
    for piece, answer in zip(pieces, answers, strict=True):
        for name, tensor in answer.outputs.items():
            if not tensor.ndim or tensor.shape[0] != piece.rows:
                message = f'output "{name}": want {piece.rows} rows as in its part, got {describe_tensor(tensor)}'
                raise ScoringError(Kind.PRECONDITION, message)
    return join_rows([answer.outputs for answer in answers])


def _own(error: ScoringError) -> ScoringError:
    """An error of the request's own: one that is raised collects its raiser's frames."""
    retry_after_s = error.retry_after_s or _RETRY_AFTER_S.get(error.kind)
    own = ScoringError(error.kind, error.message, reason=error.reason, retry_after_s=retry_after_s)
    own.__cause__ = error.__cause__ or (error if error.kind is Kind.INTERNAL else None)  # for the log
    return own


def _late(submitted_ns: int, now_ns: int) -> ScoringError:
    return ScoringError(Kind.DEADLINE, f"the deadline passed during the run, {_age(submitted_ns, now_ns)}")


def _age(submitted_ns: int, now_ns: int) -> str:
    return f"{(now_ns - submitted_ns) / 1e6:.1f} ms after the request came"
