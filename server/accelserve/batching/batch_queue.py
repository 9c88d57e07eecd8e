"""Which requests ride together: a pure state machine. Time comes in as an argument, batches go out."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Generic

from accelserve.batching.lazy_heap import LazyHeap
from accelserve.batching.pending import Closed, Group, Item, Pending, Taken, Waits
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.turns import Turns
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority

__all__ = ["DEADLINE_MARGIN_NS", "BatchQueue", "Closed", "Pending", "Taken", "Waits"]

# A request that waits for company leaves this long before its deadline at the latest: event loops keep time in
# milliseconds, and the run itself has to fit in as well.
DEADLINE_MARGIN_NS = 2_000_000

_ALONE = object()  # the group of all who are never joined
_IDLE, _NORMAL = Closed.IDLE, Priority.NORMAL  # looked up in their classes for each item they cost 0.05 us


class BatchQueue(Generic[Item]):
    """Decides which requests ride together, and when they leave.

    The head is the first by (priority, order of `add`) of the groups that may leave now; its batch is filled from
    its group in the same order, up to the first item that does not fit into `most_rows`. A group may leave when it
    fills a batch, or when one of its items need not wait for company: it has waited for `delay_ns`, has a deadline
    nearer than DEADLINE_MARGIN_NS, or is `alone`. With a delay of 0 nobody waits.

    What may be changed at any time: most_rows and delay_ns, the policy's at first; run_ns, how long a run of so many
    rows takes, for 0 up to `max_batch_size`, empty while that is not known. Knowing it, no batch but that of a lone
    head grows so long that somebody in it would miss its deadline; worthwhile, the least rows that a batch is cut to.
    Items are added in the order of their arrival and time never goes back. Expired items count as held until
    `expire` hands them out. Every operation costs amortised O(log n) or less for each item it touches; in the usual
    case, nobody waiting or with a deadline, none of the heaps is touched for an item.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._max_rows = policy.max_queue_rows
        self._max_bytes = policy.max_queue_bytes
        self._most_rows = policy.max_batch_size
        self.delay_ns = policy.max_queue_delay_ns
        self.run_ns: Sequence[int] = ()
        self.worthwhile = 1
        self._groups: dict[Hashable, Group[Item]] = {}
        self._last: Group[Item] | None = None  # that was added to, while it has items
        self._expired: dict[Item, None] = {}  # deadline passed, not handed out yet
        self._turns: Turns[Item] = Turns()  # of several groups
        self._waiting: LazyHeap[Item] = LazyHeap()  # who waits for company, by when that ends
        self._deadlines: LazyHeap[Item] = LazyHeap()
        self._rows = 0
        self._nbytes = 0
        self._high_rows = 0
        self._low_rows = 0
        self._timed = False  # since it was empty there has been somebody who waits or has a deadline
        self._added = 0  # numbers items

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def __len__(self) -> int:
        return len(self._expired) + sum([group.count() for group in self._groups.values()])

    def __bool__(self) -> bool:
        return bool(self._groups or self._expired)

    def rows_ahead(self, priority: Priority) -> int:
        """Rows here that go before a newcomer of this priority, whatever their group."""
        if priority is Priority.HIGH:
            return self._high_rows
        return self._rows if priority is Priority.LOW else self._rows - self._low_rows

    @property
    def most_rows(self) -> int:
        """What a batch is filled up to."""
        return self._most_rows

    @most_rows.setter
    def most_rows(self, rows: int) -> None:
        self._most_rows = rows
        if len(self._groups) > 1:
            for group in self._groups.values():  # some are full now; those that are no more are found by `Turns.first`
                self._turns.enter(group, rows)

    # -- in -----------------------------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        """Raises ScoringError(OVERLOADED, reason "queue_full") when it does not fit; an empty queue takes anything."""
        if self._rows + item.rows > self._max_rows or self._nbytes + item.nbytes > self._max_bytes:
            self._refuse(item.rows, item.nbytes)
        self._insert(item)

    def add_all(self, items: Sequence[Item]) -> None:
        """All of them or, raising as `add` does, none: the parts of one request."""
        if len(items) == 1:
            self.add(items[0])
            return
        rows = nbytes = 0
        for item in items:
            rows += item.rows
            nbytes += item.nbytes
        if self._rows + rows > self._max_rows or self._nbytes + nbytes > self._max_bytes:
            self._refuse(rows, nbytes)
        for item in items:
            self._insert(item)

    def _refuse(self, rows: int, nbytes: int) -> None:
        if not self:  # what no queue would ever hold would otherwise be refused forever
            return
        policy = self._policy
        raise ScoringError(
            Kind.OVERLOADED,
            f"the queue is full: it holds {self._rows} of {policy.max_queue_rows} rows and {self._nbytes} of "
            f"{policy.max_queue_bytes} bytes, this request has {rows} rows and {nbytes} bytes",
            reason="queue_full",
            retry_after_s=1,
        )

    def _insert(self, item: Item) -> None:
        key = _ALONE if item.alone else item.group
        group = self._last
        if group is None or group.key is not key:  # saves hashing the key, and comparing it
            group = self._groups.get(key)
            if group is None:
                group = self._open(key)
            self._last = group
        priority, rows = item.priority, item.rows
        lane = group.lanes[priority]
        if lane is None:
            lane = group.lanes[priority] = OrderedDict()
        is_first = not lane
        self._added = item.order = self._added + 1
        lane[item] = None
        group.rows += rows
        self._rows += rows
        self._nbytes += item.nbytes
        if priority is not _NORMAL:
            self._count(priority, rows)
        if item.deadline_ns is not None:
            self._timed = True
            self._deadlines.push(item.deadline_ns, item.order, item)
        if self.delay_ns and key is not _ALONE:
            self._let_wait(item, group)
        else:
            item.waits_for = _IDLE
        if (is_first or group.delayed) and len(self._groups) > 1:  # else it is behind somebody who may leave
            self._turns.enter(group, self._most_rows)

    def _open(self, key: Hashable) -> Group[Item]:
        if len(self._groups) == 1:
            (only,) = self._groups.values()
            self._turns.enter(only, self._most_rows)
        group = self._groups[key] = Group(key)
        return group

    def _count(self, priority: Priority, rows: int) -> None:
        if priority is Priority.HIGH:
            self._high_rows += rows
        elif priority is Priority.LOW:
            self._low_rows += rows

    def _let_wait(self, item: Item, group: Group[Item]) -> None:
        item.leaves_ns, item.waits_for = item.arrived_ns + self.delay_ns, Closed.DELAY
        if item.deadline_ns is not None:
            run_ns = self.run_ns[min(item.rows, len(self.run_ns) - 1)] if self.run_ns else 0
            hurried_ns = item.deadline_ns - run_ns - DEADLINE_MARGIN_NS
            if hurried_ns < item.leaves_ns:
                item.leaves_ns, item.waits_for = hurried_ns, Closed.DEADLINE
        group.delayed = True
        if item.leaves_ns > item.arrived_ns:
            group.waiting += 1
            self._timed = True
            self._waiting.push(item.leaves_ns, item.order, item)

    # -- out ----------------------------------------------------------------------------------------------------

    def take(self, now_ns: int) -> Taken[Item] | None:
        """The next batch, nothing expired in it; None means not yet."""
        if not self._groups:
            return None
        if self._timed:
            self._let_time_pass(now_ns)
        group = self._head()
        if group is None:
            return None
        if group.key is _ALONE:
            taken = self._fill(group, 1)._replace(closed=Closed.ALONE)
        elif self.run_ns and self._deadlines:
            taken = self._fill_in_time(group, now_ns)
        elif group.rows > self._most_rows:
            taken = self._fill(group, self._most_rows)
        else:
            taken = self._whole(group)
        self._leave(group, taken)
        return taken

    def _whole(self, group: Group[Item]) -> Taken[Item]:
        """All of it, which may be a full batch; its lanes are left as they are."""
        items, rows = group.items(), group.rows
        if rows >= self._most_rows:
            return Taken(items, rows, Closed.FULL)
        return Taken(items, rows, group.ended_by())

    def _fill_in_time(self, group: Group[Item], now_ns: int) -> Taken[Item]:
        """As many of the first, up to `most_rows`, as will all be answered by their deadlines; the head in any case."""
        rows, until_ns = 0, None
        run_ns = self.run_ns
        for count, item in enumerate(chain.from_iterable(lane for lane in group.lanes if lane)):
            rows += item.rows
            if item.deadline_ns is not None and (until_ns is None or item.deadline_ns < until_ns):
                until_ns = item.deadline_ns
            if not count:
                continue
            if rows > self._most_rows:
                return self._fill(group, self._most_rows)
            if until_ns is not None and now_ns + run_ns[rows] > until_ns:
                return self._fill(group, rows - item.rows)._replace(closed=Closed.DEADLINE)
        return self._whole(group)

    def _fill(self, group: Group[Item], most: int) -> Taken[Item]:
        """Take the first out of their lanes, up to `most` rows, or the head alone."""
        items: list[Item] = []
        rows = 0
        for lane in group.lanes:
            while lane:
                if rows >= most:
                    return Taken(items, rows, Closed.FULL)
                item, _ = lane.popitem(last=False)
                if items and rows + item.rows > most:
                    lane[item] = None
                    lane.move_to_end(item, last=False)
                    return Taken(items, rows, Closed.FULL)
                items.append(item)
                rows += item.rows
        return Taken(items, rows, Closed.FULL)

    def expire(self, now_ns: int) -> list[Item]:
        """Remove and return the items whose deadline is now or has passed, earliest first."""
        if self._timed:
            self._let_time_pass(now_ns)
        if not self._expired:
            return []
        expired = sorted(self._expired, key=lambda item: item.deadline_ns or 0)
        self._expired.clear()
        for item in expired:
            self._forget(item)
        return expired

    def hopeless(self, now_ns: int) -> list[Item]:
        """Remove and return, earliest deadline first, who has not expired but would during a run.

        That of one row, or of as many as wait, up to `worthwhile`: to cut a batch smaller for one's sake would cost
        several of the others their place.
        """
        hopeless: list[Item] = []
        if self._timed and len(self.run_ns) > 1:
            self._let_time_pass(now_ns)
            while (item := self._deadlines.pop_until(now_ns + self._least_run_ns() - 1)) is not None:
                self._pull_out(item)
                self._forget(item)
                hopeless.append(item)
        return hopeless

    def _least_run_ns(self) -> int:
        return self.run_ns[max(1, min(self._rows, self.worthwhile))]

    def remove(self, item: Item) -> bool:
        """Whether it was here; the caller has gone."""
        if item in self._expired:
            del self._expired[item]
        elif not self._pull_out(item):
            return False
        self._forget(item)
        return True

    def clear(self) -> list[Item]:
        """Remove and return everything: the expired, then the others in the order of `add`."""
        living = sorted(
            [item for group in self._groups.values() for item in group.items()], key=lambda item: item.order
        )
        items = [*self._expired, *living]
        for item in items:
            self.remove(item)
        return items

    # -- when ---------------------------------------------------------------------------------------------------

    def expires_at_ns(self) -> int | None:
        """When `expire` has something to give; None while nothing here has a deadline."""
        if self._expired:
            return next(iter(self._expired)).deadline_ns
        return self._deadlines.first_key()

    def wake_at_ns(self) -> int | None:
        """The earliest moment, past or future, when `take` or `expire` gives something without a new arrival."""
        group = self._head()
        leaves_ns = group.first().arrived_ns if group is not None else self._waiting.first_key()
        moments = [moment for moment in (leaves_ns, self.expires_at_ns()) if moment is not None]
        return min(moments, default=None)

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _let_time_pass(self, now_ns: int) -> None:
        """Put the expired aside and note who need not wait any more."""
        while (item := self._deadlines.pop_until(now_ns)) is not None:
            self._pull_out(item)
            self._expired[item] = None
        while (item := self._waiting.pop_until(now_ns)) is not None:
            group = self._groups[item.group]
            group.waiting -= 1
            if len(self._groups) > 1:
                self._turns.enter(group, self._most_rows)
        self._timed = bool(self._deadlines or self._waiting)

    def _head(self) -> Group[Item] | None:
        """The group whose turn it is; None while nobody may leave."""
        if len(self._groups) == 1:
            (only,) = self._groups.values()
            return only if only.may_leave(self._most_rows) else None
        return self._turns.first(self._most_rows)

    def _close(self, group: Group[Item]) -> None:
        """Let go of a group that has become empty."""
        del self._groups[group.key]
        if group.rank is not None:
            self._turns.drop(group)
        if self._last is group:
            self._last = None

    def _leave(self, group: Group[Item], taken: Taken[Item]) -> None:
        """Count what is taken as gone. The lanes of a group that leaves as a whole are not emptied."""
        group.rows -= taken.rows
        if not group.rows:
            self._close(group)
        if not self._groups and not self._expired:  # the usual case, without a look at each item
            self._rows = self._nbytes = self._high_rows = self._low_rows = 0
            self._timed = False
            self._waiting.clear()
            self._deadlines.clear()
            return
        for item in taken.items:
            self._forget(item)
            if self._timed:
                self._stop_the_clock(item, group)

    def _pull_out(self, item: Item) -> bool:
        """Take an item out of all that is decided here; it stays counted until `_forget`. Whether it was there."""
        group = self._groups.get(_ALONE if item.alone else item.group)
        lane = None if group is None else group.lanes[item.priority]
        if group is None or lane is None or item not in lane:
            return False
        del lane[item]
        group.rows -= item.rows
        self._stop_the_clock(item, group)
        if not group.rows:
            self._close(group)
        return True

    def _stop_the_clock(self, item: Item, group: Group[Item]) -> None:
        if item.deadline_ns is not None:
            self._deadlines.discard(item.order)
        if item.waits_for is not _IDLE and self._waiting.discard(item.order):
            group.waiting -= 1

    def _forget(self, item: Item) -> None:
        self._rows -= item.rows
        self._nbytes -= item.nbytes
        self._count(item.priority, -item.rows)
