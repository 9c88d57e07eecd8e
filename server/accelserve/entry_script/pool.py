"""The workers of one entry script: started together, given requests, watched, replaced, ended.

What is decided is decided in `dispatch` and `standing`; this is the part that the event loop calls.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from accelserve.clock import Clock
from accelserve.cpus import take_short_turns
from accelserve.entry_script.dispatch import KILL_AFTER_NS, RECALL_AFTER_NS, Dispatch, Loss
from accelserve.entry_script.failures import Failures
from accelserve.entry_script.framing import Frame, FrameKind, frame_buffers
from accelserve.entry_script.heads import ResponseHeads, settings_frame, start_of
from accelserve.entry_script.messages import WorkerFailed, WorkerReady, WorkerSettings
from accelserve.entry_script.pool_policy import PoolPolicy
from accelserve.entry_script.process import Worker, WorkerOwner, WorkerProcess
from accelserve.entry_script.script_run import ScriptRun
from accelserve.entry_script.standing import Standing
from accelserve.entry_script.wake_up import WakeUp
from accelserve.errors import Kind, ScoringError
from accelserve.observability.metrics import Gauge

logger = logging.getLogger("accelserve.script")

Launch = Callable[[int, Mapping[str, str], WorkerOwner, Clock], Worker]

_TURN_NS = 100_000  # of the event loop, on a core that the workers fill
_CLOSING_S = 2.0  # for workers to end by themselves


class WorkerPool:
    """Belongs to the event loop: `async with` starts and ends the workers, `started` waits until all are ready."""

    def __init__(
        self,
        settings: WorkerSettings,
        policy: PoolPolicy,
        clock: Clock,
        environ: Mapping[str, str] | None = None,
        launch: Launch = WorkerProcess,
    ) -> None:
        """environ: what workers find in their environment beside the server's own."""
        self.moved = asyncio.Event()  # set whenever readiness may have changed, for whoever clears it
        self._environ = environ or {}
        self._settings = settings
        self._policy = policy
        self._clock = clock
        self._now_ns = clock.now_ns
        self._launch = launch
        self._dispatch: Dispatch[ScriptRun] = Dispatch(policy)
        self._responses = ResponseHeads()
        self._failures_of_run = Failures(clock.now_ns)
        self._workers: list[Worker | None] = [None] * policy.workers
        self._standing = Standing(policy.workers)
        self._was_ready = False
        self._failures: dict[int, WorkerFailed] = {}
        self._killed: set[int] = set()  # and not ended yet
        self._wake_up = WakeUp(clock, self.look)
        self._recalls = WakeUp(clock, self._recall_what_waits)  # often, so that it does nothing else
        self._timeouts = self._crashes = 0
        self._gave_up = False  # one of the first workers did not start
        self._closing = False

    # -- life

    async def __aenter__(self) -> "WorkerPool":
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[WorkerReady] = self._loop.create_future()
        self._ended = asyncio.Event()
        take_short_turns(_TURN_NS)
        for number in range(self._policy.workers):
            self._start(number)
        return self

    async def started(self) -> WorkerReady:
        """What the script is, once all workers are ready.

        Raises ScoringError when one of them does not start; the log has the script's traceback.
        """
        return await asyncio.shield(self._begun)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Who is in run() is not waited for longer than a moment: the sockets have closed, so nobody waits for it."""
        self._closing = True
        self._wake_up.close()
        self._recalls.close()
        if not self._begun.done():
            self._begun.cancel()
        elif not self._begun.cancelled():
            self._begun.exception()  # it may have come too late for anybody to ask
        for run in self._dispatch.give_up():
            run.fail(ScoringError(Kind.DRAINING, "the server is stopping", retry_after_s=1))
        for worker in self._there():
            worker.close()
        if not await self._all_end_within(_CLOSING_S):
            for worker in self._there():
                worker.kill("the server is stopping")
            await self._all_end_within(_CLOSING_S)

    async def _all_end_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while self._there():
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    # -- requests

    def submit(self, head: bytes, body: bytes, request_id: str, deadline_ns: int | None = None) -> ScriptRun:
        """A run to be awaited for the script's response. head: `heads.request_head`'s. request_id: for the log.

        Cancelling it lets a waiting request go; one that a worker has goes on, for nobody.
        Raises ScoringError(OVERLOADED); the run's own are OVERLOADED (reason "queue_wait"), DEADLINE (its own deadline,
        or reason "script_timeout"), INTERNAL (reason "script_crashed") and DRAINING.
        """
        now_ns = self._now_ns()
        if self._standing.is_down:
            raise self._down(now_ns)
        run = ScriptRun(self, self._loop, head, body, now_ns, deadline_ns, request_id)
        number = self._dispatch.submit(run, now_ns)
        if number is not None:
            self._send(run, number, now_ns)
        elif run.expires_ns is not None:
            self._wake_up.by(run.expires_ns)
        return run

    def withdraw(self, run: ScriptRun) -> None:
        self._dispatch.withdraw(run)

    def _send(self, run: ScriptRun, number: int, now_ns: int) -> None:
        worker = self._workers[number]
        assert worker is not None
        if run.began_ns:
            worker.send(frame_buffers(Frame(FrameKind.REQUEST, run.number, run.head, run.body)))
            self._wake_up.by(now_ns + self._dispatch.limit_ns)
        else:
            worker.permit()
            worker.send(frame_buffers(Frame(FrameKind.AHEAD, run.number, run.head, run.body)))
            self._recalls.by(now_ns + RECALL_AFTER_NS)

    def _send_waiting(self) -> None:
        now_ns = self._now_ns()
        while (found := self._dispatch.next_job(now_ns)) is not None:
            self._send(*found, now_ns)

    # -- what operators ask

    @property
    def swagger(self) -> Mapping[str, str]:
        """Version "2", "3", "3.1" -> JSON text; {} before the script is ready."""
        return self._standing.first.swagger if self._standing.first is not None else {}

    def ready(self) -> bool:
        """Whether a worker is there that can be expected to stay."""
        return self._standing.is_ready(self._now_ns())

    def why_not_ready(self) -> str:
        return self._standing.why_not_ready(self._now_ns())

    def gauges(self) -> Iterator[Gauge]:
        states = list(self._dispatch.states())
        for state in ("idle", "busy", "starting", "down"):
            told = "Workers of the entry script by what they do."
            yield Gauge("accelserve_script_workers", told, {"state": state}, states.count(state))
        yield Gauge("accelserve_script_waiting", "Requests that wait for a worker.", {}, self._dispatch.waiting)
        restarts = self._standing.restarts
        yield Gauge("accelserve_script_worker_restarts", "Workers started in the place of another.", {}, restarts)
        yield Gauge("accelserve_script_timeouts", "Workers killed because run() took too long.", {}, self._timeouts)
        yield Gauge("accelserve_script_crashes", "Requests whose worker died in run().", {}, self._crashes)

    # -- what workers tell

    def worker_told(self, number: int, frame: Frame) -> None:
        """Raises ValueError for what no worker sends."""
        if frame.kind is FrameKind.RESPONSE:
            self._answered(number, frame)
            return
        start = start_of(frame)
        if not self._dispatch.is_starting(number):
            raise ValueError("it told once more that it has started")
        if isinstance(start, WorkerReady):
            self._ready(number, start)
        else:
            self._failures[number] = start

    def _answered(self, number: int, frame: Frame) -> None:
        response = self._responses.response(frame)  # first: what is none must not take a request off the list
        run = self._dispatch.answered(number, frame.request_id, frame.run_ns, self._now_ns())
        self._send_waiting()  # so that the worker runs on while we answer
        if run is None:
            return
        if response.report:
            worker = self._workers[number]
            self._failures_of_run.log(response.report, run.request_id, worker.pid if worker is not None else 0)
        if not run.unwanted:
            run.settle(response)

    def _ready(self, number: int, ready: WorkerReady) -> None:
        self._dispatch.started(number, ready.concurrent)
        self._standing.ready(number, ready, self._now_ns())
        if self._standing.has_begun and not self._begun.done():
            self._begun.set_result(ready)
        self.moved.set()
        self._send_waiting()

    def worker_ended(self, number: int, why: str) -> None:
        now_ns = self._now_ns()
        worker, self._workers[number] = self._workers[number], None
        self._killed.discard(number)
        losses = self._dispatch.died(number, now_ns)
        self._ended.set()
        if not self._closing:
            self._note_end(number, worker.pid if worker is not None else 0, why, now_ns)
        for loss in losses:
            loss.job.fail(self._error_of(loss, why))
        if self._standing.is_down:
            for run in self._dispatch.give_up():
                run.fail(self._down(now_ns))
        elif not self._closing:
            self._send_waiting()

    def _note_end(self, number: int, pid: int, why: str, now_ns: int) -> None:
        failure = self._failures.pop(number, None)
        why = failure.message if failure is not None else why
        traceback = f"\n{failure.traceback}" if failure is not None and failure.traceback else ""
        if self._gave_up:
            return
        if self._begun.done():
            logger.error("a worker of the entry script is gone: %s%s", why, traceback, extra={"pid": pid})
            self._standing.died(number, why, now_ns)
            self._wake_up.by(self._standing.wake_at_ns(now_ns) or now_ns)
            self.moved.set()
            return
        message = f"the entry script {self._settings.script} does not start: {why}"
        for line in f"{message}{traceback}".splitlines():  # a line of the log each, which is for people here
            logger.error("%s", line, extra={"pid": pid})
        self._gave_up = True
        self._begun.set_exception(ScoringError(Kind.PRECONDITION, message))

    def _error_of(self, loss: Loss[ScriptRun], why: str) -> ScoringError:
        if loss.overdue:
            message = f"Scoring timeout after {self._policy.timeout_ns // 10**6} ms"
            return ScoringError(Kind.DEADLINE, message, reason="script_timeout")
        self._crashes += 1
        message = f"the worker that ran this request is gone: {why}"
        return ScoringError(Kind.INTERNAL, message, reason="script_crashed")

    # -- time

    def look(self) -> None:
        """Do what is due by now."""
        self._recall_what_waits()
        now_ns = self._now_ns()
        self._refuse_expired(now_ns)
        for number in self._dispatch.to_kill(now_ns):
            self._kill(number)
        for number in self._standing.to_start(now_ns):
            self._start(number)
        if self.ready() is not self._was_ready:
            self._was_ready = not self._was_ready
            self.moved.set()
        for at_ns in (self._standing.wake_at_ns(now_ns), self._dispatch.wake_at_ns()):
            if at_ns is not None:
                self._wake_up.by(at_ns)

    def _recall_what_waits(self) -> None:
        """Behind runs that take unexpectedly long."""
        now_ns = self._now_ns()
        recalled = self._dispatch.to_recall(now_ns)
        for number in recalled:
            worker = self._workers[number]
            assert worker is not None
            self._dispatch.recalled(number, worker.recall(self._dispatch.given(number)))
        if recalled:
            self._refuse_expired(now_ns)
            self._send_waiting()
            if (at_ns := self._dispatch.wake_at_ns()) is not None:
                self._wake_up.by(at_ns)
        if (at_ns := self._dispatch.recall_at_ns()) is not None:
            self._recalls.by(at_ns)

    def _refuse_expired(self, now_ns: int) -> None:
        for run in self._dispatch.expired(now_ns):
            run.fail(self._late(run, now_ns))

    def _kill(self, number: int) -> None:
        worker = self._workers[number]
        if worker is None or number in self._killed:
            return
        self._killed.add(number)
        if self._dispatch.is_starting(number):
            worker.kill(f"it was not ready after {self._policy.start_limit_ns / 1e9:g} s")
        else:
            self._timeouts += 1
            worker.kill(f"run() did not end {KILL_AFTER_NS / 1e9:g} s after its time limit")

    def _down(self, now_ns: int) -> ScoringError:
        retry_after_s = self._standing.retry_after_s(now_ns)
        return ScoringError(Kind.OVERLOADED, self.why_not_ready(), reason="script_down", retry_after_s=retry_after_s)

    def _late(self, run: ScriptRun, now_ns: int) -> ScoringError:
        if run.deadline_ns is not None and run.deadline_ns <= now_ns:
            return ScoringError(Kind.DEADLINE, "the deadline passed before a worker of the script was free")
        waited = f"no worker of the script was free within {(now_ns - run.arrived_ns) / 1e9:.1f} s"
        why = "" if self.ready() else f"; {self.why_not_ready()}"
        retry_after_s = self._dispatch.retry_after_s()
        return ScoringError(Kind.OVERLOADED, waited + why, reason="queue_wait", retry_after_s=retry_after_s)

    # -- parts

    def _start(self, number: int) -> None:
        now_ns = self._now_ns()
        try:
            worker = self._launch(number, self._environ, self, self._clock)
        except OSError as error:
            self.worker_ended(number, f"it could not be started ({error.strerror})")
            return
        self._workers[number] = worker
        self._dispatch.starts(number, now_ns)
        worker.send(frame_buffers(settings_frame(self._settings)))
        self._wake_up.by(now_ns + self._policy.start_limit_ns)

    def _there(self) -> list[Worker]:
        return [worker for worker in self._workers if worker is not None]
