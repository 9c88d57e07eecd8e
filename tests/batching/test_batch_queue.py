"""Which requests ride together, and when they leave."""

import gc
import random
import weakref

import pytest

from accelserve.batching.batch_queue import DEADLINE_MARGIN_NS, BatchQueue, Pending
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority

MS = 1_000_000


def pending(rows=1, *, group="a", arrived_ns=0, nbytes=0, **rest):
    return Pending(group, rows, nbytes, arrived_ns, **rest)


def queue_of(*items, **policy):
    queue = BatchQueue(BatchPolicy(**policy))
    for item in items:
        queue.add(item)
    return queue


# -- riding together -------------------------------------------------------------------------------------------


def test_an_empty_queue_has_nothing_to_give():
    queue = queue_of()
    assert (queue.take(0), queue.expire(0), queue.wake_at_ns(), len(queue)) == ([], [], None, 0)


def test_a_lone_request_leaves_at_once():
    item = pending()
    assert queue_of(item).take(0) == [item]


def test_requests_of_one_group_ride_together_in_order_of_arrival():
    items = [pending(arrived_ns=at) for at in range(5)]
    assert queue_of(*items).take(9) == items


def test_a_batch_holds_no_more_rows_than_max_batch_size():
    first, second, third = pending(3), pending(3), pending(3)
    queue = queue_of(first, second, third, max_batch_size=8)
    assert queue.take(0) == [first, second]
    assert queue.take(0) == [third]


def test_nobody_overtakes_the_request_that_does_not_fit():
    first, large, small = pending(3), pending(3), pending(1)
    assert queue_of(first, large, small, max_batch_size=4).take(0) == [first]


def test_other_groups_wait_for_their_turn():
    a, b, c = pending(group="a"), pending(group="b"), pending(group="a")
    queue = queue_of(a, b, c)
    assert queue.take(0) == [a, c]
    assert queue.take(0) == [b]


def test_a_model_without_batch_axis_runs_each_request_alone():
    items = [pending(alone=True) for _ in range(3)]
    queue = queue_of(*items)
    assert [queue.take(0) for _ in range(4)] == [[items[0]], [items[1]], [items[2]], []]


def test_an_item_larger_than_a_batch_leaves_alone():
    large, small = pending(40), pending(1)
    queue = queue_of(large, small, max_batch_size=32)
    assert queue.take(0) == [large]


# -- priority --------------------------------------------------------------------------------------------------


def test_high_priority_goes_first_and_takes_the_others_along():
    low = pending(priority=Priority.LOW)
    first, second = pending(), pending()
    high = pending(priority=Priority.HIGH)
    assert queue_of(low, first, second, high).take(0) == [high, first, second, low]


def test_the_group_of_the_most_urgent_head_goes_first():
    normal, high = pending(group="a"), pending(group="b", priority=Priority.HIGH)
    queue = queue_of(normal, high)
    assert queue.take(0) == [high]
    assert queue.take(0) == [normal]


# -- limits ----------------------------------------------------------------------------------------------------


def test_rows_over_the_limit_are_refused_with_reason_and_retry_after():
    queue = queue_of(pending(3, nbytes=10), max_queue_rows=4)
    with pytest.raises(ScoringError) as caught:
        queue.add(pending(2, nbytes=7))
    error = caught.value
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "queue_full", 1)
    assert "3 of 4 rows" in error.message
    assert "10 of 536870912 bytes" in error.message
    assert (queue.rows, queue.nbytes, len(queue)) == (3, 10, 1)
    queue.add(pending(1))


def test_bytes_over_the_limit_are_refused():
    queue = queue_of(pending(nbytes=90), max_queue_bytes=100)
    with pytest.raises(ScoringError, match="90 of 100 bytes"):
        queue.add(pending(nbytes=11))


def test_an_empty_queue_takes_even_what_is_over_its_limits():
    queue = queue_of(pending(10, nbytes=1000), max_queue_rows=4, max_queue_bytes=100)
    assert (queue.rows, queue.nbytes) == (10, 1000)


def test_the_parts_of_one_request_are_added_together_or_not_at_all():
    queue = queue_of(pending(1), max_queue_rows=4)
    with pytest.raises(ScoringError, match="this request has 4 rows"):
        queue.add_all([pending(2), pending(2)])
    assert (queue.rows, len(queue)) == (1, 1)


def test_rows_and_bytes_return_when_a_batch_leaves():
    queue = queue_of(pending(3, nbytes=30), pending(2, nbytes=20))
    queue.take(0)
    assert (queue.rows, queue.nbytes, len(queue)) == (0, 0, 0)


# -- delay -----------------------------------------------------------------------------------------------------


def test_a_lone_request_leaves_when_its_delay_is_over():
    queue = queue_of(pending(arrived_ns=10_000), max_queue_delay_ns=2_000)
    assert queue.wake_at_ns() == 12_000
    assert queue.take(now_ns=11_999) == []
    assert len(queue.take(now_ns=12_000)) == 1


def test_a_full_batch_does_not_wait():
    queue = queue_of(pending(3), max_batch_size=4, max_queue_delay_ns=MS)
    assert queue.take(0) == []
    queue.add(pending(1))
    assert len(queue.take(0)) == 2


def test_a_batch_that_the_next_request_does_not_fit_into_is_full():
    first, second = pending(3), pending(3)
    queue = queue_of(first, second, max_batch_size=4, max_queue_delay_ns=MS)
    assert queue.take(0) == [first]
    assert queue.take(0) == []


def test_a_full_batch_is_not_held_back_by_a_waiting_head_of_another_group():
    lone, full = pending(group="a"), [pending(group="b") for _ in range(4)]
    queue = queue_of(lone, *full, max_batch_size=4, max_queue_delay_ns=MS)
    assert queue.take(0) == full
    assert queue.take(0) == []
    assert queue.take(MS) == [lone]


def test_a_request_that_may_not_be_joined_does_not_wait_for_company():
    item = pending(alone=True)
    assert queue_of(item, max_queue_delay_ns=MS).take(0) == [item]


def test_a_waiting_head_leaves_before_its_deadline_is_endangered():
    deadline_ns = 2 * DEADLINE_MARGIN_NS
    queue = queue_of(pending(deadline_ns=deadline_ns), max_queue_delay_ns=100 * MS)
    assert queue.wake_at_ns() == deadline_ns - DEADLINE_MARGIN_NS
    assert queue.take(deadline_ns - DEADLINE_MARGIN_NS - 1) == []
    assert len(queue.take(deadline_ns - DEADLINE_MARGIN_NS)) == 1


def test_the_oldest_request_decides_when_an_urgent_newcomer_leaves_with_it():
    old, urgent = pending(arrived_ns=0), pending(arrived_ns=900, priority=Priority.HIGH)
    queue = queue_of(old, urgent, max_queue_delay_ns=1_000)
    assert queue.take(999) == []
    assert queue.take(1_000) == [urgent, old]


def test_a_group_that_is_full_no_more_waits_again():
    first, second = pending(2), pending(2)
    queue = queue_of(first, second, max_batch_size=4, max_queue_delay_ns=MS)
    queue.remove(second)
    assert queue.take(0) == []
    queue.add(pending(2))
    assert len(queue.take(0)) == 2


# -- deadlines -------------------------------------------------------------------------------------------------


def test_an_expired_request_is_never_taken():
    late, fresh = pending(deadline_ns=10), pending(deadline_ns=11)
    queue = queue_of(late, fresh)
    assert queue.take(10) == [fresh]
    assert queue.expire(10) == [late]
    assert len(queue) == 0


def test_expired_requests_come_out_once_earliest_first():
    items = [pending(deadline_ns=at, nbytes=1) for at in (30, 10, 20)]
    queue = queue_of(*items)
    assert queue.wake_at_ns() == 0  # something can be taken
    assert queue.expires_at_ns() == 10
    assert queue.expire(9) == []
    assert queue.expire(20) == [items[1], items[2]]
    assert queue.expire(20) == []
    assert (queue.rows, queue.nbytes) == (1, 1)


def test_an_expired_request_that_has_not_been_collected_can_still_be_removed():
    late = pending(deadline_ns=10)
    queue = queue_of(late)
    assert queue.take(10) == []
    assert queue.expires_at_ns() == 10
    assert queue.remove(late)
    assert (queue.expire(10), queue.rows, queue.wake_at_ns()) == ([], 0, None)


# -- removal and memory ----------------------------------------------------------------------------------------


def test_a_removed_request_does_not_ride():
    items = [pending(nbytes=8) for _ in range(3)]
    queue = queue_of(*items)
    assert queue.remove(items[1])
    assert (queue.rows, queue.nbytes) == (2, 16)
    assert queue.take(0) == [items[0], items[2]]


def test_a_request_is_removed_once():
    item = pending()
    queue = queue_of(item)
    assert [queue.remove(item), queue.remove(item), queue.remove(pending())] == [True, False, False]


def test_clearing_returns_everything():
    late, item = pending(deadline_ns=1), pending()
    queue = queue_of(late, item, max_queue_delay_ns=MS)
    queue.take(1)
    assert queue.clear() == [late, item]
    assert (len(queue), queue.rows, queue.nbytes) == (0, 0, 0)


class Payload:
    pass


WAYS_OUT = {
    "take": lambda queue, item: queue.take(5),
    "remove": lambda queue, item: [item] if queue.remove(item) else [],
    "expire": lambda queue, item: queue.expire(10),
    "clear": lambda queue, item: queue.clear(),
}


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_payload_and_group_are_free_without_the_garbage_collector(alone, way_out):
    item = pending(group=Payload(), alone=alone, deadline_ns=10, payload=Payload())
    watches = [weakref.ref(item.payload), weakref.ref(item.group)]
    queue = queue_of(item)
    gc.disable()
    try:
        assert WAYS_OUT[way_out](queue, item) == [item]
        del item
        queue.wake_at_ns()  # the dead surface
        assert [watch() for watch in watches] == [None, None]
    finally:
        gc.enable()


def held(queue):
    """Entries in all heaps and tables, dead ones included."""
    heaps = [queue._heads, queue._waiting, queue._deadlines, *(group.entries for group in queue._groups.values())]
    return sum(map(len, heaps)) + len(queue._groups) + len(queue._entries)


@pytest.mark.parametrize("delay_ns", [0, MS])
def test_memory_does_not_grow_with_cancelled_requests(delay_ns):
    queue = queue_of(*(pending() for _ in range(5)), max_queue_delay_ns=delay_ns)
    for number in range(5_000):
        item = pending(group=(number % 3 and "a") or number, deadline_ns=10**12, priority=Priority(number % 3))
        queue.add(item)
        queue.remove(item)
    assert held(queue) < 300


def test_memory_does_not_grow_with_expired_requests():
    queue = queue_of(pending(group="stays"), max_queue_delay_ns=10**12)
    for number in range(5_000):
        now_ns = number * MS
        queue.add(pending(group=number % 7, arrived_ns=now_ns, deadline_ns=now_ns + 10 * MS))
        queue.expire(now_ns)
    queue.expire(10**10)
    assert len(queue) == 1
    assert held(queue) < 300


# -- against the obvious implementation ------------------------------------------------------------------------


class SlowQueue:
    """The rules in a list."""

    def __init__(self, policy):
        self.policy = policy
        self.items = []

    def admits(self, item):
        rows, nbytes = sum(i.rows for i in self.items), sum(i.nbytes for i in self.items)
        fits = rows + item.rows <= self.policy.max_queue_rows and nbytes + item.nbytes <= self.policy.max_queue_bytes
        return fits or not self.items

    def live(self, now_ns):
        return [i for i in self.items if i.deadline_ns is None or i.deadline_ns > now_ns]

    def due_ns(self, item):
        if item.alone or not self.policy.max_queue_delay_ns:
            return item.arrived_ns
        due_ns = item.arrived_ns + self.policy.max_queue_delay_ns
        return due_ns if item.deadline_ns is None else min(due_ns, item.deadline_ns - DEADLINE_MARGIN_NS)

    def mates(self, item, live):
        return [i for i in live if i is item or (not item.alone and not i.alone and i.group == item.group)]

    def may_leave(self, item, live, now_ns):
        mates = self.mates(item, live)
        full = sum(i.rows for i in mates) >= self.policy.max_batch_size
        return full or any(self.due_ns(i) <= now_ns for i in mates)

    def take(self, now_ns):
        live = sorted(self.live(now_ns), key=lambda i: i.priority)  # stable: arrival within a priority
        head = next((i for i in live if self.may_leave(i, live, now_ns)), None)
        batch = []
        for item in self.mates(head, live) if head else []:
            if batch and sum(i.rows for i in batch) + item.rows > self.policy.max_batch_size:
                break
            batch.append(item)
        self.items = [i for i in self.items if i not in batch]
        return batch

    def expire(self, now_ns):
        live = self.live(now_ns)
        gone = [i for i in self.items if i not in live]
        self.items = live
        return gone

    def gives(self, now_ns):
        live = self.live(now_ns)
        return len(live) < len(self.items) or any(self.may_leave(i, live, now_ns) for i in live)


def random_item(rng, now_ns):
    deadline_ns = now_ns + rng.choice([-1, 1, 5, 40, 400]) * MS // 4 if rng.random() < 0.4 else None
    return Pending(
        rng.choice("abcd"),
        rng.choice([1, 1, 1, 2, 3, 9]),
        rng.randrange(50),
        now_ns,
        deadline_ns,
        rng.choice(list(Priority)),
        rng.random() < 0.1,
    )


@pytest.mark.parametrize("delay_ns", [0, MS, 20 * MS])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thousands_of_random_steps_agree_with_the_obvious_implementation(seed, delay_ns):
    rng = random.Random(seed)
    policy = BatchPolicy(8, (), delay_ns, max_queue_rows=60, max_queue_bytes=900)
    queue, slow, now_ns = BatchQueue(policy), SlowQueue(policy), 0
    for _ in range(2_500):
        now_ns += rng.choice([0, 0, 1, MS // 4, MS])
        step = rng.choices(["add", "take", "expire", "remove", "wake"], [6, 2, 1, 1, 1])[0]
        if step == "add":
            item = random_item(rng, now_ns)
            try:
                queue.add(item)
                admitted = True
            except ScoringError:
                admitted = False
            assert admitted == slow.admits(item)
            slow.items += [item] * admitted
        elif step == "take":
            assert queue.take(now_ns) == slow.take(now_ns)
        elif step == "expire":
            assert set(queue.expire(now_ns)) == set(slow.expire(now_ns))
        elif step == "remove" and slow.items:
            item = slow.items.pop(rng.randrange(len(slow.items)))
            assert queue.remove(item)
        elif step == "wake":
            check_wake(queue.wake_at_ns(), slow, now_ns)
        assert len(queue) == len(slow.items)
        assert (queue.rows, queue.nbytes) == (sum(i.rows for i in slow.items), sum(i.nbytes for i in slow.items))


def check_wake(wake_ns, slow, now_ns):
    """Nothing comes before that moment, and something at it."""
    if wake_ns is None:
        assert not slow.items
    elif wake_ns <= now_ns:
        assert slow.gives(now_ns)
    else:
        assert not slow.gives(wake_ns - 1)
        assert slow.gives(wake_ns)
