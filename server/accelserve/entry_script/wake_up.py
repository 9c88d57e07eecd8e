"""When the pool has to look again: one timer, whatever is waited for."""

import asyncio
from collections.abc import Callable

from accelserve.clock import Clock

_LEAST_WAIT_S = 0.01


class WakeUp:
    """ring: called once for all that is due by then. Whoever asks for a later moment than the timer's costs nothing."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._now_ns = clock.now_ns
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at_ns = 0
        self._closed = False

    def by(self, at_ns: int) -> None:
        """Let `ring` be called then, or before."""
        if self._closed:
            return
        if self._timer is not None:
            if self._at_ns <= at_ns:
                return
            self._timer.cancel()
        self._at_ns = at_ns
        wait_s = max(_LEAST_WAIT_S, (at_ns - self._now_ns()) / 1e9)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._rings)

    def close(self) -> None:
        """It rings no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _rings(self) -> None:
        self._timer = None
        self._ring()
