"""Lets a session be closed while it runs: close waits for the runs under way and refuses later ones."""

import threading

from accelserve.errors import Kind, ScoringError


class RunGate:
    """`with gate:` around each run; costs well under a microsecond. Runs may overlap."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()  # taken directly in a run: a Condition's own `with` costs a microsecond more
        self._changed = threading.Condition(self._lock)
        self._running = 0
        self._closed = False

    def __enter__(self) -> None:
        """Raises ScoringError(DRAINING) after close."""
        with self._lock:
            if self._closed:
                raise ScoringError(Kind.DRAINING, f"{self._model}: the session is closed", reason="session_closed")
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> bool:
        """Refuse new runs and wait for those under way. True for the call that closed, False for later ones."""
        with self._changed:
            first = not self._closed
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)
            return first
