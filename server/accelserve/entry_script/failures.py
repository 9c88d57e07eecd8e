"""Failures of run() in the server's log: errors, with the id of the request and the script's own traceback."""

import logging
from collections.abc import Callable

logger = logging.getLogger("accelserve.script")

MOST_A_SECOND = 100  # the event loop writes them
_SECOND_NS = 10**9


class InTheScript(Exception):
    """Carries a traceback from the script's process into the log."""


class Failures:
    """Those beyond a hundred in a second are counted, and the number is told with the next one."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._second_ns = 0
        self._told = self._untold = 0

    def log(self, report: str, request_id: str, pid: int) -> None:
        """report: `ScriptResponse.report`, whose last line says what went wrong."""
        now_ns = self._now_ns()
        if now_ns - self._second_ns >= _SECOND_NS:
            self._second_ns, self._told = now_ns, 0
            self._tell_untold()
        if self._told >= MOST_A_SECOND:
            self._untold += 1
            return
        self._told += 1
        before, _, last = report.rstrip().rpartition("\n")
        trace = InTheScript(report) if before else None
        logger.error("run() failed: %s", last, exc_info=trace, extra={"request_id": request_id, "pid": pid})

    def _tell_untold(self) -> None:
        if self._untold:
            logger.error(
                "run() failed %d times more: no more than %d in a second are told", self._untold, MOST_A_SECOND
            )
            self._untold = 0
