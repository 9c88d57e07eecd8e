"""Which batches are over sooner than another thread has been woken for them."""

from collections.abc import Hashable

# What a hand-over to the model's thread and back costs the process, in CPU: two wake-ups, two changes of thread and
# an eventfd. A run below it is dearer handed over than made where it is, and holds the loop no longer.
MOST_NS = 60_000

_MOST_GROUPS = 64
_DECAY = 8  # a run that took longer moves the estimate by this part of the difference


class Brevity:
    """What runs of a session took, by group and number of rows; only of sessions whose runs are told of.

    In CPU time of the thread that ran them: under load a thread waits for its turn more than it works. Numbers of rows
    are told apart by powers of two, and one that has not been seen counts as the next smaller known one in proportion.
    The shortest run counts, and longer ones move it slowly: what comes on top is the machine's.
    """

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Times] = {}

    def is_brief(self, group: Hashable, rows: int) -> bool:
        """Whether a batch is expected to be; never before one of its group has run."""
        times = self._groups.get(group)
        return times is not None and rows <= times.most_rows

    def ran(self, group: Hashable, rows: int, cpu_ns: int) -> None:
        times = self._groups.get(group)
        if times is None:
            if len(self._groups) >= _MOST_GROUPS:  # clients choose shapes: without end, where the model lets them
                self._groups.clear()
            times = self._groups[group] = _Times()
        times.note((max(rows, 1) - 1).bit_length(), cpu_ns)


class _Times:
    """Of one group. most_rows: up to which its batches are brief."""

    __slots__ = ("_by_size", "most_rows")

    def __init__(self) -> None:
        self._by_size: dict[int, float] = {}  # exponent of 2 -> ns
        self.most_rows = 0

    def note(self, size: int, cpu_ns: int) -> None:
        known = self._by_size.get(size)
        if known is None or cpu_ns < known:
            self._by_size[size] = cpu_ns
        else:
            self._by_size[size] = known + (cpu_ns - known) / _DECAY
        if known is None or (known <= MOST_NS) != (self._by_size[size] <= MOST_NS):
            self.most_rows = self._find_most_rows()

    def _find_most_rows(self) -> int:
        most = 0
        for size in sorted(self._by_size):
            ns = self._by_size[size]
            if ns > MOST_NS:
                break
            most = 1 << size
            while ns * 2 <= MOST_NS and size + 1 not in self._by_size:
                ns, size, most = ns * 2, size + 1, most * 2
        return most
