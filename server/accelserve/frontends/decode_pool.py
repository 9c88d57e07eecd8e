"""Threads that work for the event loop, and the bell by which they call it: one ring for all that is finished by then.

A ring is a system call, a switch of threads and an iteration of the loop; it is pressed again only when the loop has
answered. Of 8 callers at a time each job costs 5 µs beside its work, of one 15, where `run_in_executor` and `gather`
took 38 and 59: so even a small picture (200 µs) gains nothing worth having from being decoded on the loop itself, which
would keep everybody else waiting.

Where the loop has no core of its own, a ring at once gains nobody anything: it takes the core from the thread that
decodes, and each picture then goes on alone, through cold caches. So there the threads may be patient: they ring when
nothing is left to decode, or for the picture that has waited long enough. With 8 and 32 clients of small pictures on
one core that is a seventh of all the CPU that a request takes, and everybody is answered earlier.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from typing import Protocol

from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.frontends")

ONE_CORE_PATIENCE_NS = 4_000_000  # of a dozen small pictures; twice as long gains nothing more


class Job(Protocol):
    """What a pool is given. None of these is expected to raise; where one does, the log has it and the pool goes on.

    brief: it takes a moment at most, so that what was finished before may wait for it.
    """

    @property
    def brief(self) -> bool: ...

    def work(self) -> None:
        """On a thread of the pool."""
        ...

    def settle(self) -> None:
        """On the loop, after `work`."""
        ...

    def drop(self) -> None:
        """Instead of both: the pool was closed before."""
        ...


class DecodePool:
    """Works on jobs in the order in which they are given. All methods belong to one event loop; threads start late.

    patience_ns: how long what is finished may wait for what is not; 0: the loop is called for each at once.
    """

    def __init__(self, threads: int, clock: Clock, patience_ns: int = 0) -> None:
        self._count = threads
        self._clock = clock
        self._patience_ns = patience_ns
        self._waits_since_ns = 0
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._finished: deque[Job] = deque()
        self._rung = False
        self._closed = False

    def give(self, job: Job) -> None:
        """Raises ScoringError(DRAINING) after close."""
        if self._closed:
            raise ScoringError(Kind.DRAINING, "the server is shutting down and decodes no pictures", retry_after_s=1)
        if not self._threads:
            self._start()
        self._jobs.put(job)

    def close(self) -> None:
        """Drop what has not been begun, and end each thread after what it works on; waits for nothing."""
        self._closed = True
        while not self._jobs.empty():
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:  # a thread was faster
                break
            if job is not None:
                job.drop()
        for _ in self._threads:
            self._jobs.put(None)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in range(self._count):
            thread = threading.Thread(target=self._serve, name=f"accelserve-decode-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    # -- on the threads ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """A frame of its own for each job: a thread that waits for the next one holds nothing of the last."""
        job = self._jobs.get()
        if self._patience_ns and (job is None or not job.brief) and self._finished:
            self._ring()
        if job is None:
            return False
        try:
            job.work()
        except BaseException:  # even SystemExit: no picture may end its thread
            logger.exception("a job of the decode pool failed")
        self._note_finished(job)
        return True

    def _note_finished(self, job: Job) -> None:
        """Who finds others still to be worked on may leave the ring to who works on them."""
        now_ns = self._clock.now_ns() if self._patience_ns else 0
        if not self._finished:
            self._waits_since_ns = now_ns
        self._finished.append(job)
        if self._jobs.empty() or now_ns - self._waits_since_ns >= self._patience_ns:
            self._ring()

    def _ring(self) -> None:
        # No lock: who finds it rung has appended before `_settle` takes the bell down, and that looks afterwards. Two
        # threads that find it silent both ring, which is once too often.
        if self._rung:
            return
        self._rung = True
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            logger.warning("a picture was decoded after the server had stopped")

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._rung = False
        while self._finished:
            job = self._finished.popleft()
            try:
                job.settle()
            except Exception:
                logger.exception("the answer of a job of the decode pool was lost")
