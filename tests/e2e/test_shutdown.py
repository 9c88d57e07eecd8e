"""Opened means closed: SIGTERM under load loses nothing that was accepted, and every way to stop ends with 0."""

import asyncio
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import uvicorn
import uvloop
from grpc_health.v1 import health_pb2
from server_process import Server, end, serving, start, wait_until
from talk import Answer, Calls, Connection, Scrape, ask, in_background, instances, outputs_of, row
from uvicorn.server import ServerState

from accelserve.frontends import http_server
from accelserve.frontends.http_protocol import HttpConnectionPolicy, protocol_class
from model_builders import synthetic_model

DOUBLE = 'behaviour = "double"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
PREDICT = "/v1/models/m:predict"
SLOW = 7.0
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def serving_model(tmp_path: Path, settings: str, *arguments: str) -> Iterator[Server]:
    path = synthetic_model(tmp_path / "m.synthetic.toml", DOUBLE.format(settings=settings))
    with serving(f"--model=m={path}", *arguments, log=tmp_path / "log") as server:
        yield server


def health(server: Server) -> int:
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return health_pb2.HealthCheckResponse.FromString(check(b"", timeout=10)).status


@dataclass
class LoadClient(threading.Thread):
    """Asks on a kept connection for as long as the server lets it connect; follows `Connection: close`.

    outcomes: "answered", "retried" (a kept connection was closed before it was asked: RFC 9112 9.3.1), "wrong", or
    "lost" (a new connection was opened, asked, and closed without an answer).
    """

    port: int
    number: int
    outcomes: Counter = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            while True:
                with Connection(self.port) as connection:
                    self._use(connection)
        except ConnectionRefusedError:
            self.outcomes["refused to connect"] += 1

    def _use(self, connection: Connection) -> None:
        asked = 0
        while True:
            value = self.outcomes.total()
            try:
                answer = connection.ask(PREDICT, instances((self.number, value)))
            except (ConnectionError, TimeoutError) as error:
                self.outcomes["lost" if asked == 0 else "retried"] += 1
                self.losses.append(f"{asked} {error!r}")
                return
            asked += 1
            right = answer.status == 200 and answer.json["predictions"] == [[2.0 * self.number, 2.0 * value]]
            self.outcomes["answered" if right else f"wrong {answer.status}"] += 1
            if answer.headers.get("connection") == "close":
                return


def test_sigterm_under_load_loses_nothing_that_was_accepted(tmp_path):
    with serving_model(tmp_path, "delay_ms = 5.0", "--grace-period=0.7") as server:
        clients = [LoadClient(server.http_port, i) for i in range(16)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.outcomes["answered"] > 3 for client in clients))
        assert server.stop() == 0
        for client in clients:
            client.join(20)
            assert not client.is_alive()
    outcomes = sum((client.outcomes for client in clients), Counter())
    losses = [loss for client in clients for loss in client.losses]
    assert set(outcomes) == {"answered", "refused to connect"}, losses
    assert outcomes["refused to connect"] == 16


def test_requests_that_the_kernel_took_while_the_server_stood_still_are_answered(tmp_path):
    with serving_model(tmp_path, "") as server, socket.create_connection(("127.0.0.1", server.http_port)) as idle:
        kept = [Connection(server.http_port) for _ in range(8)]
        assert [connection.ask(PREDICT, instances((1, 1))).status for connection in kept] == [200] * 8
        server.process.send_signal(signal.SIGSTOP)
        fresh = [Connection(server.http_port) for _ in range(40)]
        for i, connection in enumerate((*kept, *fresh)):
            connection.send(PREDICT, instances((i, 0)))
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        answers = [connection.read() for connection in (*kept, *fresh)]
        assert idle.recv(1) == b"", "an idle connection is closed without a word"
        assert server.process.wait(20) == 0
        for connection in (*kept, *fresh):
            connection.close()
    assert [answer.json["predictions"] for answer in answers] == [[[2.0 * i, 0.0]] for i in range(48)]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_request_that_lies_unread_in_the_kernel_keeps_its_connection_open(new_loop):
    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def main() -> tuple[Answer, bytes]:
        config = uvicorn.Config(app, http=protocol_class(HttpConnectionPolicy()), lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: config.http_protocol_class(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            asked, idle = (Connection(server.sockets[0].getsockname()[1]) for _ in range(2))
            with asked, idle:
                while len(state.connections) < 2:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0)
                asked.send("/")  # without giving the loop a chance to read it
                for connection in list(state.connections):
                    connection.shutdown()
                answer = await asyncio.to_thread(asked.read)
                return answer, await asyncio.to_thread(idle.socket.recv, 1)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        answer, end_of_idle = runner.run(main())
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert end_of_idle == b""


@dataclass
class BusyDoor:
    """A listening server at whose door somebody knocks in the moment in which it is closed."""

    inner: asyncio.AbstractServer
    port: int
    late: list[Connection] = field(default_factory=list)

    def close(self) -> None:
        if not self.late:
            self.late += [Connection(self.port) for _ in range(8)]
            for connection in self.late:
                connection.send("/")
        self.inner.close()

    async def wait_closed(self) -> None:
        await self.inner.wait_closed()


def test_connections_that_the_kernel_takes_while_the_socket_closes_are_answered(monkeypatch):
    """Without the filter that keeps newcomers away: not every kernel lets a process without privileges set it."""
    monkeypatch.setattr(http_server, "_refuse_newcomers", lambda _: None)

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def main() -> list[int]:
        listener = http_server.open_http_socket("127.0.0.1", 0)
        server = http_server.build_http_server(app, HttpConnectionPolicy(), drain_timeout_s=5)
        serving_it = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        server.servers = [BusyDoor(door, listener.getsockname()[1]) for door in server.servers]
        (door,) = server.servers
        server.should_exit = True
        await serving_it
        answers = [await asyncio.to_thread(connection.read) for connection in door.late]
        for connection in door.late:
            connection.close()
        return [answer.status for answer in answers]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [200] * 8


def test_during_the_grace_period_readiness_is_off_and_requests_are_answered(tmp_path):
    with serving_model(tmp_path, "", "--grace-period=2") as server, Connection(server.http_port) as kept:
        assert kept.ask(PREDICT, instances((1, 1))).headers.get("connection") != "close"
        server.process.send_signal(signal.SIGTERM)
        ready = wait_until(lambda: (answer := ask(server, "/readyz")).status == 503 and answer)
        assert ready.json["status"] == "stopping"
        assert health(server) == NOT_SERVING
        assert ask(server, "/healthz").status == 200
        answer = kept.ask(PREDICT, instances((3, 4)))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert kept.socket.recv(1) == b""
        with Calls(server) as calls:
            assert outputs_of(calls.start("m", {"x": row(1, 2)}).result())["y"].tolist() == [[2.0, 4.0]]
        assert server.process.wait(20) == 0


def test_what_is_in_flight_when_the_listeners_close_is_answered(tmp_path):
    with (
        serving_model(tmp_path, f"delay_ms = 700.0\ndelay_if_contains = {SLOW}") as server,
        Calls(server) as calls,
        ThreadPoolExecutor(3) as pool,
    ):
        over_grpc = [calls.start("m", {"x": row(i, SLOW)}) for i in range(3)]
        over_http = [in_background(lambda: ask(server, PREDICT, instances((5, SLOW))), pool) for _ in range(3)]
        wait_until(lambda: in_flight(server) == 6)
        assert server.stop() == 0
        assert [outputs_of(call.result())["y"].tolist() for call in over_grpc] == [
            [[2.0 * i, 2 * SLOW]] for i in range(3)
        ]
        assert [answer().json["predictions"] for answer in over_http] == [[[10.0, 2 * SLOW]]] * 3


def in_flight(server: Server) -> float:
    return Scrape(server).sum("accelserve_requests_in_flight")


def test_grpc_clients_under_load_see_nothing_but_unavailable_when_it_ends(tmp_path):
    ends: list[grpc.StatusCode] = []
    wrong: list[object] = []
    with serving_model(tmp_path, "delay_ms = 5.0", "--grace-period=0.5") as server, Calls(server) as calls:
        asked = Counter()

        def client(number: int) -> None:
            while True:
                value = asked[number] = asked[number] + 1
                try:
                    got = outputs_of(calls.start("m", {"x": row(number, value)}).result())["y"].tolist()
                except grpc.RpcError as error:
                    ends.append(error.code())
                    return
                if got != [[2.0 * number, 2.0 * value]]:
                    wrong.append(got)

        threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(16)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(asked[i] > 3 for i in range(16)))
        asked_before = asked.total()
        assert server.stop() == 0
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert wrong == []
    assert asked.total() - asked_before > 16 * 5, "no call was answered in the grace period"
    assert ends == [grpc.StatusCode.UNAVAILABLE] * 16


def test_grpc_clients_that_call_again_at_once_see_nothing_but_unavailable_either(tmp_path):
    """What waits before grpcio's listener when that closes is CANCELLED, which no client tries again."""
    ends: list[grpc.StatusCode] = []
    over = threading.Event()
    with serving_model(tmp_path, "") as server, ExitStack() as channels:
        asked = Counter()

        def client(number: int, calls: Calls) -> None:
            while not over.is_set():
                asked[number] += 1
                try:
                    calls.start("m", {"x": row(number, 1)}).result()
                except grpc.RpcError as error:
                    ends.append(error.code())

        callers = [channels.enter_context(Calls(server)) for _ in range(16)]
        threads = [threading.Thread(target=client, args=pair, daemon=True) for pair in enumerate(callers)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(asked[i] > 3 for i in range(16)))
        assert server.stop() == 0
        over.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert set(ends) == {grpc.StatusCode.UNAVAILABLE}


def test_a_health_watch_is_told_and_does_not_hold_the_server_up(tmp_path):
    with (
        serving_model(tmp_path, "", "--grace-period=0.2") as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=30)
        statuses = (health_pb2.HealthCheckResponse.FromString(message).status for message in watch)
        assert next(statuses) == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert next(statuses) == NOT_SERVING
        assert server.process.wait(20) == 0
        assert time.monotonic() - started < 5


def test_a_request_that_outlasts_the_drain_timeout_is_told_and_the_server_ends(tmp_path):
    with (
        serving_model(tmp_path, f"delay_ms = 60000.0\ndelay_if_contains = {SLOW}", "--drain-timeout=1") as server,
        Connection(server.http_port) as connection,
        Calls(server) as calls,
    ):
        connection.send(PREDICT, instances((1, SLOW)))
        call = calls.start("m", {"x": row(1, SLOW)})
        wait_until(lambda: in_flight(server) == 2)
        started = time.monotonic()
        assert server.stop() == 0
        took_s = time.monotonic() - started
        answer = connection.read()
        assert (answer.status, answer.headers["x-accelserve-reason"]) == (503, "draining")
        assert call.exception().code() is grpc.StatusCode.UNAVAILABLE
    assert took_s < 6


# --- signals


def test_ctrl_c_once_ends_with_0_and_without_the_grace_period(tmp_path):
    with serving_model(tmp_path, "", "--grace-period=60") as server:
        started = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 5
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_ends_at_once_whatever_is_running(tmp_path, first):
    settings = f"delay_ms = 60000.0\ndelay_if_contains = {SLOW}"
    with (
        serving_model(tmp_path, settings, "--grace-period=60") as server,
        Connection(server.http_port) as connection,
    ):
        connection.send(PREDICT, instances((1, SLOW)))
        wait_until(lambda: in_flight(server) == 1)
        server.process.send_signal(first)
        wait_until(lambda: "told to stop" in server.log.read_text())
        started = time.monotonic()
        assert server.stop(signal.SIGINT) == 1
        assert time.monotonic() - started < 2
        assert "ending at once" in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_loads_ends_promptly_with_0(tmp_path, number):
    path = synthetic_model(tmp_path / "m.synthetic.toml", DOUBLE.format(settings="load_delay_ms = 120000.0"))
    process = start([f"--model=m={path}", "--grace-period=60"], tmp_path / "log")
    try:
        wait_until(lambda: "loading m:1" in (tmp_path / "log").read_text())
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == 0
        assert time.monotonic() - started < 5
    finally:
        end(process)


def test_after_kill_9_the_same_ports_serve_again(tmp_path):
    path = synthetic_model(tmp_path / "m.synthetic.toml")
    with serving(f"--model=m={path}", log=tmp_path / "first") as killed, Connection(killed.http_port) as kept:
        assert kept.ask(PREDICT, instances((1, 1))).status == 200
        killed.process.kill()
        killed.process.wait(20)
        ports = (f"--http-port={killed.http_port}", f"--grpc-port={killed.grpc.rpartition(':')[2]}")
        with serving(f"--model=m={path}", *ports, log=tmp_path / "second") as again:
            assert (again.http, again.grpc) == (killed.http, killed.grpc)
            assert ask(again, PREDICT, instances((1, 2))).json["predictions"] == [[2.0, 4.0]]
