"""Limits and disconnects over real sockets, on both event loops: what a client really gets to read."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import uvicorn

from accelserve.errors import Kind
from accelserve.frontends.http_protocol import HttpConnectionPolicy, HttpLimits, protocol_class

LIMITS = HttpLimits(max_body_bytes=2**20, header_timeout_s=0.3, body_timeout_s=0.3, keep_alive_s=0.3, linger_s=5.0)
PATIENCE_S = 10.0


@dataclass
class App:
    """Echoes the body's length; /refuse answers unread; /wait hangs until it is cancelled."""

    waiting: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope, receive, send) -> None:
        if scope["path"] == "/wait":
            await self.hang()
        status, length = (401, 0) if scope["path"] == "/refuse" else (200, await self.length(receive))
        body = b"%d bytes" % length
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def length(self, receive) -> int:
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message["body"])
            more = message["more_body"]
        return length

    async def hang(self) -> None:
        self.waiting.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@dataclass
class Served:
    address: tuple[str, int]
    app: App
    refused: list[Kind]

    @contextlib.contextmanager
    def client(self) -> Iterator[socket.socket]:
        with socket.create_connection(self.address, timeout=PATIENCE_S) as client:
            yield client


@pytest.fixture(params=["asyncio", "uvloop"])
def served(request) -> Iterator[Served]:
    app, refused = App(), []
    policy = HttpConnectionPolicy(LIMITS, refused=refused.append)
    config = uvicorn.Config(
        app, http=protocol_class(policy), loop=request.param, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Served(listener.getsockname(), app, refused)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def read_all(client: socket.socket) -> bytes:
    """Until the server closes; a reset raises."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_until(client: socket.socket, end: bytes) -> bool:
    """False when the server closed before it said `end`."""
    got = b""
    while not got.endswith(end):
        part = client.recv(65536)
        if not part:
            return False
        got += part
    return True


def test_a_client_that_sends_a_large_body_without_listening_still_reads_its_413(served):
    with served.client() as client:
        size = 100 * 2**20
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        piece = b"x" * 2**20
        for _ in range(size // len(piece)):
            client.sendall(piece)
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"x-accelserve-reason: too_large\r\n" in answer
    assert served.refused == [Kind.TOO_LARGE]


def test_a_client_whose_body_the_application_does_not_want_still_reads_the_answer(served):
    with served.client() as client:
        client.sendall(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        client.sendall(b"x" * 1_000_000)
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in answer


def test_endless_headers_are_431(served):
    with served.client() as client:
        client.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 10**6)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_half_a_body_and_silence_is_408(served):
    with served.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    assert served.refused == [Kind.READ_TIMEOUT]


def test_silence_from_the_start_is_closed_without_a_word(served):
    with served.client() as client:
        assert read_all(client) == b""


def test_a_body_of_a_megabyte_goes_through_and_the_connection_stays_for_a_while(served):
    with served.client() as client:
        for _ in range(2):
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n" + b"x" * 2**20)
            assert read_until(client, b"1048576 bytes")
        assert read_all(client) == b""


def test_a_disconnect_cancels_the_application(served):
    with served.client() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        assert served.app.waiting.wait(PATIENCE_S)
    assert served.app.cancelled.wait(PATIENCE_S)
