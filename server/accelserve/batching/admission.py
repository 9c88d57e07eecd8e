"""Who is let into a model's queue: an answer that would come too late is refused at once. Pure, time passed in."""

from collections.abc import Sequence
from typing import NamedTuple

from accelserve.batching.batch_queue import DEADLINE_MARGIN_NS
from accelserve.batching.latency import LatencyModel
from accelserve.batching.objective import BatchChoice
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError

_WIDEN = 0.1  # what a miss adds to the margin;
_STARVED = 0.05  # what a batch takes from it that is less than half full though requests were refused;
_HOLD_NS = 5_000_000_000  # it stays for so long,
_NARROW = 0.003  # and is taken back by this much with each run
_MOST_MARGIN = 2.0  # who is late with twice the wait that was expected is not late for the wait
_FILL_GAIN = 0.1  # how far one batch moves what is believed of how full they get
_ALWAYS_NS = 1 << 63
_FIRST_OVERDUE = 4  # a run that is late already takes this part of its age longer: the older, the longer


class Flight:
    """A run on its way."""

    __slots__ = ("due_ns", "rows", "started_ns")

    def __init__(self, rows: int, started_ns: int, due_ns: int) -> None:
        self.rows = rows
        self.started_ns = started_ns
        self.due_ns = due_ns


class Learned(NamedTuple):
    """For people. sizes: (rows, typical ns of a run). most_rows, delay_ns: what the objective made of it."""

    sizes: Sequence[tuple[int, int]]
    most_rows: int
    delay_ns: int


class Admission:
    """Estimates when a new request would be answered, and refuses what cannot make it.

    The queue is first in, first out, and runs leave in full batches while it holds more than one: a request behind
    `ahead` rows starts when the runs before its own have ended, on whichever lane is free first, and its own takes
    what a batch up to its place takes: who joins later does not make it late, a batch that it would is cut
    (`BatchQueue.run_ns`). Times are multiplied by what runs spread, and the wait by a margin that grows where requests
    came too late, and shrinks where batches leave half empty though requests were refused. A request that finds a lane
    free and nobody waiting is measured by what a run alone takes at best: there is nothing better to do with the
    device.

    The margin costs no throughput: it shortens the queue, which at overload holds more than the next batch still.

    lanes: batches that run at the same time, all instances together, at least 1; set it when that changes.
    most_rows: of a batch; the policy's, or with an objective what `BatchChoice` says.
    """

    __slots__ = (
        "_batch_rows",
        "_choice",
        "_fill",
        "_hold_rows",
        "_hold_until_ns",
        "_last_rows",
        "_margin",
        "_name",
        "_objective_ns",
        "_refused",
        "_row_ns",
        "_running",
        "_spare_rows",
        "_sure_until_ns",
        "_widened_ns",
        "lanes",
        "latency",
        "most_rows",
    )

    def __init__(self, policy: BatchPolicy, lanes: int, name: str = "model") -> None:
        self._name = name
        self._objective_ns = policy.latency_slo_ns
        self._choice = (
            BatchChoice(policy.latency_slo_ns, policy.max_batch_size, policy.allowed_batch_sizes, lanes)
            if policy.latency_slo_ns is not None
            else None
        )
        self.most_rows = policy.max_batch_size
        self._hold_until_ns = 0
        self._hold_rows = 0
        self._running: dict[Flight, None] = {}
        self._batch_rows = policy.max_batch_size
        self._fill = float(policy.max_batch_size)
        self._margin = 1.0
        self._last_rows = 1
        self._refused = False  # anybody, since a batch left
        self._row_ns = 0.0
        self._spare_rows = 0
        self._sure_until_ns = -1
        self._widened_ns = -1
        self.lanes = lanes
        self.latency = LatencyModel(policy.max_batch_size, policy.allowed_batch_sizes)

    @property
    def learned(self) -> Learned:
        delay_ns = 0 if self._choice is None else self._choice.delay_ns
        return Learned(self.latency.sizes(), self.most_rows, delay_ns)

    # -- requests -----------------------------------------------------------------------------------------------

    def check(self, rows: int, ahead: int, first_ns: int | None, deadline_ns: int | None, now_ns: int) -> None:
        """Let it pass, or raise ScoringError(OVERLOADED) with a reason and when to come again.

        rows: its own. ahead: rows that wait and go before it. first_ns: the earliest deadline of those who wait.
        Reasons: "wait_too_long" for who would make it on an idle server, "deadline_too_short" for who would not, "slo"
        for who has no deadline of its own and would be answered later than the model's objective.
        """
        if deadline_ns is not None:
            left_ns = deadline_ns - now_ns
        elif self._objective_ns is not None:
            if not ahead and len(self._running) < self.lanes:
                return  # an objective that no run meets is not the client's wish
            left_ns = self._objective_ns
        else:
            return
        needs_ns = self.estimate_ns(rows, ahead, first_ns, now_ns)
        if left_ns < needs_ns:
            self._refuse(rows, needs_ns, left_ns, deadline_ns is None, now_ns)

    def is_sure(self, rows: int, left_ns: int, now_ns: int) -> bool:
        """Whether `check` would let somebody pass by far, in a fifth of its time. rows: its own and those ahead."""
        return left_ns >= (rows + self._spare_rows) * self._row_ns and now_ns < self._sure_until_ns

    def estimate_ns(self, rows: int, ahead: int, first_ns: int | None, now_ns: int) -> int:
        """From now to its answer, margin included; 0 while nothing was learned."""
        run_ns = self.latency.run_ns
        if not run_ns:
            return 0
        if not ahead and len(self._running) < self.lanes:
            return self._alone_ns(rows, now_ns)
        batches, place = divmod(ahead + rows - 1 if rows else ahead, self._batch_rows)
        rounds, lane = divmod(batches, self.lanes)
        wait_ns = self._free_in_ns(lane, now_ns) + rounds * run_ns[self._batch_rows]
        least_ns = run_ns[min(self._last_rows, self.latency.worthwhile)]
        own_ns = max(run_ns[place + 1], least_ns)
        if first_ns is not None and not batches and now_ns + wait_ns + own_ns > first_ns:
            own_ns += least_ns  # the batch leaves without it, for the first one's sake
        return int((wait_ns * self._margin + own_ns) * self.latency.spread)

    def _alone_ns(self, rows: int, now_ns: int) -> int:
        """With nobody before it: what its runs take for certain."""
        sure_ns, most_rows = self.latency.sure_ns, self.most_rows
        if rows <= most_rows:
            return sure_ns(rows, now_ns)
        batches = -(-rows // most_rows)
        rounds = -(-batches // self.lanes)
        return (rounds - 1) * sure_ns(most_rows, now_ns) + sure_ns(rows - (batches - 1) * most_rows, now_ns)

    def _free_in_ns(self, lane: int, now_ns: int) -> int:
        """When one more than `lane` lanes have become free."""
        busy = len(self._running)
        idle = self.lanes - busy
        if lane < idle:
            return 0
        left = [_left_ns(flight, now_ns) for flight in self._running]
        if busy == 1:
            return left[0]
        left.sort()
        return left[min(lane - max(idle, 0), busy - 1)]

    def _refuse(self, rows: int, needs_ns: int, left_ns: int, by_objective: bool, now_ns: int) -> None:
        if not self._running:
            self.latency.fade(now_ns)
        alone_ns = self.latency.least_ns(min(rows, self._batch_rows))
        self._refused = True
        if by_objective:
            reason, what = "slo", "is expected to miss its objective"
        elif left_ns < alone_ns:
            reason, what = "deadline_too_short", "cannot meet the deadline"
        else:
            reason, what = "wait_too_long", "cannot meet the deadline"
        message = (
            f"{self._name} {what}: an answer takes {needs_ns / 1e6:.1f} ms now, of which {alone_ns / 1e6:.1f} ms are "
            f"the run, and {max(left_ns, 0) / 1e6:.1f} ms are left"
        )
        raise ScoringError(Kind.OVERLOADED, message, reason=reason, retry_after_s=retry_after_s(needs_ns - left_ns))

    def given_up(self, deadline_ns: int, now_ns: int) -> ScoringError:
        """For who was let in and waits, but whose run would end too late by now."""
        left_ns = deadline_ns - now_ns
        message = (
            f"{self._name} cannot meet the deadline any more: those before took longer than expected, a run takes "
            f"{self.latency.run_ns[1] / 1e6:.1f} ms, and {max(left_ns, 0) / 1e6:.1f} ms are left"
        )
        return ScoringError(Kind.OVERLOADED, message, reason="wait_too_long", retry_after_s=1)

    # -- runs ---------------------------------------------------------------------------------------------------

    def started(self, rows: int, waiting: int, now_ns: int) -> Flight:
        """A batch of `rows` was handed to a lane, and `waiting` rows were left in the queue."""
        run_ns = self.latency.run_ns
        flight = Flight(rows, now_ns, now_ns + (run_ns[rows] if rows < len(run_ns) else 0))
        self._running[flight] = None
        self._last_rows = rows
        if self._refused and not waiting and 2 * rows <= self._batch_rows:  # they would have had a place
            self._margin = max(1.0 / self.latency.spread, self._margin - _STARVED)
        self._refused = False
        self._sure_until_ns = min(self._sure_until_ns, 2 * flight.due_ns - now_ns)
        if waiting:  # as full as batches get: what comes in pieces, or cannot ride together, fills none
            self._fill += _FILL_GAIN * (rows - self._fill)
            self._batch_rows = max(1, min(round(self._fill), self.most_rows))
        return flight

    def finished(self, flight: Flight, padded_rows: int, waiting: int, now_ns: int) -> None:
        """The batch of this flight is answered.

        padded_rows: that the model ran; 0 where nothing is to be learned, for it failed. waiting: rows in the queue.
        """
        del self._running[flight]
        if padded_rows:
            self.latency.observe(padded_rows, now_ns - flight.started_ns, now_ns)
            if self._choice is not None:
                self._choose(self._choice, flight, waiting, now_ns)
        if self._margin > 1.0 and now_ns - self._widened_ns > _HOLD_NS:
            self._margin = max(1.0, self._margin - _NARROW)
        self._be_sure()

    def _choose(self, choice: BatchChoice, flight: Flight, waiting: int, now_ns: int) -> None:
        latency, choice.lanes = self.latency, self.lanes
        choice.ran(flight.rows, now_ns - flight.started_ns, now_ns)
        choice.choose(latency.run_ns, latency.spread, latency.largest_seen, now_ns)
        self._hold_until_ns = now_ns + choice.delay_ns
        self._hold_rows = min(flight.rows + waiting, choice.most_rows)
        if choice.most_rows != self.most_rows:
            self.most_rows = choice.most_rows
            self._fill, self._batch_rows = float(self.most_rows), self.most_rows

    def hold_until_ns(self, waiting: int, first_ns: int | None, now_ns: int) -> int | None:
        """Until when a free lane is to wait for more than these rows; None, nearly always: not at all.

        first_ns: the earliest deadline of those who wait. Nobody is held so long that the run would miss it.
        """
        until_ns = self._hold_until_ns
        if now_ns >= until_ns or waiting >= self._hold_rows:
            return None
        if first_ns is not None:
            run_ns = self.latency.run_ns[self._hold_rows] * self.latency.spread
            until_ns = min(until_ns, first_ns - int(run_ns) - DEADLINE_MARGIN_NS)
        return until_ns if now_ns < until_ns else None

    def _be_sure(self) -> None:
        """Note what a row takes behind full batches, and until when the runs on their way are not far overdue."""
        run_ns = self.latency.run_ns
        if run_ns:
            self._row_ns = run_ns[self._batch_rows] * self.latency.spread * self._margin / self._batch_rows
            self._spare_rows = 3 * self._batch_rows  # what runs now, its own run, and a batch cut in two
        running = self._running
        self._sure_until_ns = min([2 * t.due_ns - t.started_ns for t in running]) if running else _ALWAYS_NS

    def answered(self, flight: Flight, came_ns: int, deadline_ns: int | None, now_ns: int) -> None:
        """A request of this batch has its answer. Who hardly waited and was late all the same says nothing of waits."""
        if deadline_ns is None:
            if self._objective_ns is None:
                return
            deadline_ns = came_ns + self._objective_ns
        if now_ns > deadline_ns and flight.started_ns - came_ns > (now_ns - flight.started_ns) // 8:
            self.missed(came_ns, now_ns)

    def missed(self, came_ns: int, now_ns: int) -> None:
        """A request that came then and had to wait was answered too late, or dropped for it.

        Who was let in before the margin was last widened says nothing new.
        """
        if came_ns > self._widened_ns:
            self._widened_ns = now_ns
            self._margin = min(self._margin + _WIDEN, _MOST_MARGIN)


def _left_ns(flight: Flight, now_ns: int) -> int:
    left_ns = flight.due_ns - now_ns
    return left_ns if left_ns > 0 else (now_ns - flight.started_ns) // _FIRST_OVERDUE


def retry_after_s(late_ns: int) -> int:
    """Whole seconds after which a request that would come late by this much would not."""
    return max(1, -(-late_ns // 1_000_000_000))
