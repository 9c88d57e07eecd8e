"""Which requests ride together: a pure state machine. Time comes in as an argument, batches go out."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from accelserve.batching.lazy_heap import LazyHeap
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority

# A request that waits for company leaves this long before its deadline at the latest: event loops keep time in
# milliseconds, and the run itself has to fit in as well.
DEADLINE_MARGIN_NS = 2_000_000


@dataclass(slots=True, eq=False)  # one for each request, and a frozen one takes three times as long to make
class Pending:
    """Rows that wait to be run; compared by identity, never changed.

    group: requests with equal groups can ride together. alone: a model without a batch axis, never joined with
    another. deadline_ns: from this moment on nobody waits any more. payload: the owner's, not looked at.
    """

    group: Hashable
    rows: int
    nbytes: int
    arrived_ns: int
    deadline_ns: int | None = None
    priority: Priority = Priority.NORMAL
    alone: bool = False
    payload: object = None


class _Group:
    """The living entries of one group. due: how many of them need not, or may not, wait for company any more."""

    __slots__ = ("due", "entries", "items", "key", "rows")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.entries: LazyHeap[_Entry] = LazyHeap()
        self.items = 0
        self.rows = 0
        self.due = 0


class _Entry:
    """One waiting item. listed: it is in the heap of heads. item: None when dead, so that the payload is free."""

    __slots__ = ("arrived_ns", "due", "group", "item", "listed", "live", "order", "rank", "rows")

    def __init__(self, item: Pending, group: _Group, order: int, due: bool) -> None:
        self.live = True
        self.item: Pending | None = item
        self.group = group
        self.rows = item.rows
        self.arrived_ns = item.arrived_ns
        self.order = order
        self.rank = (item.priority << 60) + order  # by priority, then by arrival
        self.due = due
        self.listed = False


class BatchQueue:
    """Decides which requests ride together, and when they leave.

    The head is the first by (priority, order of `add`) of the groups that may leave now; its batch is filled from
    its group in the same order, up to the first item that does not fit into `max_batch_size`. A group may leave when
    it fills a batch, or when one of its items has waited for `max_queue_delay_ns`, has a deadline nearer than
    DEADLINE_MARGIN_NS, or is `alone`. With a delay of 0 every group may leave at any time.

    Items are added in the order of their arrival and time never goes back. Expired items count as held until
    `expire` hands them out. Every operation costs amortised O(log n) or less for each item it touches.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._entries: dict[Pending, _Entry] = {}
        self._expired: dict[Pending, None] = {}  # deadline passed, not handed out yet
        self._groups: dict[Hashable, _Group] = {}
        self._heads: LazyHeap[_Entry] = LazyHeap()  # holds at least the head of every group that may leave
        self._waiting: LazyHeap[_Entry] = LazyHeap()  # entries that are not due, by when they will be
        self._deadlines: LazyHeap[_Entry] = LazyHeap()
        self._rows = 0
        self._nbytes = 0
        self._added = 0

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def __len__(self) -> int:
        return len(self._entries) + len(self._expired)

    # -- in -----------------------------------------------------------------------------------------------------

    def add(self, item: Pending) -> None:
        """Raises ScoringError(OVERLOADED, reason "queue_full") when it does not fit; an empty queue takes anything."""
        self._admit(item.rows, item.nbytes)
        self._insert(item)

    def add_all(self, items: Sequence[Pending]) -> None:
        """All of them or, raising as `add` does, none: the parts of one request."""
        rows = nbytes = 0
        for item in items:
            rows += item.rows
            nbytes += item.nbytes
        self._admit(rows, nbytes)
        for item in items:
            self._insert(item)

    def _admit(self, rows: int, nbytes: int) -> None:
        policy = self._policy
        fits = self._rows + rows <= policy.max_queue_rows and self._nbytes + nbytes <= policy.max_queue_bytes
        if fits or not len(self):  # what no queue would ever hold would otherwise be refused forever
            return
        raise ScoringError(
            Kind.OVERLOADED,
            f"the queue is full: it holds {self._rows} of {policy.max_queue_rows} rows and {self._nbytes} of "
            f"{policy.max_queue_bytes} bytes, this request has {rows} rows and {nbytes} bytes",
            reason="queue_full",
            retry_after_s=1,
        )

    def _insert(self, item: Pending) -> None:
        key = object() if item.alone else item.group
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        leave_ns = self._leave_at_ns(item)
        self._added += 1
        entry = _Entry(item, group, self._added, due=leave_ns <= item.arrived_ns)
        self._entries[item] = entry
        self._rows += item.rows
        self._nbytes += item.nbytes
        group.entries.push(entry.rank, entry.order, entry)
        group.items += 1
        group.rows += item.rows
        group.due += entry.due
        if not entry.due:
            self._waiting.push(leave_ns, entry.order, entry)
        if item.deadline_ns is not None:
            self._deadlines.push(item.deadline_ns, entry.order, entry)
        self._list_head(group)

    def _leave_at_ns(self, item: Pending) -> int:
        """When it stops waiting for company."""
        delay_ns = self._policy.max_queue_delay_ns
        if item.alone or not delay_ns:
            return item.arrived_ns
        leave_ns = item.arrived_ns + delay_ns
        return leave_ns if item.deadline_ns is None else min(leave_ns, item.deadline_ns - DEADLINE_MARGIN_NS)

    # -- out ----------------------------------------------------------------------------------------------------

    def take(self, now_ns: int) -> list[Pending]:
        """The next batch, head first; [] means not yet. Nothing expired is in it."""
        self._let_time_pass(now_ns)
        head = self._head()
        if head is None:
            return []
        group, space = head.group, self._policy.max_batch_size - head.rows
        batch = [self._leave(head)]
        while (entry := group.entries.first()) is not None and entry.rows <= space:
            space -= entry.rows
            batch.append(self._leave(entry))
        self._list_head(group)
        return batch

    def _leave(self, entry: _Entry) -> Pending:
        item = self._bury(entry)
        self._forget(item)
        return item

    def expire(self, now_ns: int) -> list[Pending]:
        """Remove and return the items whose deadline is now or has passed, earliest first."""
        if not self._deadlines and not self._expired:
            return []
        self._let_time_pass(now_ns)
        expired = list(self._expired)
        self._expired.clear()
        for item in expired:
            self._forget(item)
        return expired

    def remove(self, item: Pending) -> bool:
        """Whether it was here; the caller has gone."""
        entry = self._entries.get(item)
        if entry is not None:
            self._leave(entry)
            self._list_head(entry.group)
        elif item in self._expired:
            del self._expired[item]
            self._forget(item)
        else:
            return False
        return True

    def clear(self) -> list[Pending]:
        """Remove and return everything."""
        items = [*self._expired, *self._entries]
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
        head = self._head()
        leaves_ns = head.arrived_ns if head is not None else self._waiting.first_key()
        moments = [moment for moment in (leaves_ns, self.expires_at_ns()) if moment is not None]
        return min(moments, default=None)

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _let_time_pass(self, now_ns: int) -> None:
        """Put the expired aside and note who need not wait any more."""
        while (entry := self._deadlines.first_until(now_ns)) is not None:
            self._expired[self._bury(entry)] = None
            self._list_head(entry.group)
        while (entry := self._waiting.first_until(now_ns)) is not None:
            self._waiting.pop()
            entry.due = True
            entry.group.due += 1
            self._list_head(entry.group)

    def _may_leave(self, group: _Group) -> bool:
        # With this many rows the greedy batch is full, or the next item does not fit.
        return group.due > 0 or group.rows >= self._policy.max_batch_size

    def _list_head(self, group: _Group) -> None:
        """Restore the promise of `_heads` after a change of this group."""
        head = group.entries.first()  # in an emptied group this drops the dead, which point back to it: no cycle stays
        if head is not None and not head.listed and self._may_leave(group):
            head.listed = True
            self._heads.push(head.rank, head.order, head)

    def _head(self) -> _Entry | None:
        while (entry := self._heads.first()) is not None and not self._may_leave(entry.group):
            self._heads.pop()
            entry.listed = False
        return entry

    def _bury(self, entry: _Entry) -> Pending:
        """Take an entry out of all that is decided here; its rows stay counted until `_forget`."""
        item, group = entry.item, entry.group
        assert item is not None
        entry.item = None
        entry.live = False
        group.items -= 1
        group.rows -= item.rows
        group.due -= entry.due
        group.entries.bury()
        if entry.listed:
            self._heads.bury()
        if not entry.due:
            self._waiting.bury()
        if item.deadline_ns is not None:
            self._deadlines.bury()
        del self._entries[item]
        if not group.items:
            del self._groups[group.key]
        return item

    def _forget(self, item: Pending) -> None:
        self._rows -= item.rows
        self._nbytes -= item.nbytes
