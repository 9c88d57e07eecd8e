"""The HTTP connection, driven with bytes: what it answers, what it refuses, and when it gives up."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from accelserve.errors import Kind
from accelserve.frontends.http_protocol import HttpConnectionPolicy, HttpLimits, protocol_class
from fake_http import FakeLoop, FakeTransport

LIMITS = HttpLimits(
    max_request_line_bytes=100,
    max_header_bytes=300,
    max_headers=5,
    max_body_bytes=1000,
    linger_bytes=5000,
    max_queued_requests=4,
)
GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"


class App:
    """Answers each request with its method, path and body, once `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.reads_body = True

    async def __call__(self, scope, receive, send) -> None:
        self.started.append(scope["path"])
        self.headers = list(scope["headers"])
        try:
            body = await self.read(receive) if self.reads_body else b""
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(scope["path"])
            raise
        answer = f"{scope['method']} {scope['path']} ".encode() + body
        length = (b"content-length", str(len(answer)).encode())
        self.headers = scope["headers"]
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})

    async def read(self, receive) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body


class Connection:
    """A protocol with a fake transport and loop around it."""

    def __init__(self, limits: HttpLimits = LIMITS) -> None:
        self.app = App()
        self.refused: list[Kind] = []
        self.policy = HttpConnectionPolicy(limits, refused=self.refused.append)
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        self.state = ServerState()
        config = Config(self.app, http=protocol_class(self.policy), log_config=None, lifespan="off", ws="none")
        self.protocol = config.http(config, self.state, {}, _loop=self.loop)  # type: ignore[operator]
        self.protocol.connection_made(self.transport)

    async def feed(self, *pieces: bytes) -> bytes:
        """Returns what was written in answer."""
        before = len(self.transport.written)
        for piece in pieces:
            self.protocol.data_received(piece)
        await settle()
        return self.transport.written[before:]

    async def advance(self, seconds: float) -> bytes:
        before = len(self.transport.written)
        self.loop.advance(seconds)
        await settle()
        return self.transport.written[before:]

    def lose(self) -> None:
        self.protocol.connection_lost(None)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def asynchronous(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def assert_refused(connection: Connection, answer: bytes, kind: Kind) -> None:
    """Answered once as `kind`, in our form, and half-closed so that the client can still read it."""
    status, headers, body = parse(answer)
    assert status == kind.http_status
    assert headers["x-accelserve-reason"] == kind.reason
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    assert list(json.loads(body)) == ["error"]
    assert connection.transport.ended
    assert not connection.transport.closed
    assert connection.refused == [kind]


# --- the ordinary


@asynchronous
async def test_a_request_is_answered_and_the_connection_stays() -> None:
    c = Connection()
    for _ in range(2):
        status, headers, body = parse(await c.feed(GET))
        assert (status, body) == (200, b"GET /a ")
        assert "connection" not in headers
    assert not c.transport.closed
    assert c.state.total_requests == 2


@asynchronous
async def test_a_request_may_come_byte_by_byte() -> None:
    c = Connection()
    request = b"POST /b%20c?d=e HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nxyz"
    answer = await c.feed(*(request[i : i + 1] for i in range(len(request))))
    assert parse(answer)[2] == b"POST /b c xyz"


@asynchronous
async def test_pipelined_requests_are_answered_in_order() -> None:
    c = Connection()
    answer = await c.feed(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % i for i in range(4)))
    assert [answer.index(b"GET /%d" % i) for i in range(4)] == sorted(answer.index(b"GET /%d" % i) for i in range(4))
    assert not c.transport.closed


@asynchronous
async def test_a_chunked_body_is_joined_and_its_trailers_do_not_become_headers() -> None:
    c = Connection()
    head = b"POST /b HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    answer = await c.feed(head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-key: stolen\r\n\r\n")
    assert parse(answer)[2] == b"POST /b abcde"
    assert [name for name, _ in c.app.headers] == [b"transfer-encoding"]
    assert parse(await c.feed(GET))[0] == 200


@asynchronous
async def test_http_1_0_is_answered_and_closed() -> None:
    c = Connection()
    status, headers, body = parse(await c.feed(b"GET /a HTTP/1.0\r\n\r\n"))
    assert (status, headers["connection"], body) == (200, "close", b"GET /a ")
    assert c.transport.closed


@asynchronous
async def test_connection_close_is_obeyed_and_what_follows_is_not_a_request() -> None:
    c = Connection()
    answer = await c.feed(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    assert parse(answer)[1]["connection"] == "close"
    assert c.app.started == ["/a"]
    assert c.refused == []


@asynchronous
async def test_head_gets_headers_alone() -> None:
    c = Connection()
    status, headers, body = parse(await c.feed(b"HEAD /a HTTP/1.1\r\n\r\n"))
    assert (status, headers["content-length"], body) == (200, "8", b"")


@asynchronous
async def test_100_continue_is_sent_when_the_application_reads() -> None:
    c = Connection()
    head = b"POST /b HTTP/1.1\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
    assert await c.feed(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert parse(await c.feed(b"abc"))[2] == b"POST /b abc"


@asynchronous
async def test_an_upgrade_is_answered_as_if_it_had_not_been_asked_for() -> None:
    c = Connection()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    assert parse(await c.feed(b"GET /a HTTP/1.1\r\n" + upgrade + b"\r\n"))[2] == b"GET /a "
    assert parse(await c.feed(GET))[2] == b"GET /a "


@asynchronous
async def test_the_body_of_a_request_that_asks_for_an_upgrade_is_its_body_and_no_request() -> None:
    c = Connection()
    smuggled = b"GET /evil HTTP/1.1\r\n\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    answer = await c.feed(b"POST /b HTTP/1.1\r\n" + upgrade + smuggled[:5], smuggled[5:] + GET)
    assert c.app.started == ["/b", "/a"]
    assert b"POST /b " + smuggled in answer


# --- sizes


@asynchronous
async def test_a_long_request_line_is_414_while_it_streams_in() -> None:
    c = Connection()
    answer = await c.feed(b"GET /" + b"a" * 50, b"b" * 60)
    assert_refused(c, answer, Kind.URI_TOO_LONG)


@asynchronous
async def test_a_request_line_of_just_the_limit_is_fine() -> None:
    line = b"GET /" + b"a" * (100 - len("GET / HTTP/1.1")) + b" HTTP/1.1"
    assert len(line) == LIMITS.max_request_line_bytes
    assert parse(await Connection().feed(line + b"\r\n\r\n"))[0] == 200
    c = Connection()
    assert_refused(c, await c.feed(line.replace(b"/a", b"/aa") + b"\r\n\r\n"), Kind.URI_TOO_LONG)


@asynchronous
async def test_too_many_headers_are_431() -> None:
    five = b"GET /a HTTP/1.1\r\n" + b"a: b\r\n" * 5
    assert parse(await Connection().feed(five + b"\r\n"))[0] == 200
    c = Connection()
    assert_refused(c, await c.feed(five + b"a: b\r\n\r\n"), Kind.HEADERS_TOO_LARGE)


@asynchronous
async def test_long_headers_are_431_in_one_piece() -> None:
    c = Connection()
    assert_refused(c, await c.feed(b"GET /a HTTP/1.1\r\na: " + b"b" * 300 + b"\r\n\r\n"), Kind.HEADERS_TOO_LARGE)


@asynchronous
async def test_a_header_that_never_ends_is_431() -> None:
    c = Connection()
    assert await c.feed(b"GET /a HTTP/1.1\r\na: ", b"b" * 200) == b""
    assert_refused(c, await c.feed(b"b" * 200), Kind.HEADERS_TOO_LARGE)


@asynchronous
async def test_a_header_that_never_ends_is_431_behind_a_large_request_too() -> None:
    c = Connection()
    large = b"POST /b HTTP/1.1\r\ncontent-length: 900\r\n\r\n" + b"x" * 900
    answer = await c.feed(large + b"GET /a HTTP/1.1\r\na: ")
    assert parse(answer)[0] == 200
    assert c.refused == []
    assert await c.feed(b"b" * 250) == b""
    assert_refused(c, await c.feed(b"b" * 100), Kind.HEADERS_TOO_LARGE)


@asynchronous
async def test_a_request_without_body_behind_a_large_one_is_not_too_large() -> None:
    c = Connection()
    large = b"POST /b HTTP/1.1\r\ncontent-length: 900\r\n\r\n" + b"x" * 900
    await c.feed(large + b"POST /c HTTP/1.1\r\ncontent-length: 1\r\n\r\n")
    await c.feed(b"y")
    assert c.refused == []
    assert c.app.started == ["/b", "/c"]


@pytest.mark.parametrize("where", [b"3;x=", b"0\r\nx: "])
def test_a_chunk_extension_or_trailer_that_never_ends_is_431(where: bytes) -> None:
    @asynchronous
    async def run() -> None:
        c = Connection()
        await c.feed(b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", where)
        assert_refused(c, await c.feed(b"y" * 250, b"y" * 250), Kind.HEADERS_TOO_LARGE)
        assert c.app.cancelled == ["/b"]

    run()


@asynchronous
async def test_headers_do_not_count_against_what_frames_the_body() -> None:
    c = Connection()
    await c.feed(b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\na: " + b"b" * 250 + b"\r\n\r\n")
    answer = await c.feed(b"3;x=" + b"y" * 200, b"\r\nabc\r\n0\r\n\r\n")
    assert parse(answer)[2] == b"POST /b abc"


@asynchronous
async def test_a_large_content_length_is_413_before_the_body_and_before_100_continue() -> None:
    c = Connection()
    head = b"POST /b HTTP/1.1\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n"
    assert_refused(c, await c.feed(head), Kind.TOO_LARGE)
    assert c.app.started == []


@asynchronous
async def test_a_body_of_just_the_limit_is_fine() -> None:
    c = Connection()
    answer = await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000)
    assert parse(answer)[2] == b"POST /b " + b"x" * 1000


@asynchronous
async def test_a_chunked_body_that_grows_over_the_limit_is_413_and_the_application_is_stopped() -> None:
    c = Connection()
    await c.feed(b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    assert c.app.started == ["/b"]
    assert_refused(c, await c.feed(b"1\r\ny\r\n"), Kind.TOO_LARGE)
    assert c.app.cancelled == ["/b"]


@pytest.mark.parametrize(
    ("request_bytes", "kind"),
    [
        (b"\x16\x03\x01\x02\x00\x01", Kind.MALFORMED),  # TLS
        (b"GET /a HTTP/1.1\r\nbad header\r\n\r\n", Kind.MALFORMED),
        (b"GET /a\r\n\r\n", Kind.MALFORMED),
        (b"GET /a HTTP/2.0\r\n\r\n", Kind.MALFORMED),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Kind.MALFORMED),
        (b"GET /\xff HTTP/1.1\r\n\r\n", Kind.MALFORMED),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", Kind.MALFORMED),
        (b"POST /a HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n", Kind.MALFORMED),
        (b"POST /a HTTP/1.1\r\ncontent-length: -1\r\n\r\n", Kind.MALFORMED),
        (b"POST /a HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Kind.MALFORMED),
        (b"POST /a HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", Kind.MALFORMED),
        (b"POST /a HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Kind.UNSUPPORTED),
    ],
)
def test_what_is_not_http_is_refused(request_bytes: bytes, kind: Kind) -> None:
    @asynchronous
    async def run() -> None:
        c = Connection()
        assert_refused(c, await c.feed(request_bytes), kind)
        assert c.app.started == []

    run()


@asynchronous
async def test_a_broken_chunk_is_400() -> None:
    c = Connection()
    await c.feed(b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    assert_refused(c, await c.feed(b"zz\r\n"), Kind.MALFORMED)


@asynchronous
async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    c = Connection()
    c.app.gate.clear()
    assert await c.feed(GET + GET + b"garbage\r\n\r\n") == b""
    c.app.gate.set()
    await settle()
    first, second, refusal = c.transport.written.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200")
    assert second.startswith(b"200")
    assert b"connection: close" not in first + second
    assert_refused(c, b"HTTP/1.1 " + refusal, Kind.MALFORMED)


@asynchronous
async def test_a_queued_request_whose_body_breaks_is_refused_in_its_turn() -> None:
    c = Connection()
    c.app.gate.clear()
    await c.feed(GET + GET + b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    c.app.gate.set()
    await settle()
    assert c.app.started == ["/a", "/a"]
    assert_refused(c, c.transport.written[c.transport.written.index(b"HTTP/1.1 400") :], Kind.MALFORMED)


@asynchronous
async def test_more_pipelined_requests_than_may_wait_are_left_unread_and_the_last_answer_says_so() -> None:
    c = Connection()
    c.app.gate.clear()
    await c.feed(GET * 20)
    c.app.gate.set()
    await asyncio.sleep(0)
    for _ in range(5):
        await settle()
    answers = c.transport.written.split(b"HTTP/1.1 ")[1:]
    assert len(answers) == 1 + LIMITS.max_queued_requests
    assert [b"connection: close" in a for a in answers] == [False] * 4 + [True]
    assert c.transport.ended
    assert c.refused == []


# --- closing so that the answer arrives


@asynchronous
async def test_what_a_refused_client_still_sends_is_thrown_away_for_a_while() -> None:
    c = Connection()
    await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 4000\r\n\r\n")
    assert await c.feed(b"x" * 2000, GET) == b""
    assert not c.transport.closed
    await c.advance(LIMITS.linger_s + 1)
    assert c.transport.closed


@asynchronous
async def test_a_refused_client_that_sends_without_end_is_cut_off() -> None:
    c = Connection()
    await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 4000\r\n\r\n")
    await c.feed(b"x" * LIMITS.linger_bytes)
    assert not c.transport.closed
    await c.feed(b"x")
    assert c.transport.closed


@asynchronous
async def test_an_answer_before_the_body_was_read_is_the_last_and_lingers() -> None:
    c = Connection()
    c.app.reads_body = False
    status, headers, _ = parse(await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 900\r\n\r\n"))
    assert (status, headers["connection"]) == (200, "close")
    assert c.transport.ended
    assert not c.transport.closed
    assert await c.feed(b"x" * 900, GET) == b""
    assert c.refused == []
    await c.advance(LIMITS.linger_s + 1)
    assert c.transport.closed


# --- silence


@asynchronous
async def test_a_connection_that_sends_nothing_is_closed_in_silence() -> None:
    c = Connection()
    assert await c.advance(9.9) == b""
    assert not c.transport.closed
    assert await c.advance(0.2) == b""
    assert c.transport.closed
    assert c.refused == []


@asynchronous
async def test_headers_that_do_not_end_in_time_are_408_however_they_drip() -> None:
    c = Connection()
    await c.feed(b"G")
    for letter in b"ET /a HTT":
        assert await c.advance(1) == b""
        await c.feed(bytes([letter]))
    assert_refused(c, await c.advance(1), Kind.READ_TIMEOUT)


@asynchronous
async def test_each_request_has_its_own_time_for_headers() -> None:
    c = Connection()
    await c.feed(GET[:5])
    await c.advance(9)
    await c.feed(GET[5:] + GET[:5])
    assert await c.advance(9) == b""
    assert_refused(c, await c.advance(1), Kind.READ_TIMEOUT)


@asynchronous
async def test_a_body_may_take_long_but_not_pause_long() -> None:
    c = Connection()
    await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 900\r\n\r\n")
    for _ in range(5):
        assert await c.advance(29) == b""
        await c.feed(b"x")
    assert_refused(c, await c.advance(30), Kind.READ_TIMEOUT)
    assert c.app.cancelled == ["/b"]


@asynchronous
async def test_silence_while_we_do_not_read_is_not_the_clients_fault() -> None:
    c = Connection(HttpLimits())
    c.app.reads_body = False
    c.app.gate.clear()
    await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 90000\r\n\r\n" + b"x" * 70_000)
    assert c.transport.paused
    assert await c.advance(300) == b""
    assert not c.transport.closed
    assert c.refused == []


@asynchronous
async def test_the_clock_starts_anew_when_the_application_asks_for_more() -> None:
    c = Connection(HttpLimits())
    c.app.read = slow_reader(c.app.gate)  # type: ignore[method-assign]
    c.app.gate.clear()
    await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 90000\r\n\r\n" + b"x" * 70_000)
    await c.advance(29)
    c.app.gate.set()
    await settle()
    assert not c.transport.paused
    assert await c.advance(29) == b""
    assert_refused(c, await c.advance(1), Kind.READ_TIMEOUT)


def slow_reader(gate: asyncio.Event):
    async def read(receive) -> bytes:
        await gate.wait()
        while (await receive())["more_body"]:
            pass
        return b""

    return read


@asynchronous
async def test_a_client_that_waits_for_100_continue_is_not_silent() -> None:
    c = Connection()
    c.app.reads_body = False
    c.app.gate.clear()
    await c.feed(b"POST /b HTTP/1.1\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
    await c.advance(300)
    assert c.refused == []


@asynchronous
async def test_a_request_in_the_application_has_all_the_time() -> None:
    c = Connection()
    c.app.gate.clear()
    await c.feed(GET)
    assert await c.advance(1000) == b""
    c.app.gate.set()
    await settle()
    assert parse(c.transport.written)[0] == 200


@asynchronous
async def test_an_idle_connection_is_closed_after_the_keep_alive_time_counted_from_its_last_answer() -> None:
    c = Connection()
    await c.feed(GET)
    await c.advance(70)
    await c.feed(GET)
    await c.advance(74.9)
    assert not c.transport.closed
    await c.advance(0.2)
    assert c.transport.closed


@asynchronous
async def test_bare_line_ends_do_not_keep_an_idle_connection_alive() -> None:
    c = Connection()
    await c.feed(GET)
    await c.advance(74)
    await c.feed(b"\r\n")
    await c.advance(2)
    assert c.transport.closed


@asynchronous
async def test_requests_that_arrive_whole_set_no_timers_of_their_own() -> None:
    c = Connection()
    for _ in range(50):
        await c.feed(GET)
    assert len(c.loop.timers) <= 2


@asynchronous
async def test_a_client_that_takes_nothing_of_its_answer_is_given_up() -> None:
    c = Connection()
    c.transport.unsent_bytes = 100_000
    c.protocol.pause_writing()
    await c.advance(29)
    c.transport.unsent_bytes = 90_000
    await c.advance(29)
    assert not c.transport.aborted
    await c.advance(60)
    assert c.transport.aborted


# --- the client goes


@asynchronous
async def test_a_disconnect_cancels_the_application_without_noise() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addHandler(handler)
    try:
        c = Connection()
        c.app.gate.clear()
        await c.feed(GET)
        c.lose()
        await settle()
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)
    assert c.app.cancelled == ["/a"]
    assert records == []
    assert c.transport.written == b""
    assert c.state.tasks == set()
    assert c.state.connections == set()


@asynchronous
async def test_a_client_that_leaves_in_mid_body_is_counted_once_as_cancelled() -> None:
    c = Connection()
    await c.feed(b"POST /a HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf")
    c.lose()
    await settle()
    assert c.refused == [Kind.CANCELLED]


@asynchronous
async def test_a_client_that_leaves_after_a_whole_request_is_the_applications_to_count() -> None:
    c = Connection()
    await c.feed(b"POST /a HTTP/1.1\r\ncontent-length: 4\r\n\r\nwhol")
    c.lose()
    await settle()
    assert c.refused == []


@asynchronous
async def test_a_disconnect_before_the_application_began_never_starts_it() -> None:
    c = Connection()
    c.protocol.data_received(GET)
    c.lose()
    await settle()
    assert c.app.started == []


@asynchronous
async def test_a_disconnect_ends_the_queued_requests_of_that_connection_and_no_other() -> None:
    c, other = Connection(), Connection()
    for connection in (c, other):
        connection.app.gate.clear()
        await connection.feed(GET * 3)
    c.lose()
    for connection in (c, other):
        connection.app.gate.set()
    for _ in range(3):
        await settle()
    assert c.app.started == ["/a"]
    assert c.transport.written == b""
    assert other.transport.written.count(b"200 OK") == 3


@asynchronous
async def test_a_disconnect_leaves_what_the_application_does_after_its_answer() -> None:
    done = asyncio.Event()
    finish = asyncio.Event()

    async def app(scope, receive, send) -> None:
        await App()(scope, receive, send)
        await finish.wait()
        done.set()

    c = Connection()
    c.protocol.app = app
    await c.feed(GET)
    c.lose()
    finish.set()
    await settle()
    assert done.is_set()


@asynchronous
async def test_no_timer_survives_the_connection() -> None:
    c = Connection()
    await c.feed(GET[:5])
    c.lose()
    assert [t for t in c.loop.timers if not t.cancelled] == []


# --- draining


@asynchronous
async def test_while_draining_an_answer_closes_its_connection() -> None:
    c = Connection()
    await c.feed(GET)
    c.policy.draining = True
    assert parse(await c.feed(GET))[1]["connection"] == "close"
    assert c.transport.closed


@asynchronous
async def test_while_draining_pipelined_requests_are_all_answered_and_the_last_closes() -> None:
    c = Connection()
    c.policy.draining = True
    await c.feed(GET * 3)
    answers = c.transport.written.split(b"HTTP/1.1 ")[1:]
    assert [b"connection: close" in a for a in answers] == [False, False, True]
    assert c.transport.closed


@asynchronous
async def test_while_draining_a_request_that_has_begun_to_arrive_is_still_answered() -> None:
    c = Connection()
    c.policy.draining = True
    c.app.gate.clear()
    await c.feed(GET + GET[:9])
    c.app.gate.set()
    await settle()
    assert not c.transport.closed
    assert parse(await c.feed(GET[9:]))[1]["connection"] == "close"
    assert c.transport.closed


@asynchronous
async def test_idle_connections_are_closed_and_busy_ones_after_their_answer() -> None:
    idle, busy, half = Connection(), Connection(), Connection()
    await idle.feed(GET)
    busy.app.gate.clear()
    await busy.feed(GET)
    await half.feed(GET[:9])
    for c in (idle, busy, half):
        c.protocol.shutdown()
    assert [c.transport.closed for c in (idle, busy, half)] == [True, False, False]
    busy.app.gate.set()
    await settle()
    await half.feed(GET[9:])
    for c in (busy, half):
        assert parse(c.transport.written)[1]["connection"] == "close"
        assert c.transport.closed


@asynchronous
async def test_a_task_cancelled_by_the_servers_shutdown_answers_503() -> None:
    c = Connection()
    c.app.gate.clear()
    await c.feed(GET)
    for task in c.state.tasks:
        task.cancel()
    await settle()
    status, headers, _ = parse(c.transport.written)
    assert (status, headers["x-accelserve-reason"], headers["retry-after"]) == (503, "draining", "1")
