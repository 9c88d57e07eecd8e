"""When a dead worker is replaced, and when a script is not relied on any more."""

from accelserve.entry_script.restarts import Restarts

SECOND = 10**9


def died_in_a_row(times: int) -> tuple[Restarts, list[float]]:
    """Each as soon as it was ready; and how long each next one was waited for, in seconds."""
    restarts, now_ns, delays = Restarts(), 0, []
    for _ in range(times):
        restarts.ready(now_ns)
        restarts.died("it ended with exit code 1", now_ns)
        delays.append((restarts.next_ns - now_ns) / SECOND)
        now_ns = restarts.next_ns
        restarts.begun()
    return restarts, delays


def test_the_first_is_replaced_at_once_and_the_others_later_and_later():
    assert died_in_a_row(9)[1] == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_worker_that_lived_long_is_replaced_at_once():
    restarts, _ = died_in_a_row(5)
    restarts.ready(0)
    restarts.died("it was ended by SIGSEGV", 30 * SECOND)
    assert restarts.next_ns == 30 * SECOND
    assert restarts.count == 5


def test_a_script_that_dies_again_and_again_is_not_relied_on_until_a_worker_has_lived():
    restarts, _ = died_in_a_row(3)
    assert not restarts.has_hope
    restarts.ready(100 * SECOND)
    assert restarts.has_hope
    assert not restarts.is_steady(100 * SECOND)
    assert restarts.wake_at_ns(100 * SECOND) == 130 * SECOND
    assert restarts.is_steady(130 * SECOND)
    assert restarts.wake_at_ns(130 * SECOND) is None


def test_one_that_died_once_is_relied_on_when_its_successor_is_ready():
    restarts, _ = died_in_a_row(1)
    assert not restarts.is_steady(0)
    restarts.ready(1)
    assert restarts.is_steady(1)


def test_people_are_told_why_how_often_and_when_it_goes_on():
    restarts = Restarts()
    restarts.died("it ended with exit code 7", 0)
    restarts.died("it ended with exit code 7", 0)
    restarts.died("it ended with exit code 7", 0)
    assert restarts.told(0) == "it ended with exit code 7 (3 times in a row); the next one starts in 2 s"
    restarts.begun()
    assert restarts.told(0) == "it ended with exit code 7 (3 times in a row); the next one has been started"
