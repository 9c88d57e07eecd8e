"""A timer of the event loop that rings at the earliest moment that it was told."""

import asyncio
from collections.abc import Callable

from accelserve.clock import Clock


class WakeUp:
    """One that rings too early stays set: whoever is woken looks round, and sets it anew."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at_ns = 0

    def set(self, at_ns: int) -> None:
        """Ring at `at_ns` of the clock, or at once when that is over, unless it will ring before."""
        if self._timer is not None and self._at_ns <= at_ns:
            return
        self.cancel()
        self._at_ns = at_ns
        self._timer = self._loop.call_later(max(0, at_ns - self._clock.now_ns()) / 1e9, self._wake)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._ring()
