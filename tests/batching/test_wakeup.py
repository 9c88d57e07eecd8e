"""A timer that rings at the earliest moment that it was told."""

import pytest

from accelserve.batching.wakeup import WakeUp


class FakeTimer:
    def __init__(self, seconds, ring):
        self.seconds, self.ring, self.cancelled = seconds, ring, False

    def cancel(self):
        self.cancelled = True


class FakeLoop:
    def __init__(self):
        self.timers = []

    def call_later(self, seconds, ring):
        self.timers.append(FakeTimer(seconds, ring))
        return self.timers[-1]


class FakeClock:
    now = 1_000_000_000

    def now_ns(self):
        return self.now


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def rings():
    return []


@pytest.fixture
def wakeup(loop, rings):
    return WakeUp(loop, FakeClock(), lambda: rings.append("ring"))


def test_it_rings_when_it_is_time(wakeup, loop, rings):
    wakeup.set(3_000_000_000)
    (timer,) = loop.timers
    assert timer.seconds == 2
    timer.ring()
    assert rings == ["ring"]


def test_a_moment_that_is_over_is_now(wakeup, loop):
    wakeup.set(1)
    assert loop.timers[0].seconds == 0


def test_an_earlier_moment_takes_the_place_of_a_later_one_and_not_the_other_way(wakeup, loop):
    wakeup.set(5_000_000_000)
    wakeup.set(3_000_000_000)
    wakeup.set(4_000_000_000)
    assert [(timer.seconds, timer.cancelled) for timer in loop.timers] == [(4, True), (2, False)]


def test_it_can_be_set_again_when_it_has_rung_and_while_it_rings(loop):
    moments = [5_000_000_000]
    wakeup = WakeUp(loop, FakeClock(), lambda: wakeup.set(moments.pop()))
    wakeup.set(2_000_000_000)
    loop.timers[0].ring()
    assert [timer.seconds for timer in loop.timers] == [1, 4]


def test_one_that_was_cancelled_may_be_set_to_later(wakeup, loop):
    wakeup.set(2_000_000_000)
    wakeup.cancel()
    wakeup.cancel()
    wakeup.set(5_000_000_000)
    assert [(timer.seconds, timer.cancelled) for timer in loop.timers] == [(1, True), (4, False)]
