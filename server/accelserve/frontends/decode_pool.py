"""Threads that work for the event loop, and the bell by which they call it: one ring for all that is finished by then.

A ring is a system call, a switch of threads and an iteration of the loop; it is pressed again only when the loop has
answered. Of 8 callers at a time each job costs 5 µs beside its work, of one 15, where `run_in_executor` and `gather`
took 38 and 59: so even a small picture (200 µs) gains nothing worth having from being decoded on the loop itself, which
would keep everybody else waiting.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from typing import Protocol

from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.frontends")


class Job(Protocol):
    """What a pool is given. None of these is expected to raise; where one does, the log has it and the pool goes on."""

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
    """Works on jobs in the order in which they are given. All methods belong to one event loop; threads start late."""

    def __init__(self, threads: int) -> None:
        self._count = threads
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
        if job is None:
            return False
        try:
            job.work()
        except BaseException:  # even SystemExit: no picture may end its thread
            logger.exception("a job of the decode pool failed")
        self._finished.append(job)
        # No lock: who finds it rung has appended before `_settle` takes the bell down, and that looks afterwards. Two
        # threads that find it silent both ring, which is once too often.
        if not self._rung:
            self._rung = True
            try:
                self._loop.call_soon_threadsafe(self._settle)
            except RuntimeError:
                logger.warning("a picture was decoded after the server had stopped")
        return True

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._rung = False
        while self._finished:
            job = self._finished.popleft()
            try:
                job.settle()
            except Exception:
                logger.exception("the answer of a job of the decode pool was lost")
