"""All that is relied on of grpcio's private interface, asked through its public client. Breaks where grpcio changes."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import grpc
import pytest
import uvloop
from grpc_health.v1 import health_pb2

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.grpc_core import CoreCall, CoreServer, Handlers, Porter, Streaming, Unary
from accelserve.frontends.grpc_server import listen
from accelserve.frontends.tls import Tls, TlsFiles, read_identity
from certificates import authority, signed

OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2**20))
PATIENCE_S = 20.0
Code = grpc.StatusCode


def serve(
    handlers: Handlers,
    asks: Callable[[grpc.Channel], None],
    grace_s: float = PATIENCE_S,
    porter: Porter | None = None,
) -> None:
    """Run `asks` on a thread, with a channel to a server on a loop of its own that is stopped afterwards."""

    async def main() -> None:
        server = CoreServer(handlers, OPTIONS, porter=porter)
        port = listen(server, "127.0.0.1", 0)
        await server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                await asyncio.to_thread(asks, channel)
        finally:
            await server.stop(grace_s)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 60))


async def echo(call: CoreCall, data: bytes) -> None:
    call.answer(data)


class Stuck:
    """A handler that never answers; says when it has begun and when it was cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.left_s: float | None = None

    async def __call__(self, call: CoreCall, data: bytes) -> None:
        self.left_s = call.time_left_s()
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def ask(channel: grpc.Channel, path: str, data: bytes = b"") -> bytes:
    answer: bytes = channel.unary_unary(path)(data, timeout=PATIENCE_S)
    return answer


@contextmanager
def refused(code: grpc.StatusCode, text: str = "") -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() is code
    assert text in caught.value.details()


@pytest.mark.parametrize("size", [0, 1, 600_000])
def test_an_answer_brings_back_what_was_asked(size):
    def asks(channel: grpc.Channel) -> None:
        assert ask(channel, "/s/Echo", bytes(size)) == bytes(size)

    serve({"/s/Echo": Unary(echo)}, asks)


def test_of_many_calls_at_once_each_gets_its_own_answer():
    def asks(channel: grpc.Channel) -> None:
        method = channel.unary_unary("/s/Echo")
        calls = [method.future(b"%d" % i, timeout=PATIENCE_S) for i in range(500)]
        assert [call.result() for call in calls] == [b"%d" % i for i in range(500)]

    serve({"/s/Echo": Unary(echo)}, asks)


def test_metadata_comes_in_and_trails_the_answer():
    async def handle(call: CoreCall, data: bytes) -> None:
        call.answer(b"", (("x-told", call.metadata()["x-asked"]), ("x-more", "1")))

    def asks(channel: grpc.Channel) -> None:
        _, call = channel.unary_unary("/s/M").with_call(b"", timeout=PATIENCE_S, metadata=(("x-asked", "this"),))
        assert dict(call.trailing_metadata()) == {"x-told": "this", "x-more": "1"}
        assert call.code() is Code.OK

    serve({"/s/M": Unary(handle)}, asks)


def test_a_refusal_has_code_text_and_metadata():
    async def handle(call: CoreCall, data: bytes) -> None:
        call.refuse(Code.NOT_FOUND, "nicht da: für keinen", (("x-reason", "gone"),))

    def asks(channel: grpc.Channel) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, "/s/M")
        assert (caught.value.code(), caught.value.details()) == (Code.NOT_FOUND, "nicht da: für keinen")
        assert dict(caught.value.trailing_metadata())["x-reason"] == "gone"

    serve({"/s/M": Unary(handle)}, asks)


def test_a_method_that_is_not_there_is_unimplemented_again_and_again():
    def asks(channel: grpc.Channel) -> None:
        for _ in range(3):
            with refused(Code.UNIMPLEMENTED):
                ask(channel, "/s/Other")

    serve({"/s/Echo": Unary(echo)}, asks)


def test_a_call_without_a_message_is_unimplemented():
    def asks(channel: grpc.Channel) -> None:
        with refused(Code.UNIMPLEMENTED, "wants one message"):
            channel.stream_unary("/s/Echo")(iter(()), timeout=PATIENCE_S)

    serve({"/s/Echo": Unary(echo)}, asks)


def test_a_message_over_the_limit_is_refused_by_its_length():
    def asks(channel: grpc.Channel) -> None:
        with refused(Code.RESOURCE_EXHAUSTED, str(2**20)):
            ask(channel, "/s/Echo", bytes(2**20 + 1))
        assert ask(channel, "/s/Echo", b"still there") == b"still there"

    serve({"/s/Echo": Unary(echo)}, asks)


def test_bytes_that_are_no_message_are_the_callers_fault_and_not_logged(caplog):
    async def check(call: CoreCall, data: bytes) -> None:
        call.answer(health_pb2.HealthCheckRequest.FromString(data).service.encode())

    def asks(channel: grpc.Channel) -> None:
        with refused(Code.INVALID_ARGUMENT):
            ask(channel, "/s/Check", b"\xff\xff")
        assert ask(channel, "/s/Check", b"\x0a\x01a") == b"a"

    serve({"/s/Check": Unary(check)}, asks)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_handler_that_fails_or_forgets_to_answer_ends_its_own_call_and_no_other():
    async def fails(call: CoreCall, data: bytes) -> None:
        raise ValueError("no")

    async def forgets(call: CoreCall, data: bytes) -> None:
        pass

    def asks(channel: grpc.Channel) -> None:
        for path in ("/s/Fails", "/s/Forgets"):
            with refused(Code.INTERNAL):
                ask(channel, path)
        assert ask(channel, "/s/Echo", b"a") == b"a"

    serve({"/s/Fails": Unary(fails), "/s/Forgets": Unary(forgets), "/s/Echo": Unary(echo)}, asks)


def test_a_client_that_goes_away_cancels_its_handler():
    stuck = Stuck()

    def asks(channel: grpc.Channel) -> None:
        call = channel.unary_unary("/s/Stuck").future(b"")
        assert stuck.begun.wait(PATIENCE_S)
        call.cancel()
        assert stuck.cancelled.wait(PATIENCE_S)

    serve({"/s/Stuck": Unary(stuck)}, asks)
    assert stuck.left_s is None


def test_a_deadline_is_known_and_cancels_the_handler_when_it_passes():
    stuck = Stuck()

    def asks(channel: grpc.Channel) -> None:
        with refused(Code.DEADLINE_EXCEEDED):
            channel.unary_unary("/s/Stuck")(b"", timeout=0.5)
        assert stuck.cancelled.wait(PATIENCE_S)

    serve({"/s/Stuck": Unary(stuck)}, asks)
    assert stuck.left_s is not None
    assert 0 < stuck.left_s <= 0.55  # the client rounds what it sends up


def test_a_stopping_server_waits_for_what_runs():
    go_on = threading.Event()
    answers: list[bytes] = []

    async def slow(call: CoreCall, data: bytes) -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait, PATIENCE_S)
        call.answer(b"late")

    begun = threading.Event()

    async def main() -> None:
        server = CoreServer({"/s/Slow": Unary(slow)}, OPTIONS)
        port = listen(server, "127.0.0.1", 0)
        await server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/s/Slow").future(b"", timeout=PATIENCE_S)
            await asyncio.to_thread(begun.wait, PATIENCE_S)
            stopping = asyncio.create_task(server.stop(PATIENCE_S))
            await asyncio.sleep(0)
            go_on.set()
            answers.append(await asyncio.to_thread(call.result))
            await stopping

    asyncio.run(asyncio.wait_for(main(), 60))
    assert answers == [b"late"]


def test_what_outlasts_the_grace_is_told_that_the_server_is_unavailable():
    stuck = Stuck()
    ends: list[grpc.Future] = []

    def asks(channel: grpc.Channel) -> None:
        call = channel.unary_unary("/s/Stuck").future(b"")
        assert stuck.begun.wait(PATIENCE_S)
        ended = threading.Event()
        call.add_done_callback(lambda _: ended.set())
        ends.append(call)

    async def main() -> None:
        server = CoreServer({"/s/Stuck": Unary(stuck)}, OPTIONS)
        port = listen(server, "127.0.0.1", 0)
        await server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.to_thread(asks, channel)
            await server.stop(0.0)
            assert await asyncio.to_thread(ends[0].code) is Code.UNAVAILABLE

    asyncio.run(asyncio.wait_for(main(), 60))
    assert stuck.cancelled.is_set()


def test_a_call_that_fails_on_its_way_in_leaves_the_others_alone(monkeypatch, caplog):
    let_in = CoreServer._let_in

    def fails_once(server: CoreServer, *come: object) -> None:
        monkeypatch.setattr(CoreServer, "_let_in", let_in)
        raise MemoryError

    def asks(channel: grpc.Channel) -> None:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/s/Echo")(b"lost", timeout=0.2)
        assert ask(channel, "/s/Echo", b"answered") == b"answered"

    monkeypatch.setattr(CoreServer, "_let_in", fails_once)
    serve({"/s/Echo": Unary(echo)}, asks)
    assert "MemoryError" in caplog.text


def test_a_stream_takes_and_gives_messages_in_turn():
    async def doubles(call: CoreCall) -> None:
        while (data := await call.receive()) is not None:
            await call.send(data * 2)
        call.finish()

    def asks(channel: grpc.Channel) -> None:
        answers = channel.stream_stream("/s/Doubles")(iter([b"a", b"b", b""]), timeout=PATIENCE_S)
        assert list(answers) == [b"aa", b"bb", b""]
        assert answers.code() is Code.OK

    serve({"/s/Doubles": Streaming(doubles)}, asks)


def test_a_stream_whose_client_goes_away_is_cancelled():
    gone = threading.Event()

    async def endless(call: CoreCall) -> None:
        try:
            await call.receive()
            await call.send(b"first")
            await asyncio.get_running_loop().create_future()
        finally:
            gone.set()

    def asks(channel: grpc.Channel) -> None:
        answers = channel.unary_stream("/s/Endless")(b"")
        assert next(answers) == b"first"
        answers.cancel()
        assert gone.wait(PATIENCE_S)

    serve({"/s/Endless": Streaming(endless)}, asks)


def test_a_taken_port_is_refused():
    async def main() -> None:
        first, second = (CoreServer({}, OPTIONS) for _ in range(2))
        port = listen(first, "127.0.0.1", 0)
        await first.start()
        with pytest.raises(ScoringError, match=str(port)) as caught:
            listen(second, "127.0.0.1", port)
        assert caught.value.kind is Kind.CONFLICT
        await first.stop(0.0)

    asyncio.run(main())


class Doorman:
    """Lets in whoever knows the word."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.turned_away: list[Exception] = []

    def refusal(self, path: str, metadata: Iterable[tuple[str, str]]) -> Exception | None:
        self.asked.append(path)
        return None if ("word", "sesame") in [tuple(pair) for pair in metadata] else ScoringError(Kind.FORBIDDEN, "no")

    def turn_away(self, call: CoreCall, error: ScoringError) -> None:
        self.turned_away.append(error)
        call.refuse(Code.PERMISSION_DENIED, error.message, [("why", error.reason)])


def test_a_porter_turns_calls_away_before_their_message_is_read():
    porter, seen = Doorman(), []

    async def keeps(call: CoreCall, data: bytes) -> None:
        seen.append(data)
        call.answer(data)

    async def streams(call: CoreCall) -> None:
        seen.append(await call.receive())
        call.finish()

    def asks(channel: grpc.Channel) -> None:
        for path in ("/s/Keeps", "/s/Unknown"):
            with refused(Code.PERMISSION_DENIED, "no"):
                channel.unary_unary(path)(bytes(10**6), timeout=PATIENCE_S)
        with refused(Code.PERMISSION_DENIED, "no"):
            list(channel.stream_stream("/s/Streams")(iter([b"a"]), timeout=PATIENCE_S))
        word = (("word", "sesame"),)
        assert channel.unary_unary("/s/Keeps")(b"in", timeout=PATIENCE_S, metadata=word) == b"in"
        with refused(Code.UNIMPLEMENTED):
            channel.unary_unary("/s/Unknown")(b"", timeout=PATIENCE_S, metadata=word)

    serve({"/s/Keeps": Unary(keeps), "/s/Streams": Streaming(streams)}, asks, porter=porter)
    assert seen == [b"in"]
    assert len(porter.turned_away) == 3
    assert porter.asked == ["/s/Keeps", "", "/s/Streams", "/s/Keeps", ""]


def test_a_porter_that_fails_lets_nobody_in(caplog):
    class Broken(Doorman):
        def refusal(self, path: str, metadata: Iterable[tuple[str, str]]) -> Exception | None:
            raise MemoryError

    def asks(channel: grpc.Channel) -> None:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/s/Echo")(b"", timeout=0.2)

    serve({"/s/Echo": Unary(echo)}, asks, grace_s=0.0, porter=Broken())
    assert "MemoryError" in caplog.text


def test_a_renewed_certificate_is_used_by_the_next_connection(tmp_path):
    """The fetcher of grpcio's dynamic credentials, asked at each handshake."""
    ca = authority(tmp_path)
    before, after = signed(ca, tmp_path, "before"), signed(ca, tmp_path, "after")
    identities = [read_identity(TlsFiles(pair.cert, pair.key)) for pair in (before, after)]
    tls = Tls(identities[0])
    roots = ca.cert.read_bytes()

    def name_at(port: int) -> str:
        context = ssl.create_default_context(cafile=ca.cert)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            return dict(pair[0] for pair in client.getpeercert()["subject"])["commonName"]

    async def main() -> None:
        server = CoreServer({"/s/Echo": Unary(echo)}, OPTIONS)
        port = listen(server, "127.0.0.1", 0, tls)
        await server.start()
        with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(roots)) as channel:
            assert await asyncio.to_thread(ask, channel, "/s/Echo", b"first") == b"first"
            assert await asyncio.to_thread(name_at, port) == "before"
            tls.replace(identities[1])
            assert [await asyncio.to_thread(name_at, port) for _ in range(3)] == ["after"] * 3
            assert await asyncio.to_thread(ask, channel, "/s/Echo", b"kept") == b"kept"
        await server.stop(0.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 60))
