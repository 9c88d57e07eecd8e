import threading

import pytest

from accelserve.backends.run_gate import RunGate
from accelserve.errors import Kind, ScoringError


def test_runs_may_overlap():
    gate = RunGate("m:1")
    with gate, gate:
        pass
    assert gate.close()


def test_only_the_first_close_closes():
    gate = RunGate("m:1")
    assert gate.close()
    assert not gate.close()


def test_after_close_a_run_is_refused():
    gate = RunGate("m:1")
    gate.close()
    with pytest.raises(ScoringError, match="m:1") as refusal, gate:
        pass
    assert refusal.value.kind is Kind.DRAINING


def test_a_run_that_failed_does_not_hold_the_gate():
    gate = RunGate("m:1")
    with pytest.raises(ZeroDivisionError), gate:
        raise ZeroDivisionError
    assert gate.close()


def test_close_waits_for_every_run_and_none_begins_after_it():
    """Runs of four threads that begin and end all the time while it closes."""
    gate, closed, seen = RunGate("m:1"), threading.Event(), []
    started = threading.Semaphore(0)

    def run_until_refused():
        started.release()
        try:
            while True:
                with gate:
                    seen.append(closed.is_set())
        except ScoringError:
            pass

    threads = [threading.Thread(target=run_until_refused) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=10)
    assert gate.close()
    closed.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not any(seen)


def test_close_waits_for_the_run_under_way():
    gate, inside, leave = RunGate("m:1"), threading.Event(), threading.Event()

    def run():
        with gate:
            inside.set()
            leave.wait(10)

    runner, closer = threading.Thread(target=run), threading.Thread(target=gate.close)
    runner.start()
    assert inside.wait(10)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    leave.set()
    closer.join(10)
    runner.join(10)
    assert not closer.is_alive()
