"""HTTP as any client speaks it, raw sockets for those who do not, and what must hold after every request."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from server_process import Server, wait_until

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """headers: lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message, once it is sure that this is how an error must look."""
        assert self.status >= 400, (self.status, self.body[:500])
        assert self.headers["content-type"] == "application/json"
        document = json.loads(self.body)
        assert document.keys() == {"error"}
        message = document["error"]
        assert isinstance(message, str) and message
        assert "Traceback" not in message and 'File "' not in message, message
        return message


def ask(server: Server, method: str, path: str, body: bytes | object = b"", **headers: str) -> Answer:
    """One request on a connection of its own. body: bytes as they are, anything else as JSON; x_y: header x-y."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = HTTPConnection("127.0.0.1", server.http_port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def post(server: Server, path: str, body: bytes | object = b"", **headers: str) -> Answer:
    return ask(server, "POST", path, body, **headers)


def get(server: Server, path: str, **headers: str) -> Answer:
    return ask(server, "GET", path, **headers)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S)


def read_all(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := client.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def talk(server: Server, *pieces: bytes) -> bytes:
    """Send on one connection, then read until the server closes it."""
    with connect(server) as client:
        for piece in pieces:
            client.sendall(piece)
        return read_all(client)


def parse_answers(data: bytes) -> list[Answer]:
    """The answers in what one connection gave."""
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        answers.append(Answer(int(first.split()[1]), headers, data[:length]))
        assert len(data) >= length, "the last answer is cut"
        data = data[length:]
    return answers


def head_of(method: str, path: str, *lines: str) -> bytes:
    """A request's head as bytes, with a Host."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "", "")).encode("latin-1")


def samples(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The metrics page."""
    page = get(server, "/metrics").body.decode()
    families = text_string_to_metric_families(page)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def ended(server: Server, **labels: str) -> float:
    """How many requests ended with these labels."""
    wanted = labels.items()
    return sum(
        value for (name, has), value in samples(server).items() if name == "accelserve_requests_total" and wanted <= has
    )


def check_books(server: Server) -> None:
    """Nothing is in flight or queued any more, and every request that was received ended once."""
    wait_until(lambda: _idle(samples(server)))
    now = samples(server)
    for (name, labels), received in now.items():
        if name == "accelserve_requests_received_total":
            (protocol,) = (value for key, value in labels if key == "protocol")
            assert received == ended(server, protocol=protocol), f"{protocol}: the counters do not add up"


def _idle(now: Mapping[tuple[str, frozenset[tuple[str, str]]], float]) -> bool:
    busy = ("accelserve_requests_in_flight", "accelserve_queue_rows", "accelserve_batches_running")
    return all(value == 0 for (name, _), value in now.items() if name in busy)


def check_log(server: Server) -> None:
    """Nothing unforeseen happened so far."""
    log = server.log.read_text(errors="replace")
    assert "Traceback" not in log and "unforeseen" not in log, log
