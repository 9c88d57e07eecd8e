"""Progress of long work, on a stream that people may be watching."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_FIRST_S, _TERMINAL_S, _LOG_S = 0.5, 0.1, 5.0
_BAR = 24  # characters


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
        self._write(f"\r\033[K{_fitting(share, self._stream)}" if self._terminal else f"{share}\n")
        self._told = True

    def end(self) -> None:
        if self._told and self._terminal:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class CountBar:
    """Things done of things to do: a bar on a terminal, removed in the end; elsewhere a line every five seconds."""

    def __init__(self, stream: TextIO, now_s: Callable[[], float], what: str, total: int) -> None:
        self._stream = stream
        self._now_s = now_s
        self._what = what
        self._total = max(total, 1)
        self._terminal = stream.isatty()
        self._began_s = now_s()
        self._next_s = self._began_s + (_FIRST_S if self._terminal else _LOG_S)
        self._line = ""

    def __call__(self, done: int) -> None:
        now = self._now_s()
        if now < self._next_s:
            return
        self._next_s = now + (_TERMINAL_S if self._terminal else _LOG_S)
        rate = done / max(now - self._began_s, 1e-9)
        left = f", {(self._total - done) / rate:,.0f} s left" if rate else ""
        full = _BAR * done // self._total
        bar = f"[{'#' * full}{'.' * (_BAR - full)}] " if self._terminal else ""
        self._line = _fitting(f"{bar}{self._what} {done:,} of {self._total:,}, {rate:,.1f}/s{left}", self._stream)
        self._write(f"\r\033[K{self._line}" if self._terminal else f"{self._line}\n")

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Something else is printed meanwhile."""
        shown = self._line if self._terminal else ""
        if shown:
            self._write("\r\033[K")
        yield
        if shown:
            self._write(shown)

    def end(self) -> None:
        if self._line and self._terminal:
            self._write("\r\033[K")
        self._line = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _fitting(line: str, stream: TextIO) -> str:
    """As much of it as the terminal is wide: of a line that goes on in the next only the rest could be removed."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:  # no terminal, and no file
        return line
    return line[: columns - 1] if columns else line
