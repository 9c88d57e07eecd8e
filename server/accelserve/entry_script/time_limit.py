"""The soft time limit of run(): an alarm in the main thread. Who does not heed it is killed by the server."""

import signal
from collections.abc import Callable


class RunTimeout(BaseException):
    """run() has taken too long. No Exception, so that a script's `except Exception` does not swallow it."""


class TimeLimit:
    """Raises RunTimeout out of what runs between `begin` and `end`, in the main thread.

    The alarm is not set and unset for every request: it stays, and looks when it goes off.
    now: seconds. arm: lets SIGALRM come after so many seconds.
    """

    def __init__(self, limit_s: float, now: Callable[[], float], arm: Callable[[float], object]) -> None:
        self._limit_s = limit_s
        self._now = now
        self._arm = arm
        self._deadline: float | None = None
        self._fires_at: float | None = None
        self._handler = self.on_alarm  # one object, by which it is known again

    def begin(self) -> None:
        now = self._now()
        self._deadline = now + self._limit_s
        lost = self._fires_at is None or self._fires_at < now
        if lost or signal.getsignal(signal.SIGALRM) is not self._handler:  # a script may have an alarm of its own
            signal.signal(signal.SIGALRM, self._handler)
            self._set(now, self._limit_s)

    def end(self) -> None:
        self._deadline = None

    def on_alarm(self, *_: object) -> None:
        self._fires_at = None
        if self._deadline is None:
            return
        now = self._now()
        if now >= self._deadline:
            self._deadline = None
            raise RunTimeout
        self._set(now, self._deadline - now)

    def _set(self, now: float, after_s: float) -> None:
        self._fires_at = now + after_s
        self._arm(after_s)


def alarm(after_s: float) -> None:
    """SIGALRM to this process; a limit of years is cut to what the system takes."""
    signal.setitimer(signal.ITIMER_REAL, min(max(after_s, 1e-6), 1e8))
