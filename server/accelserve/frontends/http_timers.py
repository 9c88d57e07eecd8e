"""The deadlines of one connection: what is waited for, and whether the client still takes its answer."""

import asyncio
from collections.abc import Callable


class Deadline:
    """One deadline that moves often and passes seldom.

    Moving it later costs no timer: the timer that runs rings early, sees, and is set again for the rest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, seconds: float) -> None:
        """From now on, `passed` is called once after `seconds`."""
        at = self._at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._arm(at, seconds)

    def clear(self) -> None:
        self._at = None

    def close(self) -> None:
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float, seconds: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self._arm(self._at, left)
        else:
            self._at = None
            self._passed()


class WriteWatch:
    """Aborts a connection whose client takes nothing of what is written to it for `silence_s`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, silence_s: float) -> None:
        self._transport = transport
        self._silence_s = silence_s
        self._unsent_bytes = 0
        self._deadline = Deadline(loop, self._look)

    def start(self) -> None:
        self._unsent_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes:
            self._deadline.set(self._silence_s)

    def stop(self) -> None:
        self._deadline.close()

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() >= self._unsent_bytes:
            self._transport.abort()
        else:
            self.start()
