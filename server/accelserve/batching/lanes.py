"""The instances of a model: each a session on a device with threads that run its batches; who takes the next one."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from time import thread_time_ns

from accelserve.backends.base import Device, is_steady
from accelserve.batching.admission import Flight
from accelserve.batching.batch_run import BatchRunner, Report
from accelserve.batching.brevity import Brevity
from accelserve.batching.request import Part
from accelserve.batching.work import Work
from accelserve.errors import ScoringError

logger = logging.getLogger("accelserve.batching")


@dataclass(frozen=True, slots=True)
class Instance:
    """What is told of a lane. running: batches that it runs now. lost: its device is gone."""

    device: Device
    running: int
    lost: bool


class Job:
    """A batch on its way through a lane, and its report on the way back. closed: what ended the wait for more.
    flight: what admission knows it by, if that is told of runs. cpu_ns: of the thread that ran it.

    The loop empties it: the thread may not have let go of it yet when the answers leave.
    """

    __slots__ = ("closed", "cpu_ns", "flight", "lane", "parts", "report", "rows", "works")

    def __init__(self, lane: "Lane", parts: Sequence[Part], rows: int, closed: str = "") -> None:
        self.lane = lane
        self.rows = rows
        self.cpu_ns = 0
        self.closed = closed
        self.flight: Flight | None = None
        self.parts = parts
        self.works: Sequence[Work] = [part.work for part in parts]
        self.report = Report((), ())

    def empty(self) -> tuple[Sequence[Part], Report]:
        parts, self.parts, self.works = self.parts, (), ()
        report, self.report = self.report, Report((), ())
        return parts, report


class Lane:
    """Runs at most `max_inflight` batches at a time, each on a thread of its own; the event loop gives and counts.

    running: batches given and not yet reported. lost: its device is gone, and it is given nothing any more.
    """

    def __init__(self, runner: BatchRunner, max_inflight: int, name: str) -> None:
        """name: begins its threads' names."""
        self.device = runner.session.device
        self.running = 0
        self.lost = False
        self.max_inflight = max_inflight
        self._runner = runner
        self._name = name
        self._brevity = Brevity() if is_steady(runner.session) else None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, loop: asyncio.AbstractEventLoop, finished: Callable[[Job], None]) -> None:
        """finished: called on the loop with each job that has its report."""
        for number in range(self.max_inflight):
            name = f"{self._name}-{number}"
            thread = threading.Thread(target=self._serve, args=(loop, finished), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def is_brief(self, group: Hashable, rows: int) -> bool:
        """Whether a batch of this group would be over sooner than a thread has been woken for it."""
        return self._brevity is not None and self._brevity.is_brief(group, rows)

    def give(self, job: Job) -> None:
        """To a thread of its own."""
        self.running += 1
        self._jobs.put(job)

    def run(self, job: Job) -> None:
        """On this thread. The job then has its report, and `finished` is not called."""
        began_ns = thread_time_ns()
        job.report = self._runner.run(job.works)
        job.cpu_ns = thread_time_ns() - began_ns

    def note(self, job: Job) -> None:
        """Learn from a job that has its report; on the event loop."""
        if self._brevity is not None and len(job.report.runs) == 1:
            self._brevity.ran(job.parts[0].group, job.rows, job.cpu_ns)

    def stop(self) -> None:
        """End the threads, each after the batch that it runs."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        for thread in self._threads:
            thread.join(timeout_s)

    @property
    def instance(self) -> Instance:
        return Instance(self.device, self.running, self.lost)

    def _serve(self, loop: asyncio.AbstractEventLoop, finished: Callable[[Job], None]) -> None:
        while self._serve_one(loop, finished):
            pass

    def _serve_one(self, loop: asyncio.AbstractEventLoop, finished: Callable[[Job], None]) -> bool:
        """A frame of its own for each job: a thread that waits for the next one holds nothing of the last."""
        job = self._jobs.get()
        if job is None:
            return False
        self.run(job)
        try:
            loop.call_soon_threadsafe(finished, job)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            logger.warning("%s finished a batch after the server had stopped", self._runner.name)
        return True


class Lanes:
    """All instances of a model. alive: those in service, in the order in which equals are served."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = tuple(lanes)
        self.alive = list(lanes)

    def start(self, loop: asyncio.AbstractEventLoop, finished: Callable[[Job], None]) -> None:
        """As each of them."""
        for lane in self._lanes:
            lane.start(loop, finished)

    def free(self) -> Lane | None:
        """The least busy instance that can take a batch; of equals the one that has waited longest."""
        best = None
        for lane in self.alive:
            if lane.running < lane.max_inflight and (best is None or lane.running < best.running):
                best = lane
        return best

    def put_last(self, lane: Lane) -> None:
        """It has taken a batch: of equals the others are served first now."""
        self.alive.remove(lane)
        self.alive.append(lane)

    def lose(self, lane: Lane) -> None:
        """Its device is gone: it gets nothing more, and what it still runs fails by itself."""
        lane.lost = True
        lane.stop()
        self.alive.remove(lane)

    @property
    def max_inflight(self) -> int:
        """Batches that those in service may run at the same time."""
        return sum(lane.max_inflight for lane in self.alive)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every instance, lost ones included, in the order of the sessions."""
        return tuple([lane.instance for lane in self._lanes])

    def stop(self) -> None:
        """End the threads; those of a lost instance were told before."""
        for lane in self.alive:
            lane.stop()

    def join(self, timeout_s: float) -> None:
        for lane in self._lanes:
            lane.join(timeout_s)


def errors_in(report: Report) -> list[ScoringError]:
    return [outcome for _, outcome in report.answers if isinstance(outcome, ScoringError)]
