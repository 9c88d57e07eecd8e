"""Load generators in Python: for machines without wrk or h2load, and where every answer is to be counted.

At the end of the time nothing new is sent, and what is under way is waited for; the rate is that of all answers until
the last one. Prints one line of JSON.

usage: python -m benchmarks.clients http|grpc URL BODY_FILE CONTENT_TYPE CLIENTS SECONDS [START TIMES_FILE]
START: unix time to begin at, for generators that begin together. TIMES_FILE: gets the seconds of each answer, float64.
"""

import array
import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import uvloop

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GRACE_S = 20  # how long after the end the last answers may take


class HttpClient(asyncio.Protocol):
    """One kept connection with one request under way. Answers must have a Content-Length."""

    def __init__(self, request: bytes, end: float, took_s: list[float]) -> None:
        self._request = request
        self._end = end
        self._took_s = took_s
        self._buffer = b""
        self._under_way = False
        self.errors = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._under_way = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        self._buffer = b""
        self._took_s.append(time.perf_counter() - self._began)
        self.errors += not head.startswith(b"HTTP/1.1 200")
        if time.perf_counter() < self._end:
            self._send()
        else:
            self._under_way = False
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += self._under_way
        if not self.done.done():
            self.done.set_result(None)


def asked_for(place: SplitResult) -> str:
    """Path and query of a URL."""
    return f"{place.path}?{place.query}" if place.query else place.path


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


async def drive_http(
    url: str, body: bytes, content_type: str, clients: int, seconds: float, took_s: list[float]
) -> dict[str, object]:
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    address = (place.hostname, place.port)
    head = f"POST {asked_for(place)} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {content_type}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    began = time.perf_counter()
    end = began + seconds
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: HttpClient(request, end, took_s), *address) for _ in range(clients)]
    async with asyncio.timeout(seconds + GRACE_S):
        await asyncio.gather(*(protocol.done for _, protocol in opened))
    return _said(took_s, sum(protocol.errors for _, protocol in opened), time.perf_counter() - began)


async def drive_grpc(url: str, body: bytes, clients: int, seconds: float, took_s: list[float]) -> dict[str, object]:
    """Each client has a connection of its own, as h2load's do."""
    import grpc

    start = time.perf_counter()
    end = start + seconds

    async def client() -> int:
        errors = 0
        async with grpc.aio.insecure_channel(urlsplit(url).netloc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            predict = channel.unary_unary(PREDICT)
            while time.perf_counter() < end:
                began = time.perf_counter()
                try:
                    await predict(body, timeout=GRACE_S)
                    took_s.append(time.perf_counter() - began)
                except grpc.aio.AioRpcError:
                    errors += 1
        return errors

    errors = sum(await asyncio.gather(*(client() for _ in range(clients))))
    return _said(took_s, errors, time.perf_counter() - start)


def _said(took_s: list[float], errors: int, wall_s: float) -> dict[str, object]:
    took_s.sort()
    return {
        "answered": len(took_s),
        "errors": errors,
        "rps": len(took_s) / wall_s,
        "p50_ms": took_s[len(took_s) // 2] * 1e3 if took_s else None,
        "p99_ms": took_s[len(took_s) * 99 // 100] * 1e3 if took_s else None,
    }


def main() -> None:
    kind, url, body_file, content_type, clients, seconds, *together = sys.argv[1:]
    body, took_s = Path(body_file).read_bytes(), list[float]()
    if together:
        time.sleep(max(0.0, float(together[0]) - time.time()))
    if kind == "http":
        said = uvloop.run(drive_http(url, body, content_type, int(clients), float(seconds), took_s))
    else:
        said = asyncio.run(drive_grpc(url, body, int(clients), float(seconds), took_s))
    if together:
        Path(together[1]).write_bytes(array.array("d", took_s).tobytes())
    print(json.dumps(said))


if __name__ == "__main__":
    main()
