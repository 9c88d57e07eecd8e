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
