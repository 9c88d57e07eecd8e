"""Opened means closed: once, in order, when no run is under way, and nothing is left behind."""

import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from accelserve.backends.base import Capabilities, Session
from accelserve.backends.conformance.fixtures import WAIT_S, Checks, copies
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

_SCHEDULING_NS = 50_000_000  # between the run's end and the note of its time, a thread may have to wait for the GIL
_SETTLING_S = 2.0  # threads of a library end a moment after they were told to


class LifecycleChecks(Checks):
    def test_closing_twice_does_nothing(self, session: Session) -> None:
        session.close()
        session.close()

    def test_a_session_that_never_ran_is_closed(self, session: Session) -> None:
        session.close()

    def test_a_closed_session_refuses_to_run(self, session: Session) -> None:
        session.close()
        with pytest.raises(ScoringError):
            self._run(session, self.sample_inputs(1))

    def test_close_waits_for_the_run_under_way(self, session: Session) -> None:
        with ThreadPoolExecutor(1) as pool:
            ran = threading.Event()
            last = pool.submit(self._run_until_refused, session, ran)
            assert ran.wait(WAIT_S)
            session.close()
            closed = time.monotonic_ns()
            ended, refusal = last.result(WAIT_S)
            assert ended <= closed + _SCHEDULING_NS, "close came back while a run was under way"
            assert refusal.kind is not Kind.DEVICE_LOST, "a closed session says that its device is lost"

    def test_two_threads_may_close_at_once(self, session: Session) -> None:
        self._run(session, self.sample_inputs(1))
        with ThreadPoolExecutor(2) as pool:
            for closing in [pool.submit(session.close) for _ in range(2)]:
                closing.result(WAIT_S)

    def test_a_second_session_works_after_the_first_was_closed(
        self, open_session: Callable[[], Session], limits: Capabilities
    ) -> None:
        first = open_session()
        before = copies(self._run(first, self.sample_inputs(1)))
        first.close()
        self._assert_same(before, self._run(open_session(), self.sample_inputs(1)), limits)

    def test_closing_one_session_leaves_another_alone(
        self, open_session: Callable[[], Session], limits: Capabilities
    ) -> None:
        if limits.models_per_device == 1:
            pytest.skip("one model per device")
        first, second = open_session(), open_session()
        before = copies(self._run(second, self.sample_inputs(1)))
        first.close()
        self._assert_same(self._run(second, self.sample_inputs(1)), before, limits)

    def test_threads_and_files_are_given_back(self, open_session: Callable[[], Session]) -> None:
        def once() -> None:
            session = open_session()
            self._run(session, self.sample_inputs(1))
            session.close()

        once()  # what a library keeps for good is there from now on
        before = _held()
        for _ in range(3):
            once()
        assert _settled(before), f"held before and after three sessions: {before}, {_held()}"

    def _run_until_refused(self, session: Session, ran: threading.Event) -> tuple[int, ScoringError]:
        """When the last run ended, on the monotonic clock, and why there was no further one."""
        inputs: Mapping[str, Tensor] = self.sample_inputs(1)
        ended = time.monotonic_ns()
        while True:
            try:
                self._run(session, inputs)
            except ScoringError as refusal:
                return ended, refusal
            ended = time.monotonic_ns()
            ran.set()


def _held() -> dict[str, int]:
    """Threads, the ones of libraries too, and open files of this process."""
    return {"threads": len(os.listdir("/proc/self/task")), "files": len(os.listdir("/proc/self/fd"))}


def _settled(before: Mapping[str, int]) -> bool:
    """Whether no more is held than before, within a moment."""
    gc.collect()
    until, pause = time.monotonic() + _SETTLING_S, threading.Event()
    while any(now > before[what] for what, now in _held().items()):
        if time.monotonic() > until:
            return False
        pause.wait(0.01)
    return True
