"""The end of a connection under TLS, whose transport hides what lies below it; real sockets, a clock in hand."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from accelserve.frontends.http_policy import HttpLimits
from accelserve.frontends.http_protocol import HttpConnectionPolicy, HttpProtocol, protocol_class
from accelserve.frontends.http_timers import Outlet, WriteWatch
from fake_http import FakeLoop, FakeTransport


class SecureTransport(FakeTransport):
    """As uvloop's under TLS: it has handed everything on, and knows of nothing below."""

    def __init__(self, below: socket.socket | None) -> None:
        super().__init__()
        self.below = below

    def get_extra_info(self, name, default=None):
        return {"socket": self.below, "sslcontext": True}.get(name, default)

    def can_write_eof(self) -> bool:
        return False


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(ours, the client's), over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with client, ours:
        ours.setblocking(False)
        yield ours, client


def fill(ours: socket.socket) -> None:
    """Until neither side of the connection takes more."""
    try:
        while True:
            ours.send(bytes(2**16))
    except BlockingIOError:
        return


def drain(client: socket.socket, ours: socket.socket) -> None:
    client.settimeout(0.2)
    try:
        while client.recv(2**20):
            pass
    except TimeoutError:
        return


def test_an_outlet_tells_what_the_client_has_not_taken_and_what_it_sent(pair):
    ours, client = pair
    outlet = Outlet(SecureTransport(ours))
    assert (outlet.unsent_bytes(), outlet.unread_bytes(), outlet.taken_bytes()) == (0, 0, 0)
    fill(ours)
    client.sendall(b"12345")
    assert outlet.unsent_bytes() > 0
    assert outlet.unread_bytes() == 5
    drain(client, ours)
    assert outlet.unsent_bytes() == 0


@pytest.mark.parametrize("below", [None, "closed"])
def test_an_outlet_that_is_closed_holds_nothing(pair, below):
    if below == "closed":
        pair[0].close()
    outlet = Outlet(SecureTransport(None if below is None else pair[0]))
    assert (outlet.unsent_bytes(), outlet.unread_bytes(), outlet.taken_bytes()) == (0, 0, 0)


def test_who_takes_nothing_of_what_lies_below_the_transport_is_given_up(pair):
    ours, client = pair

    async def main() -> None:
        loop, transport = FakeLoop(), SecureTransport(ours)
        watch = WriteWatch(loop, transport, 30.0, Outlet(transport))
        fill(ours)
        watch.start()
        loop.advance(29)
        client.recv(2**20)
        while Outlet(transport).unsent_bytes() == 0:
            fill(ours)
        loop.advance(2)
        assert not transport.aborted
        loop.advance(31)
        assert transport.aborted

    asyncio.run(main())


def closing(ours: socket.socket) -> tuple[FakeLoop, SecureTransport]:
    """A kept connection that is closed because the server ends."""
    policy = HttpConnectionPolicy(HttpLimits())
    loop, transport = FakeLoop(), SecureTransport(ours)
    config = Config(None, http=protocol_class(policy), log_config=None, lifespan="off", ws="none")
    protocol: HttpProtocol = config.http(config, ServerState(), {}, _loop=loop)
    protocol.connection_made(transport)
    protocol.shutdown()
    assert transport.closed
    return loop, transport


def test_a_client_that_has_taken_all_has_a_second_to_say_goodbye(pair):
    async def main() -> None:
        loop, transport = closing(pair[0])
        loop.advance(0.9)
        assert not transport.aborted
        loop.advance(0.2)
        assert transport.aborted

    asyncio.run(main())


def test_a_client_that_still_reads_is_waited_for(pair):
    ours, client = pair

    async def main() -> None:
        fill(ours)
        loop, transport = closing(ours)
        loop.advance(10)
        assert not transport.aborted
        drain(client, ours)
        loop.advance(1.1)
        assert transport.aborted

    asyncio.run(main())
