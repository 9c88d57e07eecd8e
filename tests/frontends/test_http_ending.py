"""The end of a connection: its last answer arrives, and a client that is silent does not keep it open."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from accelserve.frontends.http_ending import Ending
from accelserve.frontends.http_policy import HttpLimits
from accelserve.frontends.http_timers import Patience, Wait
from fake_http import FakeLoop, FakeTransport
from secure_transport import SecureTransport, connected, drain, fill

LIMITS = HttpLimits(linger_s=10, linger_bytes=100)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with connected() as both:
        yield both


def ending_of(loop: FakeLoop, transport: FakeTransport, *, is_tls: bool = False) -> tuple[Ending, Patience]:
    patience = Patience(loop, lambda: ending.goodbye_overdue())
    ending = Ending(loop, transport, FlowControl(transport), patience, LIMITS, is_tls)
    return ending, patience


def closing(ours: socket.socket) -> tuple[FakeLoop, SecureTransport]:
    """A connection under TLS that is closed."""
    loop, transport = FakeLoop(), SecureTransport(ours)
    ending_of(loop, transport, is_tls=True)[0].close()
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
        drain(client)
        loop.advance(1.1)
        assert transport.aborted

    asyncio.run(main())


def test_without_tls_nothing_is_waited_for_once_it_is_closed():
    transport = FakeTransport()
    ending, patience = ending_of(FakeLoop(), transport)
    ending.close()
    assert transport.closed
    assert patience.what is Wait.NOTHING


def test_a_client_that_may_be_sending_hears_that_nothing_follows_and_is_listened_to():
    transport = FakeTransport()
    ending, patience = ending_of(FakeLoop(), transport)
    ending.linger()
    assert (transport.ended, transport.closed, patience.what) == (True, False, Wait.LINGER)


def test_a_client_that_sends_without_end_after_its_last_answer_is_cut_off():
    transport = FakeTransport()
    ending, _ = ending_of(FakeLoop(), transport)
    ending.linger()
    ending.discard(100)
    assert not transport.closed
    ending.discard(1)
    assert (transport.closed, ending.discarded_bytes) == (True, 101)


def test_while_answers_are_owed_it_is_only_read_no_further():
    transport = FakeTransport()
    ending, _ = ending_of(FakeLoop(), transport)
    ending.discard(101)
    assert (transport.closed, transport.paused) == (False, True)


def test_what_the_loop_has_not_read_yet_is_seen(pair):
    ours, client = pair
    ending, _ = ending_of(FakeLoop(), SecureTransport(ours))
    assert ending.is_read()
    client.sendall(b"GET")
    while ending.is_read():
        pass
