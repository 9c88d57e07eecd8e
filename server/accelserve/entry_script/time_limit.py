"""The soft time limit of run(): an alarm in the main thread. Who does not heed it is killed by the server."""

import signal
from collections.abc import Callable

_AGAIN_NS = 250_000_000  # what is raised in a callback of C code, or while a module is imported, may get lost


class RunTimeout(BaseException):
    """run() has taken too long. No Exception, so that a script's `except Exception` does not swallow it."""


class TimeLimit:
    """Raises RunTimeout out of what runs between `begin` and `end`, in the main thread.

    The alarm is not set and unset for every request: it stays, and looks when it goes off. A script that has an alarm
    of its own loses ours, which is set again once it is overdue.
    now_ns: the time. arm: lets SIGALRM come after so many nanoseconds.
    """

    def __init__(self, limit_ns: int, now_ns: Callable[[], int], arm: Callable[[int], object]) -> None:
        self._limit_ns = limit_ns
        self._now_ns = now_ns
        self._arm = arm
        self._deadline_ns: int | None = None
        self._fires_at_ns: int | None = None

    def begin(self, now_ns: int) -> None:
        self._deadline_ns = now_ns + self._limit_ns
        if self._fires_at_ns is None or self._fires_at_ns < now_ns:
            signal.signal(signal.SIGALRM, self.on_alarm)
            self._set(now_ns, self._limit_ns)

    def end(self) -> None:
        self._deadline_ns = None

    def on_alarm(self, *_: object) -> None:
        self._fires_at_ns = None
        if self._deadline_ns is None:
            return
        now_ns = self._now_ns()
        if now_ns >= self._deadline_ns:
            self._set(now_ns, _AGAIN_NS)
            raise RunTimeout
        self._set(now_ns, self._deadline_ns - now_ns)

    def _set(self, now_ns: int, after_ns: int) -> None:
        self._fires_at_ns = now_ns + after_ns
        self._arm(after_ns)


def alarm(after_ns: int) -> None:
    """SIGALRM to this process; a limit of years is cut to what the system takes."""
    signal.setitimer(signal.ITIMER_REAL, min(max(after_ns / 1e9, 1e-6), 1e8))
