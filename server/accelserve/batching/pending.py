"""What waits in a queue, and what leaves it."""

from collections import OrderedDict
from collections.abc import Hashable
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from accelserve.messages import Priority


class Closed(StrEnum):
    """Why a batch left as it was. Outsiders read these words."""

    FULL = "full"  # it has `most_rows`, or the next in line would not have fitted
    IDLE = "idle"  # a session was free and nobody in it was to wait for company
    DELAY = "delay"  # one in it had waited for company as long as the policy lets it
    DEADLINE = "deadline"  # a longer wait, or the longer run with the next in line, would have endangered a deadline
    ALONE = "alone"  # its model has no batch axis: nobody can join


class Waits(Protocol):
    """What a queue holds: rows that wait to be run, compared by identity, in one queue at a time.

    group: items with equal groups can ride together; it is found faster when it is the same object each time.
    rows: at least 1. alone: a model without a batch axis, never joined with another. deadline_ns: from this moment on
    nobody waits any more. None of these changes while it waits.
    The queue's own: order, its place in that of all; waits_for, what ends its wait for company (IDLE: it does not
    wait), and leaves_ns, when that is.
    """

    group: Hashable
    rows: int
    nbytes: int
    arrived_ns: int
    deadline_ns: int | None
    priority: Priority
    alone: bool
    order: int
    waits_for: Closed
    leaves_ns: int


class Pending:
    """The plain kind of what waits. payload: the owner's, not looked at."""

    __slots__ = (
        "alone",
        "arrived_ns",
        "deadline_ns",
        "group",
        "leaves_ns",
        "nbytes",
        "order",
        "payload",
        "priority",
        "rows",
        "waits_for",
    )
    order: int
    waits_for: Closed
    leaves_ns: int

    def __init__(
        self,
        group: Hashable,
        rows: int,
        nbytes: int,
        arrived_ns: int,
        deadline_ns: int | None = None,
        priority: Priority = Priority.NORMAL,
        alone: bool = False,
        payload: object = None,
    ) -> None:
        self.group = group
        self.rows = rows
        self.nbytes = nbytes
        self.arrived_ns = arrived_ns
        self.deadline_ns = deadline_ns
        self.priority = priority
        self.alone = alone
        self.payload = payload


Item = TypeVar("Item", bound=Waits)


class Taken(NamedTuple, Generic[Item]):
    """A batch: items, head first; the sum of their rows; why no more ride."""

    items: list[Item]
    rows: int
    closed: Closed


class Group(Generic[Item]):
    """The items of one group, by priority in order of arrival. waiting: how many wait for company.

    rank: under which it stands among the `Turns`, None while it does not; at most that of its first item.
    listing: names that entry. delayed: somebody in it has had to wait for company.
    """

    __slots__ = ("delayed", "key", "lanes", "listing", "rank", "rows", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        # OrderedDict, of all that keep an order, takes out any one in O(1) and leaves nothing of it.
        self.lanes: list[OrderedDict[Item, None] | None] = [None, None, None]
        self.rows = 0
        self.waiting = 0
        self.delayed = False
        self.rank: int | None = None
        self.listing = 0

    def count(self) -> int:
        return sum([len(lane) for lane in self.lanes if lane])

    def first(self) -> Item:
        return next(next(iter(lane)) for lane in self.lanes if lane)

    def first_rank(self) -> int:
        first = self.first()
        return (first.priority << 60) + first.order

    def may_leave(self, most_rows: int) -> bool:
        """Whether a batch of it, filled up to `most_rows`, need not wait any more."""
        # With this many rows the greedy batch is full, or the next item does not fit.
        return not self.waiting or self.rows >= most_rows or self.waiting < self.count()

    def items(self) -> list[Item]:
        items: list[Item] = []
        for lane in self.lanes:
            if lane:
                items += lane
        return items

    def ended_by(self) -> Closed:
        """What let it go as a whole, not full: the first in time that need not wait any more."""
        if not self.delayed:
            return Closed.IDLE
        ended = min(self.items(), key=lambda item: item.arrived_ns if item.waits_for is Closed.IDLE else item.leaves_ns)
        return ended.waits_for
