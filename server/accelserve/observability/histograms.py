"""Histograms of integers: a list of counts and a bisection."""

from bisect import bisect_left
from collections.abc import Iterator

# 50 µs doubled up to 26 s, then a minute: one scale for everything that takes time.
LATENCY_EDGES_NS: tuple[int, ...] = (*(50_000 << i for i in range(20)), 60_000_000_000)
ROW_EDGES: tuple[int, ...] = tuple(1 << i for i in range(13))


class Histogram:
    """edges: ascending upper bounds, inclusive as Prometheus' `le`; what is above the last has its own bucket."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: tuple[int, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[int]:
        """For each edge, and at last for infinity, how many values were not above it."""
        running = 0
        for count in self.counts:
            running += count
            yield running
