"""A heap whose entries may die while they are in it."""

import heapq
from typing import Generic, Protocol, TypeVar


class Mortal(Protocol):
    live: bool


T = TypeVar("T", bound=Mortal)

_FEW = 32  # dead entries that are not worth a sweep


class LazyHeap(Generic[T]):
    """Entries under a key, smallest key first.

    Who makes an entry not `live` calls `bury`, once for each heap that holds it. The dead leave when they surface, or
    all together when they outnumber the living, so memory follows the number of the living.
    """

    __slots__ = ("_dead", "_pairs")

    def __init__(self) -> None:
        self._pairs: list[tuple[int, int, T]] = []
        self._dead = 0

    def __len__(self) -> int:
        """Entries held, the dead ones included."""
        return len(self._pairs)

    def push(self, key: int, order: int, entry: T) -> None:
        """order: unique; decides between equal keys."""
        heapq.heappush(self._pairs, (key, order, entry))

    def first(self) -> T | None:
        """The living entry of the smallest key, left where it is."""
        pairs = self._pairs
        while pairs:
            entry = pairs[0][2]
            if entry.live:
                return entry
            heapq.heappop(pairs)
            self._dead -= 1
        return None

    def first_until(self, key: int) -> T | None:
        """`first`, if its key is at most `key`."""
        entry = self.first()
        return entry if entry is not None and self._pairs[0][0] <= key else None

    def first_key(self) -> int | None:
        return self._pairs[0][0] if self.first() is not None else None

    def pop(self) -> T:
        """Take out what `first` has just shown."""
        return heapq.heappop(self._pairs)[2]

    def bury(self) -> None:
        """An entry in here has died."""
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self._pairs):
            self._pairs = [pair for pair in self._pairs if pair[2].live]
            heapq.heapify(self._pairs)
            self._dead = 0
