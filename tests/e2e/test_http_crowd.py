"""Many clients and bad ones on real sockets: neighbours are served at once, nothing grows, the books hold."""

import contextlib
import random
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from plain_http import check_books, check_log
from server_process import Server, serving, wait_until
from talk import PATIENCE_S, Connection, request_bytes

from http_service import write_models

AT_ONCE_S = 2.0  # on an idle machine some milliseconds
CROWD = 1000
TARGET = "/v1/models/double:predict"
BODY = b'{"instances": [[1, 2]]}'
GOOD = request_bytes(TARGET, BODY)
LARGE = request_bytes("/score?model=text", b"\xff" * 32_000)
SLOW = request_bytes("/v1/models/slow:predict", BODY)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    folder = tmp_path_factory.mktemp("crowd")
    paths = write_models(folder / "models")
    models = [part for name in ("double", "slow", "text") for part in ("--model", f"{name}={paths[name]}")]
    with serving(*models, "--default-model", "double", log=folder / "log") as running:
        yield running
        check_log(running)
        assert "Fatal error" not in running.log.read_text()
        assert running.stop() == 0


@pytest.fixture(autouse=True)
def unharmed(server) -> Iterator[None]:
    """After each test the server is as it was: connections closed, books in order, no more memory than it may keep."""
    with Connection(server.http_port) as first:
        check(first)
    before = open_files(server)
    yield
    with Connection(server.http_port) as last:
        served_at_once(last)
    check_books(server)
    wait_until(lambda: open_files(server) <= before)


def check(connection: Connection) -> None:
    answer = connection.ask(TARGET, b'{"instances": [[3, 4]]}')
    assert (answer.status, answer.json) == (200, {"predictions": [[6.0, 8.0]]})


def served_at_once(neighbour: Connection) -> None:
    started = time.monotonic()
    check(neighbour)
    assert time.monotonic() - started < AT_ONCE_S


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def resident_bytes(server: Server) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def growth_bytes(server: Server, work: Callable[[], None]) -> int:
    """What each further time adds at least: the first ones fill pools and caches, a leak shows in all."""
    work()
    sizes = [resident_bytes(server)]
    for _ in range(3):
        work()
        sizes.append(resident_bytes(server))
    return min(after - before for before, after in pairwise(sizes))


def connect(server: Server, receive_bytes: int = 0) -> socket.socket:
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", server.http_port))
    return client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def read_to_end(client: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(2**16):
            parts.append(part)
    return b"".join(parts)


def test_a_thousand_idle_connections_cost_little_and_harm_nobody(server):
    def crowd() -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Connection(server.http_port)) for _ in range(CROWD)]
            for client in clients:
                client.send(TARGET, BODY)
            for client in clients:
                assert client.read().json == {"predictions": [[2.0, 4.0]]}
            assert open_files(server) > CROWD
            for _ in range(20):
                served_at_once(clients[0])
            assert all(client.ask(TARGET, b'{"instances": [[5, 6]]}').status == 200 for client in clients[::10])

    assert growth_bytes(server, crowd) < 3 * 2**20


def test_a_flood_of_clients_that_only_connect_harms_nobody(server):
    def flood() -> None:
        for _ in range(2):
            clients = [connect(server) for _ in range(CROWD // 2)]
            served_at_once(neighbour)
            for client in clients[::2]:
                reset(client)
            for client in clients[1::2]:
                client.close()

    with Connection(server.http_port) as neighbour:
        assert growth_bytes(server, flood) < 2**20


def test_clients_that_reset_in_the_middle_leave_nothing_behind(server):
    rng = random.Random(0)

    def resets() -> None:
        for at in range(200):
            client = connect(server)
            data = rng.choice((GOOD, GOOD * 3, LARGE, SLOW, SLOW + GOOD))
            client.sendall(data[: rng.randrange(len(data) + 1)])
            reset(client)
            if at % 50 == 0:
                served_at_once(neighbour)

    with Connection(server.http_port) as neighbour:
        assert growth_bytes(server, resets) < 2**20


def test_clients_that_never_read_are_not_read_either(server):
    """Each gets what the kernel holds and a little more; then their requests wait in their own kernel."""

    def ask_without_end(client: socket.socket) -> int:
        client.settimeout(0.0)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 64 * 2**20:
                sent += client.send(LARGE)
        client.settimeout(PATIENCE_S)
        return sent

    with contextlib.ExitStack() as stack:
        neighbour = stack.enter_context(Connection(server.http_port))
        before = resident_bytes(server)
        clients = [connect(server, 4096) for _ in range(10)]
        for client in clients:
            stack.callback(reset, client)
            client.sendall(LARGE)
        for _ in range(5):
            for client in clients:
                ask_without_end(client)
            served_at_once(neighbour)
        assert all(ask_without_end(client) < 64 * 2**20 for client in clients)
        assert resident_bytes(server) - before < 100 * 2**20


def test_ever_new_heads_are_not_kept(server):
    def ask_with_new_heads() -> None:
        with Connection(server.http_port) as client:
            for _ in range(20):
                names = [f"x-{rng.randrange(10**9):09}-" + "y" * 1700 for _ in range(40)]
                client.socket.sendall(
                    b"".join(request_bytes(TARGET, b'{"instances": [[1, 2]]}', {n: "1"}) for n in names)
                )
                assert all(client.read().status == 200 for _ in names)
                for name in names[:10]:
                    assert client.ask(TARGET, b'{"instances": [[1, 2]]}', {name: "2"}).status == 200

    rng = random.Random(0)
    assert growth_bytes(server, ask_with_new_heads) < 2**20


@pytest.mark.parametrize("request_data", [GOOD, LARGE, SLOW], ids=["good", "large", "slow"])
def test_a_client_that_closes_its_half_gets_its_answer_or_none_but_no_half_of_one(server, request_data):
    for _ in range(10):
        with connect(server) as client:
            client.sendall(request_data)
            client.shutdown(socket.SHUT_WR)
            answer = read_to_end(client)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert not answer or (head.startswith(b"HTTP/1.1 200 ") and b"content-length: %d\r\n" % len(body) in head)


def test_clients_that_send_byte_by_byte_are_answered_and_others_do_not_wait(server):
    with contextlib.ExitStack() as stack:
        neighbour = stack.enter_context(Connection(server.http_port))
        slow = [stack.enter_context(Connection(server.http_port)) for _ in range(50)]
        bodies = [b'{"instances": [[%d, 0]]}' % n for n in range(len(slow))]
        sent = [request_bytes(TARGET, body) for body in bodies]
        for client in slow:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(max(map(len, sent))):
            for client, data in zip(slow, sent, strict=True):
                client.socket.sendall(data[at : at + 1])
            if at % 20 == 0:
                served_at_once(neighbour)
        assert [client.read().json["predictions"][0][0] for client in slow] == [2.0 * n for n in range(len(slow))]


def test_garbage_behind_good_requests_is_refused_after_their_answers(server):
    rng = random.Random(0)
    for _ in range(50):
        good = rng.randrange(1, 5)
        with connect(server) as client:
            client.sendall(GOOD * good + b"\0" + rng.randbytes(rng.randrange(1, 3000)))
            answers = read_to_end(client).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200"] * good + [b"400"]
