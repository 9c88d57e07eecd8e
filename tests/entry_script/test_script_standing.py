"""Whether a script's workers can be relied on."""

from accelserve.entry_script.messages import WorkerReady
from accelserve.entry_script.standing import Standing

SECOND = 10**9
READY = WorkerReady("text", False, {})


def test_it_has_begun_when_each_place_had_a_worker_that_was_ready():
    standing = Standing(2)
    assert standing.why_not_ready(0) == "the entry script is being started"
    standing.ready(0, READY, 0)
    assert (standing.has_begun, standing.is_ready(0), standing.first) == (False, True, READY)
    standing.ready(1, READY, 0)
    assert standing.has_begun


def test_a_place_is_filled_again_once_and_when_it_is_time():
    standing = Standing(2)
    standing.ready(0, READY, 0)
    standing.died(0, "it ended with exit code 1", 5)
    assert (standing.to_start(4), standing.to_start(5), standing.to_start(6)) == ([], [0], [])
    standing.died(0, "it ended with exit code 1", 7)
    assert standing.wake_at_ns(7) == 7 + SECOND
    assert standing.restarts == 1


def test_it_is_down_while_no_place_has_hope():
    standing, now_ns = Standing(2), 0
    for number in (0, 1):
        for _ in range(3):
            assert not standing.is_down
            standing.ready(number, READY, now_ns)
            standing.died(number, "it ended with exit code 9", now_ns)
            now_ns += 4 * SECOND
            standing.to_start(now_ns)
    assert standing.is_down
    assert "exit code 9 (3 times in a row)" in standing.why_not_ready(now_ns)
    assert standing.retry_after_s(now_ns) == 1
    standing.ready(1, READY, now_ns)
    assert not standing.is_down
    assert (standing.is_ready(now_ns), standing.is_ready(now_ns + 30 * SECOND)) == (False, True)
