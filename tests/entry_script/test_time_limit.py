"""The soft time limit, with a clock of its own."""

import signal

import pytest

from accelserve.entry_script.time_limit import RunTimeout, TimeLimit


class Clock:
    def __init__(self):
        self.now_s = 0.0
        self.armed = []

    def now(self):
        return self.now_s

    def arm(self, after_s):
        self.armed.append(after_s)


@pytest.fixture
def clock():
    before = signal.getsignal(signal.SIGALRM)
    yield Clock()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def limit(clock):
    return TimeLimit(10.0, clock.now, clock.arm)


def test_a_run_that_takes_too_long_is_interrupted(clock, limit):
    limit.begin()
    clock.now_s = 10.0
    with pytest.raises(RunTimeout):
        limit.on_alarm()


def test_an_alarm_between_runs_does_nothing(clock, limit):
    limit.begin()
    limit.end()
    clock.now_s = 10.0
    limit.on_alarm()


def test_the_alarm_is_not_set_for_every_run(clock, limit):
    for _ in range(100):
        limit.begin()
        limit.end()
    assert clock.armed == [10.0]


def test_an_alarm_in_a_later_run_comes_again_for_what_is_left(clock, limit):
    limit.begin()
    limit.end()
    clock.now_s = 4.0
    limit.begin()
    clock.now_s = 10.0
    limit.on_alarm()
    assert clock.armed == [10.0, 4.0]
    clock.now_s = 14.0
    with pytest.raises(RunTimeout):
        limit.on_alarm()


def test_the_next_run_after_an_idle_alarm_has_one_again(clock, limit):
    limit.begin()
    limit.end()
    limit.on_alarm()
    limit.begin()
    assert clock.armed == [10.0, 10.0]


def test_a_script_that_took_the_alarm_loses_it_at_the_next_run(clock, limit):
    limit.begin()
    limit.end()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    limit.begin()
    assert signal.getsignal(signal.SIGALRM) == limit.on_alarm
    assert clock.armed == [10.0, 10.0]


def test_an_alarm_that_never_came_is_set_again(clock, limit):
    limit.begin()
    limit.end()
    clock.now_s = 11.0  # the script has switched it off
    limit.begin()
    assert clock.armed == [10.0, 10.0]


def test_a_scripts_except_does_not_swallow_it():
    assert not issubclass(RunTimeout, Exception)
