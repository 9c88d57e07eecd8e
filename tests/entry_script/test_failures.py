"""Failures of run() in the log: bounded, with what they are and whose."""

from accelserve.entry_script.failures import MOST_A_SECOND, Failures

REPORT = 'Traceback (most recent call last):\n  File "score.py", line 1, in run\nValueError: no\n'


def test_a_failure_is_told_with_its_last_line_first_and_its_traceback(caplog):
    Failures(lambda: 0).log(REPORT, "id", 7)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "run() failed: ValueError: no")
    assert (record.request_id, record.pid) == ("id", 7)
    assert REPORT.rstrip() in caplog.text


def test_a_flood_is_counted(caplog):
    now = 10**12
    failures = Failures(lambda: now)
    for _ in range(MOST_A_SECOND + 5):
        failures.log(REPORT, "id", 7)
    assert len(caplog.records) == MOST_A_SECOND
    now += 10**9
    failures.log(REPORT, "id", 7)
    last = [record.getMessage() for record in caplog.records[-2:]]
    assert last == ["run() failed 5 times more: no more than 100 in a second are told", "run() failed: ValueError: no"]


def test_a_failure_without_a_traceback_is_one_line(caplog):
    Failures(lambda: 0).log("run() returned set", "id", 7)
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        ("run() failed: run() returned set", None)
    ]
