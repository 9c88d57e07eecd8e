"""Whose turn it is, where several groups wait in a queue."""

from typing import Generic

from accelserve.batching.lazy_heap import LazyHeap
from accelserve.batching.pending import Group, Item


class Turns(Generic[Item]):
    """The groups of which a batch may leave, the one with the most urgent first item first.

    All that may leave are here, and some that may no more: what has left a group may have made it less urgent, or
    unable to leave, which `first` finds out. A group's `rank` and `listing` are this class's. most_rows: what a batch
    is filled up to.
    """

    def __init__(self) -> None:
        self._heads: LazyHeap[Group[Item]] = LazyHeap()
        self._listed = 0

    @property
    def held(self) -> int:
        """Entries held, the withdrawn included."""
        return self._heads.held

    def enter(self, group: Group[Item], most_rows: int) -> None:
        """Put a group here if it may leave, or further up if its first item has changed to a more urgent one."""
        if group.may_leave(most_rows):
            rank = group.first_rank()
            if group.rank is None or rank < group.rank:
                self.drop(group)
                self._listed = group.listing = self._listed + 1
                group.rank = rank
                self._heads.push(rank, group.listing, group)

    def drop(self, group: Group[Item]) -> None:
        if group.rank is not None:
            self._heads.discard(group.listing)
            group.rank = None

    def first(self, most_rows: int) -> Group[Item] | None:
        """The group whose turn it is; it stays here."""
        while (group := self._heads.first()) is not None:
            rank = group.rank
            if group.may_leave(most_rows) and group.first_rank() == rank:
                return group
            self.drop(group)
            self.enter(group, most_rows)
        return None
