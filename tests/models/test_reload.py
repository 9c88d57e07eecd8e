"""When a version that failed is tried again."""

import pytest

from accelserve.errors import Kind
from accelserve.models.reload import Reload, ReloadPolicy

S = 1_000_000_000
LATEST, EARLIEST = 1.0, 0.0  # chances


def waits(reload, fail, count):
    """Seconds from each failure to the next try."""
    now_ns, found = 0, []
    for _ in range(count):
        fail(now_ns)
        found.append((reload.at_ns - now_ns) / S)
        now_ns = reload.at_ns
    return found


def test_the_waits_double_from_1_s_to_60_s():
    reload = Reload(ReloadPolicy())
    reload.lose(0, LATEST)
    assert reload.at_ns == 1 * S
    assert waits(reload, lambda now: reload.fail(Kind.PRECONDITION, now, LATEST), 8) == [2, 4, 8, 16, 32, 60, 60, 60]


def test_chance_spreads_a_wait_over_its_second_half():
    policy = ReloadPolicy()
    assert (policy.wait_ns(3, EARLIEST), policy.wait_ns(3, 0.5), policy.wait_ns(3, LATEST)) == (4 * S, 6 * S, 8 * S)
    assert policy.wait_ns(10_000, LATEST) == 60 * S


@pytest.mark.parametrize("kind", [Kind.DEVICE_MEMORY, Kind.DEVICE_LOST, Kind.CONFLICT])
def test_what_may_heal_is_tried_again(kind):
    reload = Reload(ReloadPolicy())
    reload.fail(kind, 0, LATEST)
    assert not reload.due(2 * S - 1)
    assert reload.due(2 * S)
    assert not reload.given_up


@pytest.mark.parametrize("kind", [Kind.PRECONDITION, Kind.NOT_FOUND, Kind.DEVICE_MISSING, Kind.INTERNAL])
def test_what_cannot_heal_by_itself_waits_for_other_files(kind):
    reload = Reload(ReloadPolicy())
    reload.fail(kind, 0, LATEST)
    assert not reload.due(10**6 * S)


def test_after_a_loss_every_kind_of_failure_is_tried_again():
    """A driver that is gone says so in many words."""
    reload = Reload(ReloadPolicy())
    reload.available(0)
    reload.lose(100 * S, LATEST)
    reload.fail(Kind.DEVICE_MISSING, 101 * S, LATEST)
    assert reload.due(103 * S)


def test_a_device_counts_as_gone_after_the_last_attempt_and_is_tried_on():
    reload = Reload(ReloadPolicy(attempts=2))
    reload.lose(0, LATEST)
    reload.fail(Kind.DEVICE_LOST, 1 * S, LATEST)
    assert not reload.given_up
    reload.fail(Kind.DEVICE_LOST, 3 * S, LATEST)
    assert reload.given_up
    assert reload.due(7 * S)


def test_without_attempts_a_lost_device_is_gone_at_once():
    reload = Reload(ReloadPolicy(attempts=0))
    reload.lose(0, LATEST)
    assert reload.given_up
    assert reload.at_ns is None


def test_a_reload_that_works_is_a_new_beginning_once_it_has_held():
    reload = Reload(ReloadPolicy())
    reload.lose(0, LATEST)
    reload.fail(Kind.DEVICE_LOST, 1 * S, LATEST)
    reload.available(3 * S)
    assert (reload.lost, reload.at_ns) == (False, None)
    reload.lose(63 * S, LATEST)
    assert reload.at_ns == 64 * S


def test_a_device_that_is_lost_again_at_once_has_not_healed():
    reload = Reload(ReloadPolicy(attempts=3))
    reload.available(0)
    now_ns, seen = 100 * S, []
    for _ in range(4):
        reload.lose(now_ns, LATEST)
        seen.append((reload.at_ns - now_ns) / S)
        reload.available(reload.at_ns)
        now_ns = reload.at_ns or now_ns + 1
        now_ns += S
    assert seen == [1, 2, 4, 8]
    reload.lose(now_ns, LATEST)
    assert reload.given_up
