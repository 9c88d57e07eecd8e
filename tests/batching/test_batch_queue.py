"""Which requests ride together, and when they leave."""

import gc
import random
import weakref

import pytest

from accelserve.batching.batch_queue import DEADLINE_MARGIN_NS, BatchQueue, Closed, Pending
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


def take(queue, now_ns):
    """The items of the next batch, [] for not yet."""
    taken = queue.take(now_ns)
    if taken is None:
        return []
    assert taken.rows == sum(item.rows for item in taken.items)
    return taken.items


# -- riding together -------------------------------------------------------------------------------------------


def test_an_empty_queue_has_nothing_to_give():
    queue = queue_of()
    assert (take(queue, 0), queue.expire(0), queue.wake_at_ns(), len(queue)) == ([], [], None, 0)


def test_a_lone_request_leaves_at_once():
    item = pending()
    assert take(queue_of(item), 0) == [item]


def test_requests_of_one_group_ride_together_in_order_of_arrival():
    items = [pending(arrived_ns=at) for at in range(5)]
    assert take(queue_of(*items), 9) == items


def test_a_batch_holds_no_more_rows_than_max_batch_size():
    first, second, third = pending(3), pending(3), pending(3)
    queue = queue_of(first, second, third, max_batch_size=8)
    assert take(queue, 0) == [first, second]
    assert take(queue, 0) == [third]


def test_nobody_overtakes_the_request_that_does_not_fit():
    first, large, small = pending(3), pending(3), pending(1)
    assert take(queue_of(first, large, small, max_batch_size=4), 0) == [first]


def test_other_groups_wait_for_their_turn():
    a, b, c = pending(group="a"), pending(group="b"), pending(group="a")
    queue = queue_of(a, b, c)
    assert take(queue, 0) == [a, c]
    assert take(queue, 0) == [b]


def test_a_model_without_batch_axis_runs_each_request_alone():
    items = [pending(alone=True) for _ in range(3)]
    queue = queue_of(*items)
    assert [take(queue, 0) for _ in range(4)] == [[items[0]], [items[1]], [items[2]], []]


def test_an_item_larger_than_a_batch_leaves_alone():
    large, small = pending(40), pending(1)
    queue = queue_of(large, small, max_batch_size=32)
    assert take(queue, 0) == [large]


# -- priority --------------------------------------------------------------------------------------------------


def test_high_priority_goes_first_and_takes_the_others_along():
    low = pending(priority=Priority.LOW)
    first, second = pending(), pending()
    high = pending(priority=Priority.HIGH)
    assert take(queue_of(low, first, second, high), 0) == [high, first, second, low]


def test_the_group_of_the_most_urgent_head_goes_first():
    normal, high = pending(group="a"), pending(group="b", priority=Priority.HIGH)
    queue = queue_of(normal, high)
    assert take(queue, 0) == [high]
    assert take(queue, 0) == [normal]


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
    take(queue, 0)
    assert (queue.rows, queue.nbytes, len(queue)) == (0, 0, 0)


# -- delay -----------------------------------------------------------------------------------------------------


def test_a_lone_request_leaves_when_its_delay_is_over():
    queue = queue_of(pending(arrived_ns=10_000), max_queue_delay_ns=2_000)
    assert queue.wake_at_ns() == 12_000
    assert take(queue, now_ns=11_999) == []
    assert len(take(queue, now_ns=12_000)) == 1


def test_a_full_batch_does_not_wait():
    queue = queue_of(pending(3), max_batch_size=4, max_queue_delay_ns=MS)
    assert take(queue, 0) == []
    queue.add(pending(1))
    assert len(take(queue, 0)) == 2


def test_a_batch_that_the_next_request_does_not_fit_into_is_full():
    first, second = pending(3), pending(3)
    queue = queue_of(first, second, max_batch_size=4, max_queue_delay_ns=MS)
    assert take(queue, 0) == [first]
    assert take(queue, 0) == []


def test_a_full_batch_is_not_held_back_by_a_waiting_head_of_another_group():
    lone, full = pending(group="a"), [pending(group="b") for _ in range(4)]
    queue = queue_of(lone, *full, max_batch_size=4, max_queue_delay_ns=MS)
    assert take(queue, 0) == full
    assert take(queue, 0) == []
    assert take(queue, MS) == [lone]


def test_a_request_that_may_not_be_joined_does_not_wait_for_company():
    item = pending(alone=True)
    assert take(queue_of(item, max_queue_delay_ns=MS), 0) == [item]


def test_a_waiting_head_leaves_before_its_deadline_is_endangered():
    deadline_ns = 2 * DEADLINE_MARGIN_NS
    queue = queue_of(pending(deadline_ns=deadline_ns), max_queue_delay_ns=100 * MS)
    assert queue.wake_at_ns() == deadline_ns - DEADLINE_MARGIN_NS
    assert take(queue, deadline_ns - DEADLINE_MARGIN_NS - 1) == []
    assert len(take(queue, deadline_ns - DEADLINE_MARGIN_NS)) == 1


def test_the_oldest_request_decides_when_an_urgent_newcomer_leaves_with_it():
    old, urgent = pending(arrived_ns=0), pending(arrived_ns=900, priority=Priority.HIGH)
    queue = queue_of(old, urgent, max_queue_delay_ns=1_000)
    assert take(queue, 999) == []
    assert take(queue, 1_000) == [urgent, old]


def test_a_group_that_is_full_no_more_waits_again():
    first, second = pending(2), pending(2)
    queue = queue_of(first, second, max_batch_size=4, max_queue_delay_ns=MS)
    queue.remove(second)
    assert take(queue, 0) == []
    queue.add(pending(2))
    assert len(take(queue, 0)) == 2


# -- deadlines -------------------------------------------------------------------------------------------------


def test_an_expired_request_is_never_taken():
    late, fresh = pending(deadline_ns=10), pending(deadline_ns=11)
    queue = queue_of(late, fresh)
    assert take(queue, 10) == [fresh]
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
    assert take(queue, 10) == []
    assert queue.expires_at_ns() == 10
    assert queue.remove(late)
    assert (queue.expire(10), queue.rows, queue.wake_at_ns()) == ([], 0, None)


# -- removal and memory ----------------------------------------------------------------------------------------


def test_a_removed_request_does_not_ride():
    items = [pending(nbytes=8) for _ in range(3)]
    queue = queue_of(*items)
    assert queue.remove(items[1])
    assert (queue.rows, queue.nbytes) == (2, 16)
    assert take(queue, 0) == [items[0], items[2]]


def test_a_request_is_removed_once():
    item = pending()
    queue = queue_of(item)
    assert [queue.remove(item), queue.remove(item), queue.remove(pending())] == [True, False, False]


def test_clearing_returns_everything():
    late, item = pending(deadline_ns=1), pending()
    queue = queue_of(late, item, max_queue_delay_ns=MS)
    take(queue, 1)
    assert queue.clear() == [late, item]
    assert (len(queue), queue.rows, queue.nbytes) == (0, 0, 0)


class Payload:
    pass


WAYS_OUT = {
    "take": lambda queue, item: take(queue, 5),
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
    """Entries in all heaps and tables, withdrawn ones included."""
    heaps = [queue._turns, queue._waiting, queue._deadlines]
    return sum(heap.held for heap in heaps) + len(queue._groups) + len(queue)


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


# -- why it left, and what is ahead ----------------------------------------------------------------------------


def closed(queue, now_ns=0):
    return queue.take(now_ns).closed


def test_a_batch_with_all_the_rows_it_may_have_is_full():
    assert closed(queue_of(pending(2), pending(2), max_batch_size=4)) is Closed.FULL
    assert closed(queue_of(pending(9), max_batch_size=4)) is Closed.FULL


def test_a_batch_is_full_when_the_next_in_line_does_not_fit():
    queue = queue_of(pending(3), pending(2), max_batch_size=4)
    assert (closed(queue), closed(queue)) == (Closed.FULL, Closed.IDLE)


def test_without_a_delay_a_batch_leaves_because_a_session_is_idle():
    assert closed(queue_of(pending(), pending(deadline_ns=1), max_batch_size=4)) is Closed.IDLE


def test_a_batch_tells_that_a_delay_was_over():
    queue = queue_of(pending(), pending(arrived_ns=900, deadline_ns=10 * MS), max_queue_delay_ns=1_000)
    assert closed(queue, 1_000) is Closed.DELAY


def test_a_batch_tells_that_a_deadline_was_near():
    queue = queue_of(pending(), pending(deadline_ns=3 * MS), max_queue_delay_ns=2 * MS)
    assert closed(queue, MS) is Closed.DEADLINE


def test_a_request_without_batch_axis_tells_that_it_is_alone():
    assert closed(queue_of(pending(alone=True), pending(alone=True), max_queue_delay_ns=MS)) is Closed.ALONE


def test_the_reasons_are_words_for_outsiders():
    assert [str(reason) for reason in Closed] == ["full", "idle", "delay", "deadline", "alone"]


def test_rows_ahead_are_those_of_the_same_or_a_more_urgent_priority():
    queue = queue_of(pending(1, priority=Priority.HIGH), pending(2), pending(4, group="b", priority=Priority.LOW))
    assert [queue.rows_ahead(priority) for priority in Priority] == [1, 3, 7]
    queue.take(0)
    assert [queue.rows_ahead(priority) for priority in Priority] == [0, 0, 4]


def test_a_subclass_of_pending_rides_itself():
    class Ticket(Pending):
        __slots__ = ("answer",)

    ticket = Ticket("a", 1, 0, 0)
    assert take(queue_of(ticket), 0) == [ticket]


# -- limits that change ----------------------------------------------------------------------------------------


def test_fewer_rows_in_a_batch_let_those_leave_who_now_fill_one():
    waiting, other = [pending(), pending()], pending(group="b")
    queue = queue_of(other, *waiting, max_queue_delay_ns=MS)
    assert take(queue, 0) == []
    queue.most_rows = 2
    assert take(queue, 0) == waiting
    assert take(queue, 0) == []


def test_more_rows_in_a_batch_let_a_full_group_wait_again():
    queue = queue_of(pending(), pending(), pending(group="b"), max_batch_size=2, max_queue_delay_ns=MS)
    queue.most_rows = 3
    assert take(queue, 0) == []
    assert len(take(queue, MS)) == 2


def test_a_new_delay_holds_for_those_who_come_later():
    old = pending()
    queue = queue_of(old, max_queue_delay_ns=MS)
    queue.delay_ns = 0
    assert (take(queue, 0), queue.wake_at_ns()) == ([], MS)
    new = pending()
    queue.add(new)
    taken = queue.take(0)
    assert (taken.items, taken.closed) == ([old, new], Closed.IDLE)


# -- knowing how long a run takes ------------------------------------------------------------------------------

TEN_MS_A_ROW = [MS * 10 * rows for rows in range(9)]


def knowing_queue_of(*items, **policy):
    queue = queue_of(max_batch_size=8, **policy)
    queue.run_ns = TEN_MS_A_ROW
    for item in items:
        queue.add(item)
    return queue


def test_a_batch_grows_no_longer_than_its_first_deadline_allows():
    first, second, third = pending(), pending(deadline_ns=20 * MS), pending()
    queue = knowing_queue_of(first, second, third)
    assert queue.take(0) == ([first, second], 2, Closed.DEADLINE)
    assert queue.take(0) == ([third], 1, Closed.IDLE)


def test_who_would_be_late_with_those_before_it_is_the_next_head():
    first, second = pending(), pending(deadline_ns=19 * MS)
    queue = knowing_queue_of(first, second)
    assert queue.take(0) == ([first], 1, Closed.DEADLINE)
    assert queue.take(0) == ([second], 1, Closed.IDLE)


def test_a_head_leaves_even_if_it_will_be_late():
    head = pending(4, deadline_ns=MS)
    assert take(knowing_queue_of(head), 0) == [head]


def test_a_full_batch_is_full_though_there_are_deadlines():
    items = [pending(3, deadline_ns=1000 * MS) for _ in range(3)]
    queue = knowing_queue_of(*items)
    assert queue.take(0) == (items[:2], 6, Closed.FULL)


def test_the_run_itself_is_kept_free_before_a_deadline():
    queue = knowing_queue_of(pending(2, deadline_ns=50 * MS), max_queue_delay_ns=100 * MS)
    assert queue.wake_at_ns() == 30 * MS - DEADLINE_MARGIN_NS
    assert closed(queue, 30 * MS) is Closed.DEADLINE


def test_who_cannot_be_answered_in_time_any_more_is_handed_out():
    late, hopeless, tight = pending(deadline_ns=5 * MS), pending(deadline_ns=15 * MS - 1), pending(deadline_ns=15 * MS)
    queue = knowing_queue_of(tight, hopeless, late, pending())
    assert queue.hopeless(5 * MS) == [hopeless]
    assert queue.expire(5 * MS) == [late]
    assert (queue.rows, len(queue)) == (2, 2)


def test_with_many_waiting_who_fits_into_no_worthwhile_batch_is_hopeless():
    tight, wide = pending(deadline_ns=20 * MS), pending(deadline_ns=100 * MS)
    queue = knowing_queue_of(tight, wide, pending())
    assert queue.hopeless(5 * MS) == []
    queue.worthwhile = 2
    assert queue.hopeless(5 * MS) == [tight]
    assert queue.hopeless(5 * MS) == []


def test_nobody_is_hopeless_while_the_time_of_a_run_is_not_known():
    assert queue_of(pending(deadline_ns=1)).hopeless(0) == []


# -- against the obvious implementation ------------------------------------------------------------------------


class SlowQueue:
    """The rules in a list. due: of each item, from when on it need not wait for company."""

    def __init__(self, policy):
        self.policy = policy
        self.most_rows = policy.max_batch_size
        self.delay_ns = policy.max_queue_delay_ns
        self.run_ns = ()
        self.items = []
        self.due = {}

    def rows(self, items):
        return sum(i.rows for i in items)

    def nbytes(self, items):
        return sum(i.nbytes for i in items)

    def add_all(self, items):
        """Whether they were admitted."""
        rows, nbytes = self.rows([*self.items, *items]), self.nbytes([*self.items, *items])
        if self.items and (rows > self.policy.max_queue_rows or nbytes > self.policy.max_queue_bytes):
            return False
        self.items += items
        self.due.update({i: self.due_of(i) for i in items})
        return True

    def due_of(self, item):
        """(when, why)"""
        if item.alone:
            return item.arrived_ns, Closed.ALONE
        if not self.delay_ns:
            return item.arrived_ns, Closed.IDLE
        moments = [(item.arrived_ns + self.delay_ns, Closed.DELAY)]
        if item.deadline_ns is not None:
            run_ns = self.run_ns[min(item.rows, 8)] if self.run_ns else 0
            moments.append((item.deadline_ns - run_ns - DEADLINE_MARGIN_NS, Closed.DEADLINE))
        return min(moments, key=lambda moment: moment[0])

    def live(self, now_ns):
        return [i for i in self.items if i.deadline_ns is None or i.deadline_ns > now_ns]

    def mates(self, item, live):
        return [i for i in live if i is item or (not item.alone and not i.alone and i.group == item.group)]

    def may_leave(self, item, live, now_ns):
        mates = self.mates(item, live)
        return self.rows(mates) >= self.most_rows or any(self.due[i][0] <= now_ns for i in mates)

    def take(self, now_ns):
        """(items, rows, closed)"""
        live = sorted(self.live(now_ns), key=lambda i: i.priority)  # stable: arrival within a priority
        head = next((i for i in live if self.may_leave(i, live, now_ns)), None)
        if head is None:
            return None
        batch, mates = [], self.mates(head, live)
        why = self.why_not_more(batch, mates, now_ns)
        while why is None:
            batch.append(mates.pop(0))
            why = self.why_not_more(batch, mates, now_ns)
        self.items = [i for i in self.items if i not in batch]
        return batch, self.rows(batch), Closed.ALONE if head.alone else why

    def why_not_more(self, batch, mates, now_ns):
        if not batch:
            return None
        if self.rows([*batch, *mates[:1]]) > self.most_rows or self.rows(batch) == self.most_rows:
            return Closed.FULL
        if not mates:
            return min((self.due[i] for i in batch), key=lambda due: due[0])[1]
        more = [*batch, mates[0]]
        deadlines = [i.deadline_ns for i in more if i.deadline_ns is not None]
        late = self.run_ns and deadlines and now_ns + self.run_ns[self.rows(more)] > min(deadlines)
        return Closed.DEADLINE if late else None

    def hopeless(self, now_ns):
        run_ns = self.run_ns[1] if self.run_ns else 0
        gone = [i for i in self.live(now_ns) if i.deadline_ns is not None and i.deadline_ns < now_ns + run_ns]
        self.items = [i for i in self.items if i not in gone]
        return sorted(gone, key=lambda i: i.deadline_ns)

    def expire(self, now_ns):
        live = self.live(now_ns)
        gone = [i for i in self.items if i not in live]
        self.items = live
        return sorted(gone, key=lambda i: i.deadline_ns)

    def rows_ahead(self, priority):
        return self.rows([i for i in self.items if i.priority <= priority])

    def gives(self, now_ns):
        live = self.live(now_ns)
        return len(live) < len(self.items) or any(self.may_leave(i, live, now_ns) for i in live)


class Mix:
    """What kind of requests come. Every answer of both queues is compared, and their state after each step."""

    def __init__(self, seed, delay_ns, groups):
        self.rng = random.Random(seed)
        policy = BatchPolicy(8, (), delay_ns, max_queue_rows=60, max_queue_bytes=900)
        self.groups, self.delay_ns = groups, delay_ns
        self.queue, self.slow = BatchQueue(policy), SlowQueue(policy)
        self.now_ns = 0

    def item(self):
        rng, now_ns = self.rng, self.now_ns
        return Pending(
            rng.choice(self.groups),
            rng.choice([1, 1, 1, 2, 3, 9]),
            rng.randrange(50),
            now_ns,
            now_ns + rng.choice([-1, 1, 5, 40, 400]) * MS // 4 if rng.random() < 0.4 else None,
            rng.choice(list(Priority)),
            rng.random() < 0.1,
        )

    def add(self):
        items = [self.item() for _ in range(self.rng.choice([1, 1, 1, 2, 3]))]
        try:
            self.queue.add_all(items)
            admitted = True
        except ScoringError:
            admitted = False
        assert admitted == self.slow.add_all(items)

    def take(self):
        assert self.queue.take(self.now_ns) == self.slow.take(self.now_ns)

    def expire(self):
        assert self.queue.expire(self.now_ns) == self.slow.expire(self.now_ns)

    def hopeless(self):
        assert self.queue.hopeless(self.now_ns) == self.slow.hopeless(self.now_ns)

    def remove(self):
        if self.slow.items:
            item = self.slow.items.pop(self.rng.randrange(len(self.slow.items)))
            assert self.queue.remove(item)
            assert not self.queue.remove(item)

    def wake(self):
        """Nothing comes before that moment, and something at it."""
        wake_ns, slow = self.queue.wake_at_ns(), self.slow
        if wake_ns is None:
            assert not slow.items
        elif wake_ns <= self.now_ns:
            assert slow.gives(self.now_ns)
        else:
            assert not slow.gives(wake_ns - 1)
            assert slow.gives(wake_ns)

    def change_limits(self):
        most_rows, delay_ns = self.rng.randint(1, 8), self.rng.choice([0, self.delay_ns, self.delay_ns // 2])
        run_ns = self.rng.choice([(), tuple(rows * MS // 4 for rows in range(9))])
        for queue in (self.queue, self.slow):
            queue.most_rows, queue.delay_ns, queue.run_ns = most_rows, delay_ns, run_ns

    def clear(self):
        cleared = self.queue.clear()
        assert len(cleared) == len(self.slow.items)
        assert set(cleared) == set(self.slow.items)
        self.slow.items = []

    def check(self):
        queue, slow = self.queue, self.slow
        assert (len(queue), bool(queue)) == (len(slow.items), bool(slow.items))
        assert (queue.rows, queue.nbytes) == (slow.rows(slow.items), slow.nbytes(slow.items))
        assert [queue.rows_ahead(p) for p in Priority] == [slow.rows_ahead(p) for p in Priority]


STEPS = {"add": 60, "take": 20, "expire": 10, "hopeless": 5, "remove": 10, "wake": 10, "change_limits": 2, "clear": 0.2}


@pytest.mark.parametrize("delay_ns", [0, MS, 20 * MS])
@pytest.mark.parametrize("groups", ["a", "ab", "abcdefghij"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thousands_of_random_steps_agree_with_the_obvious_implementation(seed, groups, delay_ns):
    mix = Mix(seed, delay_ns, groups)
    for _ in range(2_000):
        mix.now_ns += mix.rng.choice([0, 0, 1, MS // 4, MS])
        getattr(mix, mix.rng.choices(list(STEPS), STEPS.values())[0])()
        mix.check()
