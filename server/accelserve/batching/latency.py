"""How long a model's run takes by its rows, learned from the runs: pure, time passed in."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, chain

_GAIN = 0.15  # how far one run moves what is believed, as a share of its surprise
_MOST_GAIN = 0.5  # of a model of seconds, too, one run is not all that is known
_GAIN_PER_NS = 1 / 4e9  # slow models have few runs, and are to be learned in seconds as well
_SPEED_SHARE = 0.7  # what slows one size down (a clock, a neighbour) nearly always slows them all down
_SURPRISE = math.log(2)  # a run off by more counts as off by this much,
_REPEATS = 4  # until so many in a row say the same: then it is the model that has changed
_COLD_RUNS = 3  # of the first runs of a size the fastest counts: caches and allocators are cold
_OFF = 0.1  # the table, which takes ten times as long as all the rest, follows at once when it is off by this share,
_SLACK = 0.04  # what is added to the spread for that
_PATIENCE = 16  # and after so many runs when it is off at all
_FIRST_DEVIATION = 0.05  # until runs have told
_DEVIATIONS = 2.0  # mean absolute deviations up to `high`: for a normal distribution its 95th percentile
_MOST_DEVIATION = 0.35  # an outlier counts as so much: what most runs stay within is never told as more than twice
_LEAST_WINDOW = 16  # runs among which the quickest of all sizes is looked for, or twice as many
_WORTHWHILE = 0.75  # of the most rows per second
_FADE = 0.7  # what is left of a belief each time that nothing has run
_FADE_AFTER_NS = 500_000_000  # for so long; a model that was rightly believed slow is asked less and less often,
_LONGEST_BELIEF_NS = 60_000_000_000  # and once a minute at least
_RIGHT = 0.8  # a run that takes this part of what was believed, or more, says it was right
_NEVER_NS = 1 << 63
_FEW = 8  # runs of a size among which the quickest and the slowest are looked for, or twice as many
_FAR = 4.0  # a model's speed may change by so much for sizes that do not run meanwhile


class _Size:
    """What runs of about one size took. rows: their mean. scaled_ns: their time at speed 1. least_ns, most_ns: of the
    last."""

    __slots__ = ("_new_least_ns", "_new_most_ns", "last_ns", "least_ns", "most_ns", "rows", "runs", "scaled_ns")

    def __init__(self, rows: int, scaled_ns: float) -> None:
        self.rows = float(rows)
        self.scaled_ns = scaled_ns
        self.runs = 0
        self.last_ns = 0
        self.least_ns = self._new_least_ns = _NEVER_NS
        self.most_ns = self._new_most_ns = 0

    @property
    def is_young(self) -> bool:
        return self.runs < _COLD_RUNS

    def ran(self, took_ns: int, now_ns: int) -> None:
        self.runs += 1
        self.last_ns = now_ns
        if took_ns < self._new_least_ns:
            self._new_least_ns = took_ns
            self.least_ns = min(self.least_ns, took_ns)
        if took_ns > self._new_most_ns:
            self._new_most_ns = took_ns
            self.most_ns = max(self.most_ns, took_ns)
        if self.runs % _FEW == 0:
            self.least_ns, self._new_least_ns = self._new_least_ns, _NEVER_NS
            self.most_ns, self._new_most_ns = self._new_most_ns, 0

    def bound(self, speed: float, slack: float) -> float:
        """Its time, within what its last runs took: surprises that come and go move speed and shape by different steps,
        and a size that hardly runs would drift away with them."""
        ns = self.scaled_ns * speed
        if not self.is_young and not self.least_ns <= ns * slack <= self.most_ns * slack * slack:
            ns = min(max(ns, self.least_ns / slack), self.most_ns * slack)
            self.scaled_ns = ns / speed
        return ns


class LatencyModel:
    """Believes that t(rows) = speed * shape(rows): the speed follows within a few runs, the shape slowly.

    The shape is kept for each allowed size or, where any size may run, for each up to 32 and four in an octave above;
    between sizes that were seen it is a straight line. Beyond these it hopes (fewer rows take less in proportion, more
    rows what the line says): who has seen nothing refuses nothing. Changes are counted in logarithms, and a single
    outlier moves little; in the long run each size stays within what its last runs took.

    run_ns: the typical time by rows, padded as they run, index 0 to max_batch_size; empty until a run was seen. A new
    list when it changes.
    worthwhile: the smallest batch that gives three quarters of the most rows in a second.
    spread: what most runs stay within, as a multiple of their typical time.
    """

    __slots__ = (
        "_built_speed",
        "_deviation",
        "_edges",
        "_fade_after_ns",
        "_faded_from",
        "_last_ns",
        "_least",
        "_new_least",
        "_noted",
        "_odd",
        "_padded",
        "_since",
        "_sizes",
        "_speed",
        "_top",
        "run_ns",
        "spread",
        "worthwhile",
    )

    def __init__(self, max_batch_size: int, allowed_batch_sizes: Sequence[int] = ()) -> None:
        self._top = max_batch_size
        sizes = allowed_batch_sizes
        self._padded = [0, *(sizes[bisect_left(sizes, rows)] for rows in range(1, max_batch_size + 1))] if sizes else []
        self._edges = list(allowed_batch_sizes) or _edges(max_batch_size)
        self._sizes: dict[int, _Size] = {}
        self._speed = 1.0
        self._built_speed = 1.0
        self._deviation = _FIRST_DEVIATION
        self._since = 0  # runs since the table was made
        self._least = math.inf  # in terms of speed, as `_new_least`
        self._new_least = math.inf
        self._noted = 0
        self._odd: list[float] = []  # surprises in a row, all of one sign
        self._last_ns = 0
        self._fade_after_ns = _FADE_AFTER_NS
        self._faded_from: float | None = None  # the speed that was believed before
        self.run_ns: list[int] = []
        self.worthwhile = 1
        self.spread = math.exp(_DEVIATIONS * self._deviation) + _SLACK

    @property
    def largest_seen(self) -> int:
        """Rows up to which runs have been seen; 0 before the first."""
        return round(self._sizes[max(self._sizes)].rows) if self._sizes else 0

    def sizes(self) -> list[tuple[int, int]]:
        """(rows, typical ns) of every size that was seen, ascending."""
        seen = [self._sizes[key] for key in sorted(self._sizes)]
        return [(round(size.rows), round(size.scaled_ns * self._speed)) for size in seen]

    def observe(self, rows: int, took_ns: int, now_ns: int) -> None:
        """A run of `rows`, padding included, took so long, from the hand-over to the answers."""
        self._last_ns = now_ns
        took_ns = max(took_ns, 1)
        if self._faded_from is not None:
            self._after_fading(rows, took_ns, self._faded_from)
        key = bisect_left(self._edges, rows)
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = _Size(rows, self._plausible(key, rows, took_ns) / self._speed)
            stale = True
        elif size.runs < _COLD_RUNS:
            stale = self._young(size, rows, took_ns)
        else:
            stale = self._grown(size, rows, took_ns)
        size.ran(took_ns, now_ns)
        size.bound(self._speed, 1.0)
        if stale or size.runs == _COLD_RUNS:
            self._build()

    def fade(self, now_ns: int) -> None:
        """Believe in less time when nothing ran for a while: a belief that lets nothing run is never put right.

        The next run tells. If it was right, it is believed again at once, and for twice as long.
        """
        if self._sizes and now_ns - self._last_ns > self._fade_after_ns:
            self._last_ns = now_ns
            self._faded_from = self._faded_from or self._speed
            self._fade_by(_FADE)

    def _fade_by(self, factor: float) -> None:
        self._speed *= factor
        self._least *= factor
        self._new_least *= factor
        self._build()

    def _after_fading(self, rows: int, took_ns: int, from_speed: float) -> None:
        self._faded_from = None
        if took_ns / max(1, self.run_ns[rows]) * self._built_speed < _RIGHT * from_speed:
            self._fade_after_ns = _FADE_AFTER_NS
        else:
            self._fade_after_ns = min(2 * self._fade_after_ns, _LONGEST_BELIEF_NS)
            self._fade_by(from_speed / self._speed)

    def _plausible(self, key: int, rows: int, took_ns: int) -> float:
        """The first run of a size. Between others it counts at most twice what they say: it is cold, or the model has
        just become slower at all of them."""
        if self._sizes and min(self._sizes) < key < max(self._sizes):
            return min(took_ns, 2.0 * self.run_ns[rows])
        return took_ns

    def _note_least(self, speed: float) -> None:
        """The quickest of the last runs, between one and two windows of them."""
        self._new_least = min(self._new_least, speed)
        self._least = min(self._least, speed)
        self._noted += 1
        if self._noted % _LEAST_WINDOW == 0:
            self._least, self._new_least = self._new_least, math.inf

    def least_ns(self, rows: int) -> int:
        """What a run takes at best, of late: lags of a busy host come and go, and a model is not quicker than this."""
        return int(self.run_ns[rows] * min(1.0, self._least / self._built_speed))

    def sure_ns(self, rows: int, now_ns: int) -> int:
        """What a run alone takes for certain: no size is judged by runs of others that may be quicker, by its first
        runs, or by runs of long ago, so that who asks for something new, or was slow by chance, is tried."""
        for key in range(bisect_left(self._edges, rows), -1, -1):
            size = self._sizes.get(key)
            if size is not None and size.runs >= _COLD_RUNS:
                if now_ns - size.last_ns > _LONGEST_BELIEF_NS:
                    return 0
                return min(size.least_ns, self.least_ns(min(rows, round(size.rows))))
        return 0

    def _young(self, size: _Size, rows: int, took_ns: int) -> bool:
        size.rows += (rows - size.rows) / (size.runs + 1)
        faster = took_ns / self._speed < size.scaled_ns
        if faster:
            size.scaled_ns = took_ns / self._speed
        return faster

    def _grown(self, size: _Size, rows: int, took_ns: int) -> bool:
        # By the line at these very rows: the runs of one size differ by up to a quarter.
        expected_ns = max(1.0, self.run_ns[rows] * self._speed / self._built_speed)
        gain = min(_MOST_GAIN, max(_GAIN, expected_ns * _GAIN_PER_NS))
        self._note_least(took_ns * self._speed / expected_ns)
        off = math.log(took_ns / expected_ns)
        move = self._believable(off)
        size.rows += gain * (rows - size.rows)
        self._speed *= math.exp(move * gain * _SPEED_SHARE if abs(move) <= _SURPRISE else move)
        size.scaled_ns *= math.exp(move * gain * (1 - _SPEED_SHARE) if abs(move) <= _SURPRISE else 0.0)
        self._deviation += gain * (min(abs(off), _MOST_DEVIATION) - self._deviation)
        self.spread = math.exp(_DEVIATIONS * self._deviation) + _SLACK
        self._since += 1
        told_ns = self.run_ns[rows]
        off_now = max(abs(size.scaled_ns * self._speed - told_ns), abs(self._speed / self._built_speed - 1) * told_ns)
        return off_now > _OFF * told_ns or (self._since >= _PATIENCE and off_now > _SLACK / 8 * told_ns)

    def _believable(self, off: float) -> float:
        """At most one surprise at a time, but the smallest of several in a row that agree, as a whole."""
        if abs(off) <= _SURPRISE:
            self._odd.clear()
            return off
        if self._odd and (self._odd[0] > 0) != (off > 0):
            self._odd.clear()
        self._odd.append(off)
        if len(self._odd) < _REPEATS:
            return math.copysign(_SURPRISE, off)
        least = min(self._odd, key=abs)
        self._odd.clear()
        return least

    def _rebase(self) -> None:
        """Call the present speed 1: it would leave the numbers' range one day."""
        speed = self._speed
        for size in self._sizes.values():
            size.scaled_ns *= speed
        self._least /= speed
        self._new_least /= speed
        if self._faded_from is not None:
            self._faded_from /= speed
        self._speed = self._built_speed = 1.0

    def _points(self) -> list[tuple[float, float]]:
        """(rows, ns), ascending. The first runs of a size may be cold, and would keep requests and batches of that size
        away: they count at most twice in proportion to smaller ones."""
        points: list[tuple[float, float]] = []
        row_ns = math.inf
        for _, size in sorted(self._sizes.items()):
            ns = size.scaled_ns * self._speed if self._faded_from is not None else size.bound(self._speed, _FAR)
            if size.is_young:
                ns = min(ns, 2.0 * row_ns * size.rows)
            else:
                row_ns = ns / size.rows
            points.append((size.rows, ns))
        return points

    def _build(self) -> None:
        points = self._points()
        self._rebase()
        self._since = 0
        line = _through(points, self._top)
        run_ns = [line[rows] for rows in self._padded] if self._padded else line
        # More rows do not take less: what says so is old.
        self.run_ns = run_ns = list(accumulate(reversed(run_ns), min))[::-1]
        least = _WORTHWHILE * max(rows / max(1, run_ns[rows]) for rows in range(1, self._top + 1))
        self.worthwhile = next(rows for rows in range(1, self._top + 1) if rows >= least * run_ns[rows])


def _edges(most: int) -> list[int]:
    """1 2 3 ... 32 40 48 56 64 80 ... most: devices take steps, most of them at multiples of eight."""
    octaves = [range(5 * width, 9 * width, width) for width in (2**i for i in range(3, most.bit_length()))]
    return [*(rows for rows in chain(range(1, 33), *octaves) if rows < most), most]


def _through(points: Sequence[tuple[float, float]], top: int) -> list[int]:
    """Time by rows, 0 to top: straight from point to point, in proportion before the first, along `_slope` after the
    last."""
    table = [0]
    left, left_ns = 0.0, 0.0
    for right, right_ns in points:
        per_row = (right_ns - left_ns) / (right - left)
        table += [int(left_ns + (rows - left) * per_row) for rows in range(len(table), min(top, int(right)) + 1)]
        left, left_ns = right, right_ns
    slope = _slope(points)
    return table + [int(left_ns + (rows - left) * slope) for rows in range(len(table), top + 1)]


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line with the least squares, never falling: two neighbours alone would mostly tell their noise."""
    mean_rows = sum(rows for rows, _ in points) / len(points)
    mean_ns = sum(ns for _, ns in points) / len(points)
    spread = sum((rows - mean_rows) ** 2 for rows, _ in points)
    return max(0.0, sum((rows - mean_rows) * (ns - mean_ns) for rows, ns in points) / spread) if spread else 0.0
