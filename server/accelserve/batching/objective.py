"""Batch size and delay for a latency objective: chosen from what runs take and what they give. Pure, time passed in."""

from collections.abc import Sequence

_NEARLY = 0.8  # of the objective: what a run may take at most when larger batches give much more
_MUCH_MORE = 1.25  # times the rows per second: for less nobody is made to miss the objective
_NEARLY_MOST = 0.97  # of the most rows per second: what larger batches add to it is less than what they cost in time
_WINDOW_NS = 500_000_000  # rates of shorter windows, or of fewer runs, differ by chance
_WINDOW_RUNS = 20
_BUSY = 0.9  # of the lanes' time: below it, what comes is answered and no delay brings more
_FULL = 0.8  # of the batch size: what fills anyway needs no delay
_BETTER = 1.05  # times the rate of the window before: less may be chance
_FALLEN = 0.7  # of the rate for which a delay was chosen: fewer clients ask now, and nobody is to wait for them
_FIRST_PAUSE = 4  # windows between two trials,
_LONGEST_PAUSE = 64  # doubled with each one that was in vain


class BatchChoice:
    """The batch size that gives the most rows per second within the objective, and a delay where that gives more.

    Size: who comes just after a batch has left waits for it, or a lane's share of it, and then for his own. Sizes with
    which both fit the objective make nobody too late; where a larger one gives a quarter more rows per second, that one
    is taken, and admission refuses who comes too early in a run. Of a size more than twice the largest that was seen
    nothing is believed.

    Delay: how long after a run a lane waits for those who were answered to ask again, until as many wait as were in the
    run and beside it. 0, unless the lanes are busy with batches that do not fill, as when a few clients ask again after
    each answer: without a delay half of them ride while the others wait. Then a quarter of a run's time is tried for a
    window now and then, and stays while it gives more rows per second. It is never more than the objective leaves.
    """

    __slots__ = (
        "_before_ns",
        "_busy_ns",
        "_objective_ns",
        "_pause",
        "_rate",
        "_rows",
        "_runs",
        "_since_ns",
        "_sizes",
        "_skip",
        "_trying",
        "delay_ns",
        "lanes",
        "most_rows",
    )

    def __init__(self, objective_ns: int, max_batch_size: int, allowed_batch_sizes: Sequence[int], lanes: int) -> None:
        """lanes: batches that run at the same time; set it when that changes."""
        self._objective_ns = objective_ns
        self._sizes = allowed_batch_sizes or range(1, max_batch_size + 1)
        self.lanes = lanes
        self._busy_ns = self._rows = self._runs = 0
        self._since_ns: int | None = None
        self._rate = 0.0  # rows per ns of the window before a trial
        self._before_ns = 0  # the delay before a trial
        self._trying = False
        self._pause = _FIRST_PAUSE
        self._skip = 0
        self.delay_ns = 0
        self.most_rows = max_batch_size

    def ran(self, rows: int, took_ns: int, now_ns: int) -> None:
        """A run ended."""
        if self._since_ns is None:
            self._since_ns = now_ns
            return
        self._rows += rows
        self._runs += 1
        self._busy_ns += took_ns

    def choose(self, run_ns: Sequence[int], spread: float, largest_seen: int, now_ns: int) -> None:
        """Look at what was learned. run_ns: typical time by rows; spread: what most runs stay within, of that."""
        if not run_ns:
            return
        sizes = [size for size in self._sizes if size <= max(1, 2 * largest_seen)] or [self._sizes[0]]
        self.most_rows = self._best(sizes, run_ns, spread)
        if self._since_ns is None or self._runs < _WINDOW_RUNS or now_ns - self._since_ns < _WINDOW_NS:
            return
        self._judge(int(run_ns[self.most_rows] * spread), now_ns - self._since_ns)
        self._since_ns = now_ns
        self._busy_ns = self._rows = self._runs = 0

    def _best(self, sizes: Sequence[int], run_ns: Sequence[int], spread: float) -> int:
        """The smallest that gives nearly the most rows per second; so it lies on the edge of a step where there are."""
        whole_ns = self._objective_ns / spread
        both_ns = whole_ns / (1 + 1 / self.lanes)
        bound_ns = max(whole_ns * _NEARLY, run_ns[sizes[0]])
        rates = {size: size / max(1, run_ns[size]) for size in sizes if run_ns[size] <= bound_ns}
        safe = [rate for size, rate in rates.items() if run_ns[size] <= both_ns]
        most = max(rates.values())
        if safe and most < _MUCH_MORE * max(safe):
            most = max(safe)
        return min(size for size, rate in rates.items() if rate >= _NEARLY_MOST * most)

    # -- delay --------------------------------------------------------------------------------------------------

    def _judge(self, run_ns: int, window_ns: int) -> None:
        """Between two windows."""
        rate = self._rows / window_ns
        if self._trying:
            self._trying = False
            self._settle(rate)
        elif self.delay_ns and rate < _FALLEN * self._rate:  # these are other times
            self.delay_ns, self._skip, self._pause = 0, 0, _FIRST_PAUSE
        elif self._skip:
            self._skip -= 1
        elif self.delay_ns or self._may_gain(window_ns):
            self._rate, self._before_ns, self._trying = rate, self.delay_ns, True
            self.delay_ns = 0 if self.delay_ns else run_ns // 4
        self.delay_ns = max(0, min(self.delay_ns, (self._objective_ns - run_ns) // 2))

    def _settle(self, rate: float) -> None:
        """A delay stays where it gives more, and is left out where it does not."""
        stays = rate > self._rate * _BETTER if self.delay_ns else rate * _BETTER > self._rate
        if stays:
            self._rate, self._pause = rate, _FIRST_PAUSE
        else:
            self.delay_ns, self._pause = self._before_ns, min(2 * self._pause, _LONGEST_PAUSE)
        self._skip = self._pause

    def _may_gain(self, window_ns: int) -> bool:
        busy = self._busy_ns > _BUSY * window_ns * self.lanes
        return busy and self._rows < _FULL * self._runs * self.most_rows
