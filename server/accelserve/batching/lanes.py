"""One instance of a model: a session on a device, and the threads that run its batches."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelserve.backends.base import Device
from accelserve.batching.admission import Flight
from accelserve.batching.batch_run import BatchRunner, Report
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
    flight: what admission knows it by, if that is told of runs.

    The loop empties it: the thread may not have let go of it yet when the answers leave.
    """

    __slots__ = ("closed", "flight", "lane", "parts", "report", "works")

    def __init__(self, lane: "Lane", parts: Sequence[Part], closed: str = "") -> None:
        self.lane = lane
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

    def __init__(self, runner: BatchRunner, device: Device, max_inflight: int, name: str) -> None:
        """name: begins its threads' names."""
        self.device = device
        self.running = 0
        self.lost = False
        self.max_inflight = max_inflight
        self._runner = runner
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, loop: asyncio.AbstractEventLoop, finished: Callable[[Job], None]) -> None:
        """finished: called on the loop with each job that has its report."""
        for number in range(self.max_inflight):
            name = f"{self._name}-{number}"
            thread = threading.Thread(target=self._serve, args=(loop, finished), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def give(self, job: Job) -> None:
        self.running += 1
        self._jobs.put(job)

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
        job.report = self._runner.run(job.works)
        try:
            loop.call_soon_threadsafe(finished, job)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            logger.warning("%s finished a batch after the server had stopped", self._runner.name)
        return True


def errors_in(report: Report) -> list[ScoringError]:
    return [outcome for _, outcome in report.answers if isinstance(outcome, ScoringError)]
