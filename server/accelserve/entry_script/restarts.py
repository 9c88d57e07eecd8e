"""When a worker that died is started again, and when a script that dies again and again is not relied on any more."""

_STEADY_NS = 30 * 10**9  # whoever has lived so long has not died of its start
_UNSTEADY_STRIKES = 3
_FIRST_DELAY_NS = 10**9
_MOST_DELAY_NS = 30 * 10**9


class Restarts:
    """Of one worker's place. why: how its last worker ended; "" before the first did. count: how many were replaced."""

    __slots__ = ("_ready_ns", "_strikes", "count", "next_ns", "why")

    def __init__(self) -> None:
        self.why = ""
        self.count = 0
        self.next_ns: int | None = None  # when the next one is to start
        self._strikes = 0
        self._ready_ns: int | None = None

    def ready(self, now_ns: int) -> None:
        self._ready_ns = now_ns

    def died(self, why: str, now_ns: int) -> None:
        """The first in a while is replaced at once, those that follow it after 1, 2, 4 ... 30 s."""
        lived_long = self._ready_ns is not None and now_ns - self._ready_ns >= _STEADY_NS
        self._strikes = 1 if lived_long else self._strikes + 1
        self._ready_ns = None
        self.why = why
        delay_ns = 0 if self._strikes == 1 else min(_FIRST_DELAY_NS << min(self._strikes - 2, 10), _MOST_DELAY_NS)
        self.next_ns = now_ns + delay_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether the next one is to start."""
        return self.next_ns is not None and self.next_ns <= now_ns

    def begun(self) -> None:
        """The next one starts."""
        self.next_ns = None
        self.count += 1

    @property
    def has_hope(self) -> bool:
        """Whether a worker is there, or one that can be expected to come."""
        return self._ready_ns is not None or self._strikes < _UNSTEADY_STRIKES

    def wait_ns(self, now_ns: int) -> int:
        """Until the next one starts; 0 if it has been started."""
        return 0 if self.next_ns is None else max(0, self.next_ns - now_ns)

    def is_steady(self, now_ns: int) -> bool:
        """Whether a worker is there that can be expected to stay."""
        if self._ready_ns is None:
            return False
        return self._strikes < _UNSTEADY_STRIKES or now_ns - self._ready_ns >= _STEADY_NS

    def wake_at_ns(self, now_ns: int) -> int | None:
        """When something changes if nothing else happens: the next one starts, or this one counts as steady."""
        if self._ready_ns is None or self._strikes < _UNSTEADY_STRIKES:
            return self.next_ns
        steady_ns = self._ready_ns + _STEADY_NS
        return steady_ns if steady_ns > now_ns else None

    def told(self, now_ns: int) -> str:
        """Why it is not steady."""
        times = "" if self._strikes < 2 else f" ({self._strikes} times in a row)"
        if self.next_ns is None:
            return f"{self.why}{times}; the next one has been started"
        return f"{self.why}{times}; the next one starts in {self.wait_ns(now_ns) / 1e9:.0f} s"
