"""The ways in which a request may come on a connection: each makes a stream of bytes out of a case."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from http_cases import CASES, Case

HEALTH = Case("health", "GET", "/healthz").bytes()
HOT = Case("hot", "POST", "/v1/models/double:predict", b'{"instances": [[8, 9]]}').bytes()
END = b"\r\n\r\n"
_MOST_BYTES_ONE_BY_ONE = 500


class Event(Enum):
    """What happens between two pieces."""

    DRAINING = auto()
    SHUTDOWN = auto()
    IDLE = auto()  # longer than a connection is kept
    FULL = auto()  # the client reads no more
    READS = auto()  # ... and reads again


Step = bytes | tuple[bytes, ...] | Event


@dataclass(frozen=True)
class Stream:
    """What one client sends. steps: pieces, or several that come at once; the next comes when all is answered."""

    name: str
    steps: tuple[Step, ...]


def split_head(request: bytes) -> tuple[bytes, bytes]:
    end = request.index(END) + len(END)
    return request[:end], request[end:]


def streams_of(case: Case, seed: int = 0) -> Iterator[Stream]:
    """A case in all ways. The first is the plainest."""
    for name, steps in (*_repeated(case), *_beside_others(case), *_framed(case), *_ending(case), *_split(case, seed)):
        yield Stream(f"{case.name}, {name}", steps)


def _repeated(case: Case) -> Iterator[tuple[str, tuple[Step, ...]]]:
    plain = case.bytes()
    head, body = split_head(plain)
    yield "alone", (plain,)
    yield "three times", (plain, plain, plain)
    yield "head and body apart, twice", (head, body, head, body)
    yield "head and body apart at once, twice", ((head, body), (head, body))
    yield "after an empty line", (plain, b"\r\n" + plain, b"\r\n", plain)
    yield "and again after a long time", (plain, Event.IDLE, plain)


def _beside_others(case: Case) -> Iterator[tuple[str, tuple[Step, ...]]]:
    plain = case.bytes()
    yield "three in one piece", (plain * 3, plain)
    yield "between others", (plain + HEALTH + plain + HOT + plain, HOT + plain, HEALTH + plain)
    yield "before garbage", (plain, plain + b"NOT HTTP\r\n\r\n" + plain)
    yield "before half of another", (plain + HOT[:30], HOT[30:] + plain[:20], plain[20:])


def _framed(case: Case) -> Iterator[tuple[str, tuple[Step, ...]]]:
    plain, size = case.bytes(), len(case.body)
    chunked = case.chunked((1, size // 2))
    yield "in chunks", (chunked, plain + chunked, chunked + plain)
    yield "with a length of many digits", (plain.replace(b"Content-Length: ", b"Content-Length: 000"),) * 2
    yield "with both lengths", (case.bytes(("Transfer-Encoding", "chunked")), plain)
    yield "with headers in capitals", (case.spelled("upper").bytes(host="HOST"), plain) * 2
    yield "with headers in small letters", (case.spelled("lower").bytes(host="host"),) * 2
    yield "with one more header", tuple(case.bytes(("X-Number", str(n))) for n in range(3))


def _ending(case: Case) -> Iterator[tuple[str, tuple[Step, ...]]]:
    plain, closing = case.bytes(), case.bytes(("Connection", "close"))
    waiting = split_head(case.bytes(("Expect", "100-continue")))
    yield "in HTTP/1.0", (case.bytes(version="1.0"), plain)
    yield "in HTTP/1.0 kept alive", (case.bytes(("Connection", "keep-alive"), version="1.0"), plain)
    yield "kept alive", (case.bytes(("Connection", "Keep-Alive")),) * 2
    yield "closing", (plain, closing, plain)
    yield "closing, in one piece", (closing + plain,)
    yield "after 100 Continue", waiting * 2
    yield "without waiting for 100 Continue", (b"".join(waiting), plain)
    yield "with an upgrade", (case.bytes(("Connection", "Upgrade"), ("Upgrade", "h2c")), plain)
    yield "while draining", (plain, Event.DRAINING, plain, plain)
    yield "while draining, in one piece", (Event.DRAINING, plain + plain)
    yield "before a shutdown", (plain, Event.SHUTDOWN, plain)
    yield "around a shutdown", (plain[:30], Event.SHUTDOWN, plain[30:])


def _split(case: Case, seed: int) -> Iterator[tuple[str, tuple[Step, ...]]]:
    plain = case.bytes()
    rng = random.Random(f"{case.name} {seed}")
    if len(plain) <= _MOST_BYTES_ONE_BY_ONE:
        yield "byte by byte", (tuple(plain[at : at + 1] for at in range(len(plain))), plain)
    for at in sorted(rng.sample(range(1, len(plain)), 3)):
        yield f"split at {at}", (plain[:at], plain[at:], plain)
    cuts = sorted(rng.sample(range(1, 3 * len(plain)), 4))
    thrice = plain * 3
    yield f"three times, split at {cuts}", tuple(thrice[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True))


def every_split(case: Case) -> Iterator[Stream]:
    """A request that comes in two pieces, for each place between two bytes; then once more, whole."""
    plain = case.bytes()
    for at in range(1, len(plain)):
        yield Stream(f"{case.name}, split at {at}", (plain[:at], plain[at:], plain))


def named(*names: str) -> list[Case]:
    by_name = {case.name: case for case in CASES}
    return [by_name[name] for name in names]
