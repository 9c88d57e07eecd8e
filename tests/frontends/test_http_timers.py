"""A connection's deadline, and whether its client takes what is written; real sockets, a clock in hand."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from accelserve.frontends.http_timers import Outlet, Patience, Wait, WriteWatch
from fake_http import FakeLoop
from secure_transport import SecureTransport, connected, drain, fill


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with connected() as both:
        yield both


def patience_and_log():
    loop, passed = FakeLoop(), []
    patience = Patience(loop, lambda: passed.append(patience.what))
    return loop, patience, passed


def test_a_deadline_passes_once_and_tells_what_it_was_for():
    loop, patience, passed = patience_and_log()
    patience.wait(Wait.HEAD, 10)
    loop.advance(9)
    assert passed == []
    loop.advance(100)
    assert passed == [Wait.HEAD]


def test_a_deadline_that_moves_later_sets_no_timer_and_one_that_moves_earlier_is_kept():
    loop, patience, passed = patience_and_log()
    patience.wait(Wait.HEAD, 10)
    patience.wait(Wait.BODY, 30)
    assert len(loop.timers) == 1
    loop.advance(29)
    assert passed == []
    patience.wait(Wait.IDLE, 0.5)
    loop.advance(0.6)
    assert passed == [Wait.IDLE]


def test_who_rests_waits_for_nothing():
    loop, patience, passed = patience_and_log()
    patience.wait(Wait.BODY, 10)
    patience.rest()
    assert patience.what is Wait.NOTHING
    loop.advance(100)
    assert passed == []


def test_an_outlet_tells_what_the_client_has_not_taken_and_what_it_sent(pair):
    ours, client = pair
    outlet = Outlet(SecureTransport(ours))
    assert (outlet.unsent_bytes(), outlet.unread_bytes(), outlet.taken_bytes()) == (0, 0, 0)
    fill(ours)
    client.sendall(b"12345")
    assert outlet.unsent_bytes() > 0
    assert outlet.unread_bytes() == 5
    drain(client)
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
