"""What a worker prints, as lines of the server's log: bounded, and never in the way of its answers."""

MOST_LINE_BYTES = 8192
MOST_LINES = 1000  # of one stream in a second
_SECOND_NS = 10**9


class OutputLines:
    """Cuts one stream into lines. Those beyond a thousand in a second are counted and not told."""

    __slots__ = ("_allowed", "_cut", "_dropped", "_rest", "_second_ns")

    def __init__(self) -> None:
        self._rest = b""
        self._cut = False  # the line under way has been told, as far as it is told at all
        self._allowed = MOST_LINES
        self._second_ns = 0
        self._dropped = 0

    def feed(self, data: bytes, now_ns: int) -> list[str]:
        """The lines that are complete; of a longer one than 8 KB as much."""
        before = self._next_second(now_ns)
        *complete, rest = (self._rest + data).split(b"\n")
        if self._cut and complete:
            complete, self._cut = complete[1:], False
        if self._cut:
            rest = b""
        elif len(rest) > MOST_LINE_BYTES:
            complete.append(rest)
            rest, self._cut = b"", True
        self._rest = rest
        return [*before, *self._told(complete)]

    def end(self) -> list[str]:
        """What came without an end of line."""
        rest, self._rest = self._rest, b""
        return [*self._told([rest] if rest else []), *self._tell_dropped()]

    def _next_second(self, now_ns: int) -> list[str]:
        if now_ns - self._second_ns < _SECOND_NS:
            return []
        self._second_ns, self._allowed = now_ns, MOST_LINES
        return self._tell_dropped()

    def _tell_dropped(self) -> list[str]:
        dropped, self._dropped = self._dropped, 0
        return [f"({dropped} lines were not logged: more than {MOST_LINES} in a second)"] if dropped else []

    def _told(self, lines: list[bytes]) -> list[str]:
        told = lines[: self._allowed]
        self._dropped += len(lines) - len(told)
        self._allowed -= len(told)
        return [_text(line) for line in told]


def _text(line: bytes) -> str:
    more = " ... (cut)" if len(line) > MOST_LINE_BYTES else ""
    return line[:MOST_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip("\r") + more
