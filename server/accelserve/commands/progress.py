"""Progress of long work, on a stream that people may be watching."""

from collections.abc import Callable
from typing import TextIO

_FIRST_S, _TERMINAL_S, _LOG_S = 0.5, 0.1, 5.0


class ProgressLine:
    """On a terminal one line that is written over and in the end removed; elsewhere a line every five seconds.

    Work that ends within half a second, or five, is not told at all.
    """

    def __init__(self, stream: TextIO, now_s: Callable[[], float]) -> None:
        self._stream = stream
        self._now_s = now_s
        self._terminal = stream.isatty()
        self._next_s = now_s() + (_FIRST_S if self._terminal else _LOG_S)
        self._told = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._now_s()
        if now < self._next_s:
            return
        self._next_s = now + (_TERMINAL_S if self._terminal else _LOG_S)
        share = f"{what}: {done / 2**20:,.0f} of {total / 2**20:,.0f} MiB, {100 * done // max(total, 1)} %"
        self._write(f"\r\033[K{share}" if self._terminal else f"{share}\n")
        self._told = True

    def end(self) -> None:
        if self._told and self._terminal:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
