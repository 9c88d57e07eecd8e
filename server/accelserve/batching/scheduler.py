"""The driver of one model: requests come in on the event loop, batches run on the threads of its instances."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from accelserve.backends.base import Session
from accelserve.batching.admission import Admission, Flight, Learned
from accelserve.batching.batch_queue import BatchQueue, Closed, Taken
from accelserve.batching.batch_run import BatchRunner
from accelserve.batching.lanes import Instance, Job, Lane, Lanes, errors_in
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.request import Cut, Part, Ride, Whole
from accelserve.batching.settling import observe, settle
from accelserve.batching.wakeup import WakeUp
from accelserve.batching.work import BatchObserver, Scored, Work
from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority
from accelserve.ticket import Ticket

__all__ = ["BatchObserver", "Scheduler", "Scored", "Work"]

logger = logging.getLogger("accelserve.batching")

DRAIN_TIMEOUT_S = 30.0  # leaving the context waits this long for what was accepted
_JOIN_TIMEOUT_S = 1.0  # an idle model thread ends at once
_LOST_RETRY_S = 5  # another replica, or this one when the model is loaded again
_COMPANY_NS = 10_000_000  # a brief run without its company costs those some 20 µs: one in so long is nothing
_MOST_GATHERING_NS = 2_000_000  # while requests keep coming, in which time the loop has enough to do


class Scheduler:
    """Gathers requests into batches and runs them: one queue for all instances of a model.

    Work-conserving: the least busy instance with a free thread takes what the loop has read as soon as no more comes;
    while all are busy requests gather. Who cannot be answered in time is refused at once: `Admission` is asked, and
    told of runs, from the first request with a deadline on. An instance that loses its device leaves service and the
    others serve on; with the last one gone, what is queued fails and nothing more is taken. All methods belong to the
    event loop; enter and leave it there. A submitted request ends in its ticket: with `Scored`, or a ScoringError, or
    cancelled by its caller, which frees its rows and leaves its neighbours alone.

    sessions: one for each instance, all of one model.
    max_inflight: batches that an instance may run at the same time, each on a thread of its own.
    name: the model's, for messages and the log.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        policy: BatchPolicy,
        clock: Clock,
        *,
        max_inflight: int = 1,
        observer: BatchObserver | None = None,
        name: str = "model",
    ) -> None:
        runners = [BatchRunner(session, policy, clock, name) for session in sessions]
        self._lanes = Lanes([Lane(runner, max_inflight, f"{name}-{n}") for n, runner in enumerate(runners)])
        self._free_lane = self._lanes.free  # which is asked for each request
        self._most_rows = policy.max_batch_size
        self._clock = clock
        self._observer = observer
        self._name = name
        self._queue: BatchQueue[Part] = BatchQueue(policy)
        self._admission = Admission(policy, max_inflight * len(sessions), name)
        self._bounded = policy.latency_slo_ns is not None  # those without a deadline are refused too
        self._watching = self._bounded
        self._running: set[Job] = set()
        self._accepting = False
        self._abandoned = False
        self._gathering = False
        self._answering = False  # a batch that ran on the loop
        self._at_once = False  # one has, in this iteration of the loop, without a wait for company
        self._company_until_ns = 0  # until then company is waited for
        self._idle = asyncio.Event()
        self._lost = asyncio.Event()
        self._loss: ScoringError | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wakeup = WakeUp(self._loop, self._clock, self.poke)
        self._lanes.start(self._loop, self._finished)
        self._accepting = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, unless that was tried before, and end the threads; one that still runs ends after its run."""
        try:
            if not self._abandoned:
                await self.drain(DRAIN_TIMEOUT_S)
        finally:
            self._stop()

    @property
    def queue_rows(self) -> int:
        return self._queue.rows

    @property
    def queue_bytes(self) -> int:
        return self._queue.nbytes

    @property
    def inflight(self) -> int:
        """Batches that run now."""
        return len(self._running)

    @property
    def learned(self) -> Learned:
        """What runs take, and what follows from it; nothing while no request had a deadline."""
        return self._admission.learned

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every instance, lost ones included, in the order of the sessions."""
        return self._lanes.instances

    async def lost(self) -> ScoringError:
        """Wait until no instance has its device any more; the error that the last one ended with."""
        await self._lost.wait()
        assert self._loss is not None
        return self._loss

    # -- in -----------------------------------------------------------------------------------------------------

    def submit(self, work: Work) -> Ticket[Scored]:
        """Queue a request; one over `max_batch_size` runs in parts and is joined again.

        Raises ScoringError at once: OVERLOADED (reason "queue_full", or one of `Admission.check`), DRAINING,
        DEVICE_LOST, DEADLINE when it has already passed. The ticket fails with OVERLOADED (it can no longer be answered
        in time), DEADLINE (in the queue, or found late when the run is done), DRAINING, and what the session raised;
        INTERNAL stands for anything else.
        """
        now_ns = self._clock.now_ns()
        self._refuse()
        if work.deadline_ns is not None or self._bounded:
            self._admit(work.rows, work.deadline_ns, work.priority, now_ns)
        ticket: Whole | Cut
        if work.rows <= self._most_rows or not work.batched:
            ticket = Whole(work, now_ns, self._loop, self._withdraw)
            if self._queue or self._watching or not self._run_at_once(ticket, now_ns):
                self._queue.add(ticket)
            else:
                return ticket
        else:
            ticket = Cut(work.cut(self._most_rows), now_ns, self._loop, self._withdraw)
            try:
                self._queue.add_all(ticket.pieces)
            except ScoringError:
                ticket.cancel()  # or it and its pieces would hold each other
                raise
        if self._gathering:  # all is looked at in a moment, but a flood may make that a long one
            full = self._queue.rows >= self._queue.most_rows
            if full and not self._answering and self._free_lane() is not None:  # else answers would nest in answers
                self.poke()
        elif self._free_lane() is not None:
            self._poke_soon()
        elif work.deadline_ns is not None:
            self._set_wakeup()
        return ticket

    def check(self, rows: int, deadline_ns: int | None, priority: Priority) -> None:
        """Raise what `submit` would raise at once, so that nothing is decoded in vain."""
        self._refuse()
        if deadline_ns is not None or self._bounded:
            self._admit(rows, deadline_ns, priority, self._clock.now_ns())

    def _refuse(self) -> None:
        if self._loss is not None:
            raise self._gone(self._loss)
        if not self._accepting:
            raise self._draining()

    def _admit(self, rows: int, deadline_ns: int | None, priority: Priority, now_ns: int) -> None:
        if deadline_ns is not None and now_ns >= deadline_ns:
            raise ScoringError(Kind.DEADLINE, f"the deadline had passed before {self._name} could queue the request")
        self._watching = True
        queue, admission = self._queue, self._admission
        ahead = queue.rows_ahead(priority)
        if deadline_ns is None or not admission.is_sure(ahead + rows, deadline_ns - now_ns, now_ns):
            admission.check(rows, ahead, queue.expires_at_ns(), deadline_ns, now_ns)

    def _draining(self) -> ScoringError:
        return ScoringError(Kind.DRAINING, f"{self._name} is shutting down and takes no requests", retry_after_s=1)

    def _gone(self, loss: ScoringError) -> ScoringError:
        return ScoringError(Kind.DEVICE_LOST, loss.message, retry_after_s=_LOST_RETRY_S)

    def _withdraw(self, part: Part) -> None:
        """Take out of the queue what nobody waits for any more."""
        self._queue.remove(part)
        self._note_idle()

    # -- on the loop --------------------------------------------------------------------------------------------

    def _poke_soon(self) -> None:
        """When the loop has read what there is, so that all of it rides together."""
        self._gathering = True
        until_ns = self._clock.now_ns() + _MOST_GATHERING_NS
        self._loop.call_soon(self._gather, self._queue.rows, until_ns)

    def _gather(self, rows: int, until_ns: int) -> None:
        """rows: that waited an iteration ago. One that brings nothing ends it."""
        waiting = self._queue.rows
        if waiting != rows and waiting < self._most_rows and self._clock.now_ns() < until_ns:
            self._loop.call_soon(self._gather, waiting, until_ns)
        else:
            self._gathering = False
            self.poke(tried=not self._running)

    def poke(self, *, tried: bool = False) -> None:
        """Look at the clock: fail what has expired or is too late, start what may leave.

        tried: those who wait found the model idle, and admission let them in whatever is believed of runs.
        """
        now_ns = self._clock.now_ns()
        for pending in self._queue.expire(now_ns):
            pending.expired(now_ns, self._name)
        if self._watching and self._wait_or_drop(now_ns, tried):
            return
        while (lane := self._free_lane()) is not None and (taken := self._queue.take(now_ns)) is not None:
            if self._start(lane, taken, now_ns) and self._queue:  # the loop looks round before it runs another
                if not self._gathering:
                    self._poke_soon()
                return
        self._set_wakeup()
        self._note_idle()

    def _start(self, lane: Lane, taken: Taken[Part], now_ns: int) -> bool:
        """Hand a batch over, or run it here if it is brief: True, and its requests are answered.

        It may be empty: parts of a request that is over are left out here.
        """
        parts = [part for part in taken.items if not part.done()]
        if not parts:
            return False
        job = Job(lane, parts, taken.rows, taken.closed)
        if self._watching:
            job.flight = self._admission.started(taken.rows, self._queue.rows, now_ns)
        if len(self._lanes.alive) > 1:
            self._lanes.put_last(lane)
        if not self._answering and lane.is_brief(parts[0].group, taken.rows):
            self._run_here(lane, job)
            return True
        self._running.add(job)
        lane.give(job)
        return False

    def _run_at_once(self, ticket: Whole, now_ns: int) -> bool:
        """Run a brief request that finds nobody here, past the queue, and whether that was done.

        Where others came in the same iteration of the loop, for some time all are waited for again.
        """
        if self._gathering or self._answering or self._queue.delay_ns or now_ns < self._company_until_ns:
            return False
        if self._at_once:
            self._company_until_ns = now_ns + _COMPANY_NS
            return False
        lane = self._free_lane()
        if lane is None or not lane.is_brief(ticket.group, ticket.rows):
            return False
        self._at_once = True
        self._loop.call_soon(self._turn_over)
        closed = Closed.ALONE if ticket.alone else Closed.IDLE
        self._run_here(lane, Job(lane, (ticket,), ticket.rows, closed))
        return True

    def _turn_over(self) -> None:
        self._at_once = False

    def _run_here(self, lane: Lane, job: Job) -> None:
        self._answering = True
        try:
            lane.run(job)
            self._answer(job, lambda: None)
        finally:
            self._answering = False

    def _wait_or_drop(self, now_ns: int, tried: bool) -> bool:
        """Fail those who waited in vain. True: nothing leaves yet, as the objective's delay is not over."""
        for part in () if tried else self._queue.hopeless(now_ns):
            self._admission.missed(part.arrived_ns, now_ns)
            part.fail(self._admission.given_up(part.deadline_ns or now_ns, now_ns))
        until_ns = self._admission.hold_until_ns(self._queue.rows, self._queue.expires_at_ns(), now_ns)
        if until_ns is None or not self._queue:
            return False
        self._wakeup.set(until_ns)
        return True

    def _set_wakeup(self) -> None:
        """Be woken when the queue has something to give."""
        free = self._free_lane() is not None
        at_ns = self._queue.wake_at_ns() if free else self._queue.expires_at_ns()
        if at_ns is not None:
            self._wakeup.set(at_ns)

    # -- out ----------------------------------------------------------------------------------------------------

    def _finished(self, job: Job) -> None:
        """Start the next batch at once, then answer this one: neither can keep the other from happening."""
        self._running.discard(job)
        job.lane.running -= 1
        self._answer(job, self.poke)

    def _answer(self, job: Job, start_next: Callable[[], None]) -> None:
        """Errors go first, so that no further part of a failed request is started."""
        lane = job.lane
        lane.note(job)
        parts, report = job.empty()
        ride = Ride(lane.device, job.closed, self._clock.now_ns())
        errors = errors_in(report)
        if job.flight is not None:
            try:
                self._learn(job.flight, parts, 0 if errors else report.runs[0].padded_rows, ride.settled_ns)
            except Exception:
                logger.exception("%s learned nothing from a run", self._name)
        try:
            if errors:
                self._note_loss(lane, errors)
                settle(parts, report, ride, self._name, errors=True)
            start_next()
        finally:
            settle(parts, report, ride, self._name, errors=False)
            if self._observer is not None:
                observe(self._observer, lane.device.id, report.runs, self._name)

    def _learn(self, flight: Flight, parts: Sequence[Part], padded_rows: int, now_ns: int) -> None:
        """padded_rows: 0 for a batch that did not run as it should."""
        admission, queue = self._admission, self._queue
        for part in parts:
            if now_ns > (part.deadline_ns or 0):  # it may be late, or has none: of most, that is all there is to see
                admission.answered(flight, part.arrived_ns, part.deadline_ns, now_ns)
        admission.finished(flight, padded_rows, queue.rows, now_ns)
        queue.run_ns, queue.worthwhile = admission.latency.run_ns, admission.latency.worthwhile
        if self._bounded:
            queue.most_rows = admission.most_rows

    def _note_loss(self, lane: Lane, errors: Sequence[ScoringError]) -> None:
        loss = next((error for error in errors if error.kind is Kind.DEVICE_LOST), None)
        if loss is None or lane.lost:
            return
        self._lanes.lose(lane)
        left = len(self._lanes.alive)
        self._admission.lanes = max(1, self._lanes.max_inflight)
        logger.error("%s lost an instance on %s, %d left: %s", self._name, lane.device.id, left, loss.message)
        if not left:
            self._loss = loss
            for pending in self._queue.clear():
                pending.fail(self._gone(loss))
            self._lost.set()

    # -- end ----------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float | None) -> bool:
        """Refuse new requests and wait until the accepted ones are settled; None waits for as long as it takes.

        False when that took too long: what is left has then failed with DRAINING.
        """
        self._accepting = False
        self._note_idle()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self._abandon()
            return False
        return True

    def _is_idle(self) -> bool:
        return not self._running and not self._queue

    def _note_idle(self) -> None:
        if not self._accepting and self._is_idle():
            self._idle.set()

    def _abandon(self) -> None:
        self._abandoned = True
        queued = self._queue.clear()
        running = [part for job in self._running for part in job.parts]
        logger.warning("%s stops with %d parts queued and %d running", self._name, len(queued), len(running))
        for part in (*queued, *running):
            part.fail(self._draining())

    def _stop(self) -> None:
        self._accepting = False
        self._wakeup.cancel()
        if not self._abandoned and not self._is_idle():  # leaving was itself cancelled
            self._abandon()
        self._lanes.stop()
        if self._running:
            logger.warning("%s is still running a batch; its thread ends after it", self._name)
            return
        self._lanes.join(_JOIN_TIMEOUT_S)
