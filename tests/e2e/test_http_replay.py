"""Every HTTP case over real sockets: answered as FastAPI's lane answers it without a socket, times and ids aside."""

import asyncio
import re
import socket
from collections.abc import Iterator

import pytest
from plain_http import check_books
from server_process import Server, serving
from talk import PATIENCE_S

from http_bad import ALL
from http_cases import CASES, MOST_BODY_BYTES, Case
from http_service import SLOW, write_models
from http_service import serving as without_socket

# Date, ids, times, the number of the run in which "fragile" broke, and where a request was when its deadline passed.
_CHANGES = (
    re.compile(rb"(?<=date: )[^\r]+"),
    re.compile(rb"(?<=request-id: )([0-9a-f]{32}|an-id)"),
    re.compile(rb"(?<=x-accelserve-timing: )[^\r]+"),
    re.compile(rb"(?<=content-length: )\d+(?=\r.*(\d failed, as asked for|the deadline passed))", re.DOTALL),
    re.compile(rb"(?<=run )\d+(?= failed, as asked for)"),
    re.compile(rb'(?<="error":")[^"]*the deadline passed[^"]*'),
)


# A server that has learned what a run takes refuses at once who cannot be answered in time.
TIMELESS = [case for case in CASES if case.status != 504]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("replay")
    models = [part for name, path in write_models(folder / "models").items() for part in ("--model", f"{name}={path}")]
    limits = ["--max-body-bytes", MOST_BODY_BYTES, "--max-header-bytes", 8192, "--default-model", "digits"]
    with serving(*models, *limits, log=folder / "log") as running:
        yield running
        check_books(running)
        log = running.log.read_text()
        assert "unforeseen" not in log
        assert "Fatal error" not in log
        assert running.stop() == 0


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict[str, bytes]:
    """The answers of FastAPI's lane, by case."""

    async def main() -> dict[str, bytes]:
        async with without_socket(tmp_path_factory.mktemp("slow lane"), SLOW) as service:
            return {case.name: await service.connect().send(case.bytes()) for case in CASES}

    return asyncio.run(main())


class Client:
    """A connection that reads whole answers as they are on the wire."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S)
        self._got = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, headers_alone: bool = False) -> bytes:
        """The next answer; "" when the server closes instead."""
        while (end := self._got.find(b"\r\n\r\n") + 4) < 4:
            if not self._more():
                assert not self._got
                return b""
        length = 0 if headers_alone else int(re.search(rb"content-length: (\d+)\r\n", self._got[:end])[1])
        while len(self._got) < end + length:
            assert self._more(), "closed within an answer"
        answer, self._got = self._got[: end + length], self._got[end + length :]
        return answer

    def _more(self) -> bool:
        try:
            part = self.socket.recv(2**16)
        except ConnectionResetError:
            part = b""
        self._got += part
        return bool(part)


def plain(answer: bytes) -> bytes:
    for change in _CHANGES:
        answer = change.sub(b"-", answer)
    return answer


@pytest.mark.parametrize("case", TIMELESS, ids=lambda case: case.name)
def test_each_case_is_answered_as_without_a_socket_however_often_it_is_asked(server, wanted, case):
    with Client(server) as client:
        for _ in range(3):
            client.send(case.bytes())
            answer = client.read(case.method == "HEAD")
            assert plain(answer) == plain(wanted[case.name])
            if b"connection: close" in answer:
                break


@pytest.mark.parametrize("case", [case for case in CASES if case not in TIMELESS], ids=lambda case: case.name)
def test_who_cannot_be_answered_in_time_is_told_before_or_when_it_has_passed(server, case):
    for _ in range(3):
        with Client(server) as client:
            client.send(case.bytes())
            answer = client.read()
            refused = answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer
            assert refused or answer.startswith(b"HTTP/1.1 504 ")


def test_all_cases_in_one_stream_are_answered_in_order(server, wanted):
    cases = [case for case in TIMELESS if b"connection: close" not in wanted[case.name]]
    with Client(server) as client:
        for sent in (b"".join(case.bytes() for case in cases[at : at + 8]) for at in range(0, len(cases), 8)):
            client.send(sent)
        for case in cases:
            assert plain(client.read(case.method == "HEAD")) == plain(wanted[case.name]), case.name


def test_cases_in_chunks_and_in_single_bytes_are_answered_alike(server, wanted):
    cases = [case for case in CASES if case.body and len(case.body) < 100 and "slow" not in case.target]
    with Client(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for case in cases:
            if b"connection: close" not in wanted[case.name]:
                client.send(case.chunked((1, 10)))
                assert plain(client.read()) == plain(wanted[case.name]), case.name
        for data in (cases[0].bytes()[at : at + 1] for at in range(len(cases[0].bytes()))):
            client.send(data)
        assert plain(client.read()) == plain(wanted[cases[0].name])


def test_what_is_wrong_is_refused_and_the_next_client_is_served(server):
    good = Case("", "POST", "/v1/models/double:predict", b'{"instances": [[1, 2]]}').bytes()
    with Client(server) as neighbour:
        for bad in ALL:
            with Client(server) as client:
                client.send(good)
                assert client.read().startswith(b"HTTP/1.1 200 ")
                client.send(bad.data)
                if bad.status:
                    assert client.read().startswith(b"HTTP/1.1 %d " % bad.status), bad.name
            neighbour.send(good)
            assert neighbour.read().endswith(b'{"predictions":[[2.0,4.0]]}'), bad.name
