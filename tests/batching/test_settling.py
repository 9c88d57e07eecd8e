"""A batch's report is handed out."""

import logging

from accelserve.batching.batch_run import Report, Run
from accelserve.batching.request import Ride
from accelserve.batching.settling import observe, settle
from accelserve.errors import Kind, ScoringError

RUNS = (Run(2, 4, 10, 20), Run(1, 1, 30, 40))
BROKEN = ScoringError(Kind.INVALID, "no")
RIDE = Ride(None, "idle", 50)


class FakePart:
    """taken: what it was told, in order. fault: what telling it raises."""

    def __init__(self, fault=None):
        self.taken, self.failed, self.fault = [], [], fault

    def took(self, run, outcome, position, ride):
        if self.fault is not None:
            raise self.fault
        self.taken.append((run, outcome, position))

    def fail(self, error):
        self.failed.append(error)


def report_of(*outcomes):
    return Report(RUNS, tuple(zip(RUNS * len(outcomes), outcomes, strict=False)))


def test_those_that_failed_are_told_apart_from_those_that_did_not():
    parts = [FakePart(), FakePart()]
    report = report_of({"y": 1}, BROKEN)
    settle(parts, report, RIDE, "m:1", errors=True)
    assert [part.taken for part in parts] == [[], [(RUNS[1], BROKEN, 1)]]
    settle(parts, report, RIDE, "m:1", errors=False)
    assert parts[0].taken == [(RUNS[0], {"y": 1}, 0)]
    assert len(parts[1].taken) == 1


def test_a_part_that_cannot_take_its_answer_fails_alone(caplog):
    parts = [FakePart(KeyError("y")), FakePart()]
    settle(parts, report_of({"y": 1}, {"y": 2}), RIDE, "m:1", errors=False)
    (error,) = parts[0].failed
    assert (error.kind, error.message) == (Kind.INTERNAL, "m:1 lost an answer: unforeseen KeyError")
    assert parts[1].taken == [(RUNS[1], {"y": 2}, 1)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_observer_is_told_of_every_run_even_if_it_fails(caplog):
    told = []

    class Failing:
        def batch_done(self, *run):
            told.append(run)
            raise ValueError

    observe(Failing(), "cpu:0", RUNS, "m:1")
    assert told == [("cpu:0", 2, 4, 20), ("cpu:0", 1, 1, 40)]
    assert len(caplog.records) == 2
