"""Requests that come at their times, whatever became of those before: how overload comes in life."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One request. sent_s, took_s: seconds. status: HTTP's; head: of the answer."""

    sent_s: float
    took_s: float
    status: int
    head: bytes
    body: bytes


@dataclass
class Load:
    """What came back. unsent: no connection was free at their time, so that the load was less than meant."""

    outcomes: list[Outcome] = field(default_factory=list)
    unsent: int = 0

    def statuses(self) -> Counter[int]:
        return Counter(outcome.status for outcome in self.outcomes)

    def answered(self, since_s: float, until_s: float) -> int:
        """Answers of 200, by when they came."""
        good = [outcome.sent_s + outcome.took_s for outcome in self.outcomes if outcome.status == 200]
        return sum(since_s <= came_s < until_s for came_s in good)


class _Client(asyncio.Protocol):
    """A kept connection: one request at a time. served: told when it has its answer."""

    def __init__(self, request: bytes, load: Load, start_s: float) -> None:
        self._request = request
        self._load = load
        self._start_s = start_s
        self._sent_s = 0.0
        self._answer = b""
        self.free = asyncio.Event()
        self.free.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self) -> None:
        self.free.clear()
        self._sent_s = time.monotonic() - self._start_s
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) if found else 0
        if found and len(body) >= length:
            took_s = time.monotonic() - self._start_s - self._sent_s
            status = int(head.split(b" ", 2)[1])
            self._load.outcomes.append(Outcome(self._sent_s, took_s, status, head, body))
            self._answer = b""
            self.free.set()


def send_all(port: int, request: bytes, times_s: Sequence[float], connections: int) -> Load:
    """request: a whole one, head and body. times_s: ascending, from now."""
    return asyncio.run(_send_all(port, request, times_s, connections))


async def _send_all(port: int, request: bytes, times_s: Sequence[float], connections: int) -> Load:
    loop, load = asyncio.get_running_loop(), Load()
    start_s = time.monotonic() + 0.1
    clients: list[_Client] = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Client(request, load, start_s), "127.0.0.1", port)
        clients.append(client)
    for at_s in times_s:
        await asyncio.sleep(max(0.0, start_s + at_s - time.monotonic()))
        free = next((client for client in clients if client.free.is_set()), None)
        if free is None:
            load.unsent += 1
        else:
            clients.remove(free)
            clients.append(free)
            free.send()
    async with asyncio.timeout(10):
        for client in clients:
            await client.free.wait()
            client.transport.close()
    return load
