"""Requests that arrive whether or not the server keeps up: at random moments (Poisson), at a given mean rate.

Each is sent on an idle connection; when all are busy it waits, and its time still counts from when it arrived. Arrivals
are looked at every millisecond. What was not answered in time by the end of the grace counts as late.
Prints one line of JSON: how many arrived, were in time, late, refused (by status and reason), lost.

usage: python -m benchmarks.open_loop URL BODY_FILE CONTENT_TYPE REQUESTS_PER_S SECONDS DEADLINE_MS
"""

import asyncio
import contextlib
import json
import random
import re
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.clients import asked_for

CONNECTIONS = 1000
GRACE_S = 2.0  # after the last arrival
LOOK_S = 0.001
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
REASON = re.compile(rb"\r\nx-accelserve-reason: *(\S+)", re.I)


@dataclass(slots=True)
class Seen:
    """Milliseconds of the answers by what they were; `refused` counts by status and reason."""

    in_time_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def add(self, head: bytes, took_ms: float, deadline_ms: float) -> None:
        status = head[9:12].decode()
        if status == "200":
            (self.in_time_ms if took_ms <= deadline_ms else self.late_ms).append(took_ms)
            return
        reason = REASON.search(head)
        self.refused[f"{status} {reason[1].decode() if reason else ''}".strip()] += 1
        self.refused_ms.append(took_ms)


class Connection(asyncio.Protocol):
    """One kept connection with at most one request under way."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._buffer = b""
        self._arrived: float | None = None  # of the request under way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._pool.everyone.append(self)
        self._pool.idle.append(self)

    def send(self, arrived: float) -> None:
        self._arrived = arrived
        self._transport.write(self._pool.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]) or self._arrived is None:
            return
        self._buffer, arrived, self._arrived = b"", self._arrived, None
        self._pool.answered(self, head, arrived)

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.left(self, under_way=self._arrived is not None)

    def close(self) -> None:
        self._transport.abort()


class Pool:
    """The connections, and the arrivals that wait for one."""

    def __init__(self, request: bytes, deadline_ms: float) -> None:
        self.request = request
        self.everyone: list[Connection] = []
        self.idle: deque[Connection] = deque()
        self.seen = Seen()
        self.under_way = 0
        self._deadline_ms = deadline_ms
        self._waiting: deque[float] = deque()
        self._complete = self._closing = False
        self.done = asyncio.Event()

    def arrive(self, at: float) -> None:
        if self.idle:
            self.under_way += 1
            self.idle.pop().send(at)
        else:
            self._waiting.append(at)

    def answered(self, connection: Connection, head: bytes, arrived: float) -> None:
        self.under_way -= 1
        self.seen.add(head, (perf_counter() - arrived) * 1e3, self._deadline_ms)
        self.idle.append(connection)
        if self._waiting:
            self.arrive(self._waiting.popleft())
        self._settle()

    def left(self, connection: Connection, under_way: bool) -> None:
        if under_way and not self._closing:
            self.under_way -= 1
            self.seen.lost += 1
            self._settle()
        elif connection in self.idle and not self._closing:
            self.idle.remove(connection)

    def no_more(self) -> None:
        """From now on, `done` is set as soon as nothing is under way."""
        self._complete = True
        self._settle()

    def _settle(self) -> None:
        if self._complete and not self.under_way and not self._waiting:
            self.done.set()

    def close(self) -> int:
        """Returns how many were never answered."""
        self._closing = True
        for connection in self.everyone:
            connection.close()
        return self.under_way + len(self._waiting)


def arrivals(rate: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """Seconds from the start: a Poisson process of `rate` per second."""
    dice, at = random.Random(seed), 0.0
    while (at := at + dice.expovariate(rate)) < seconds:
        yield at


def request_bytes(url: str, body: bytes, content_type: str, deadline_ms: float) -> bytes:
    place = urlsplit(url)
    head = (
        f"POST {asked_for(place)} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {content_type}\r\n"
        f"x-accelserve-timeout-ms: {deadline_ms:.0f}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def drive(url: str, request: bytes, rate: float, seconds: float, deadline_ms: float) -> dict[str, Any]:
    place = urlsplit(url)
    loop, pool = asyncio.get_running_loop(), Pool(request, deadline_ms)
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Connection(pool), place.hostname, place.port)
    began, arrived = perf_counter(), 0
    for at in arrivals(rate, seconds):
        if (wait_s := began + at - perf_counter()) > 0:
            await asyncio.sleep(max(LOOK_S, wait_s))
        pool.arrive(began + at)
        arrived += 1
        if arrived % 64 == 0:
            await asyncio.sleep(0)  # behind the arrivals: read the answers too
    pool.no_more()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(pool.done.wait(), GRACE_S)
    unanswered = pool.close()
    await asyncio.sleep(0)  # the loop lets go of the connections
    return said(pool.seen, arrived, unanswered, seconds)


def said(seen: Seen, arrived: int, unanswered: int, seconds: float) -> dict[str, Any]:
    return {
        "arrived": arrived,
        "in_time": len(seen.in_time_ms),
        "late": len(seen.late_ms),
        "refused": len(seen.refused_ms),
        "refused_why": dict(seen.refused),
        "unanswered": unanswered,
        "lost": seen.lost,
        "goodput_rps": len(seen.in_time_ms) / seconds,
        **{f"in_time_{name}_ms": value for name, value in _percentiles(seen.in_time_ms)},
        **{f"refused_{name}_ms": value for name, value in _percentiles(seen.refused_ms)},
    }


def _percentiles(times_ms: list[float]) -> Iterator[tuple[str, float | None]]:
    times_ms.sort()
    for percent in (50, 99):
        yield f"p{percent}", times_ms[len(times_ms) * percent // 100] if times_ms else None


def main() -> None:
    url, body_file, content_type, rate, seconds, deadline_ms = sys.argv[1:]
    request = request_bytes(url, Path(body_file).read_bytes(), content_type, float(deadline_ms))
    print(json.dumps(uvloop.run(drive(url, request, float(rate), float(seconds), float(deadline_ms)))))


if __name__ == "__main__":
    main()
