"""Where time comes from: passed in, so that tests own it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic nanoseconds; only differences mean something."""

    def now_ns(self) -> int: ...


class MonotonicClock:
    """The machine's monotonic clock."""

    now_ns = staticmethod(time.monotonic_ns)
