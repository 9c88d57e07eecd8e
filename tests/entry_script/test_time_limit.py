"""The soft time limit, with a clock of its own."""

import signal

import pytest

from accelserve.entry_script.time_limit import RunTimeout, TimeLimit


class Clock:
    def __init__(self):
        self.now_ns = 0
        self.armed = []

    def now(self):
        return self.now_ns

    def arm(self, after_ns):
        self.armed.append(after_ns)


@pytest.fixture
def clock():
    before = signal.getsignal(signal.SIGALRM)
    yield Clock()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def limit(clock):
    return TimeLimit(10, clock.now, clock.arm)


def test_a_run_that_takes_too_long_is_interrupted(clock, limit):
    limit.begin(clock.now_ns)
    clock.now_ns = 10
    with pytest.raises(RunTimeout):
        limit.on_alarm()


def test_an_interruption_that_got_lost_comes_again_until_the_run_ends(clock):
    limit = TimeLimit(10, clock.now, clock.arm)
    limit.begin(clock.now_ns)
    for at in (10, 250_000_010):
        clock.now_ns = at
        with pytest.raises(RunTimeout):
            limit.on_alarm()
    assert clock.armed == [10, 250_000_000, 250_000_000]
    limit.end()
    limit.on_alarm()


def test_an_alarm_between_runs_does_nothing(clock, limit):
    limit.begin(clock.now_ns)
    limit.end()
    clock.now_ns = 10
    limit.on_alarm()


def test_the_alarm_is_not_set_for_every_run(clock, limit):
    for _ in range(100):
        limit.begin(clock.now_ns)
        limit.end()
    assert clock.armed == [10]


def test_an_alarm_in_a_later_run_comes_again_for_what_is_left(clock, limit):
    limit.begin(clock.now_ns)
    limit.end()
    clock.now_ns = 4
    limit.begin(clock.now_ns)
    clock.now_ns = 10
    limit.on_alarm()
    assert clock.armed == [10, 4]
    clock.now_ns = 14
    with pytest.raises(RunTimeout):
        limit.on_alarm()


def test_the_next_run_after_an_idle_alarm_has_one_again(clock, limit):
    limit.begin(clock.now_ns)
    limit.end()
    limit.on_alarm()
    limit.begin(clock.now_ns)
    assert clock.armed == [10, 10]


def test_an_alarm_that_never_came_is_set_again(clock, limit):
    limit.begin(clock.now_ns)
    limit.end()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the script has an alarm of its own
    clock.now_ns = 11
    limit.begin(clock.now_ns)
    assert clock.armed == [10, 10]
    assert signal.getsignal(signal.SIGALRM) == limit.on_alarm


def test_a_scripts_except_does_not_swallow_it():
    assert not issubclass(RunTimeout, Exception)
