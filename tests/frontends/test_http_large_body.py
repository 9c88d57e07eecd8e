"""Large bodies of known heads, received in place: a connection keeps its rules while somebody else reads for it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import contextmanager

from accelserve.errors import Kind
from accelserve.frontends.http_body import BodyMemory, BodyReader
from http_cases import Case
from http_service import FAST, Connection, Service, serving
from http_streams import HOT, split_head

ROWS = 5500
BODY = json.dumps({"instances": [[row, 0.5] for row in range(ROWS)]}).encode()
LARGE = Case("", "POST", "/v1/models/double:predict", BODY).bytes()
HEAD, _ = split_head(LARGE)
PIECES = [LARGE[at : at + 20_000] for at in range(0, len(LARGE), 20_000)]
LONG_S = 1000.0


def in_place(test: Callable[[Service, Connection], Awaitable[None]]) -> Callable[..., None]:
    """The test gets a connection that knows the head."""

    def run(tmp_path) -> None:
        async def main() -> None:
            async with serving(tmp_path, FAST) as service:
                connection = service.connect()
                doubled(await connection.send(*PIECES))
                await test(service, connection)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


def doubled(answer: bytes) -> None:
    head, body = split_head(answer)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["predictions"] == [[2.0 * row, 1.0] for row in range(ROWS)]


def nothing_set_aside(service: Service) -> bool:
    return service.policy.bodies._left_bytes == BodyMemory()._left_bytes


@contextmanager
def beginning(service: Service, connection: Connection):
    """In mid-body."""
    connection.wire.send(PIECES[0])
    connection.wire.send(PIECES[1])
    assert isinstance(connection.wire.get_protocol(), BodyReader)
    assert not nothing_set_aside(service)
    yield
    assert nothing_set_aside(service)


@in_place
async def test_a_body_that_comes_in_pieces_is_answered(service, connection):
    with beginning(service, connection):
        doubled(await connection.send(*PIECES[2:]))
    doubled(await connection.send(HEAD, LARGE[len(HEAD) :]))


@in_place
async def test_what_comes_behind_a_body_is_the_next_request(service, connection):
    with beginning(service, connection):
        answer = await connection.send(b"".join(PIECES[2:]) + HOT + LARGE)
    first, behind = answer[: answer.index(b"HTTP/1.1", 1)], answer[answer.index(b"HTTP/1.1", 1) :]
    doubled(first)
    assert b"[[16.0,18.0]]" in behind
    doubled(behind[behind.index(b"HTTP/1.1", 1) :])


@in_place
async def test_a_small_request_follows_on_the_same_connection(service, connection):
    with beginning(service, connection):
        doubled(await connection.send(*PIECES[2:]))
    for _ in range(3):
        assert b"[[16.0,18.0]]" in await connection.send(HOT)


@in_place
async def test_silence_in_mid_body_is_told_and_the_rest_thrown_away(service, connection):
    with beginning(service, connection):
        before = len(connection.wire.written)
        connection.loop.advance(LONG_S)
        await connection.settle()
        assert connection.wire.written[before:].startswith(b"HTTP/1.1 408 ")
    assert service.told == [Kind.READ_TIMEOUT]
    assert await connection.send(*PIECES[2:]) == b""


@in_place
async def test_a_slow_body_is_waited_for_as_long_as_it_comes(service, connection):
    pause_s = service.policy.limits.body_timeout_s - 1
    with beginning(service, connection):
        for piece in PIECES[2:-1]:
            connection.loop.advance(pause_s)
            connection.wire.send(piece)
        connection.loop.advance(pause_s)
        doubled(await connection.send(PIECES[-1]))
    assert service.told == []


@in_place
async def test_a_client_that_leaves_in_mid_body_is_counted_once(service, connection):
    with beginning(service, connection):
        connection.wire.get_protocol().connection_lost(None)
    assert service.told == [Kind.CANCELLED]


@in_place
async def test_a_server_that_stops_waits_for_the_body_that_has_begun(service, connection):
    with beginning(service, connection):
        connection.protocol.shutdown()
        assert not connection.wire.closed
        answer = await connection.send(*PIECES[2:])
        doubled(answer)
        assert b"connection: close" in split_head(answer)[0]
    assert connection.wire.closed


@in_place
async def test_without_memory_to_set_aside_the_answer_is_the_same(service, connection):
    service.policy.bodies = BodyMemory(ahead_bytes=1000)
    doubled(await connection.send(*PIECES))
    assert connection.wire.get_protocol() is connection.protocol


@in_place
async def test_a_client_that_does_not_read_gets_its_answer_when_it_reads_again(service, connection):
    with beginning(service, connection):
        connection.wire.stop_reading()
        assert await connection.send(*PIECES[2:]) == b""
    before = len(connection.wire.written)
    connection.wire.read_on()
    await connection.settle()
    doubled(connection.wire.written[before:])


@in_place
async def test_nothing_leads_from_a_lost_connection_to_its_reader(service, connection):
    with beginning(service, connection):
        connection.wire.get_protocol().connection_lost(None)
    assert connection.protocol._reader is None
