"""A heap whose entries may be withdrawn while they are in it."""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")

_FEW = 32  # withdrawn entries that are not worth a sweep


class LazyHeap(Generic[T]):
    """Things under a key, smallest key first.

    Whoever pushes names a thing by a number that this heap has not seen before; it decides between equal keys. A
    thing that is discarded is let go of at once. Of it stays a pair of numbers, which leaves when it surfaces, or with
    all the others when they outnumber the things, so memory follows the number of things.
    """

    __slots__ = ("_pairs", "_things")

    def __init__(self) -> None:
        self._pairs: list[tuple[int, int]] = []
        self._things: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._things)

    @property
    def held(self) -> int:
        """Entries held, the withdrawn included."""
        return len(self._pairs)

    def push(self, key: int, number: int, thing: T) -> None:
        heapq.heappush(self._pairs, (key, number))
        self._things[number] = thing

    def first(self) -> T | None:
        """The thing of the smallest key, left where it is."""
        pairs, things = self._pairs, self._things
        while pairs:
            thing = things.get(pairs[0][1])
            if thing is not None:
                return thing
            heapq.heappop(pairs)
        return None

    def first_key(self) -> int | None:
        return self._pairs[0][0] if self.first() is not None else None

    def pop_until(self, key: int) -> T | None:
        """Take out the first, if its key is at most `key`."""
        pairs, things = self._pairs, self._things
        while pairs and pairs[0][0] <= key:
            thing = things.pop(heapq.heappop(pairs)[1], None)
            if thing is not None:
                return thing
        return None

    def discard(self, number: int) -> bool:
        """Whether it was here."""
        things, pairs = self._things, self._pairs
        if things.pop(number, None) is None:
            return False
        if not things:
            pairs.clear()
        elif len(pairs) > 2 * len(things) + _FEW:
            pairs[:] = [pair for pair in pairs if pair[1] in things]
            heapq.heapify(pairs)
        return True

    def clear(self) -> None:
        self._pairs.clear()
        self._things.clear()
