"""HTTP as any client speaks it, raw sockets for those who do not, and what must hold after every request."""

import json
import socket
from http.client import HTTPConnection

import talk
from server_process import Server, wait_until
from talk import PATIENCE_S, Scrape


class Answer(talk.Answer):
    """An answer that knows how an error must look."""

    @property
    def error(self) -> str:
        """The message of `{"error": message}`; fails for anything else."""
        assert self.status >= 400, (self.status, self.body[:500])
        assert self.headers["content-type"] == "application/json"
        document = json.loads(self.body)
        assert document.keys() == {"error"}
        message = document["error"]
        assert isinstance(message, str)
        assert message
        assert "Traceback" not in message
        assert 'File "' not in message
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


def exchange(server: Server, *pieces: bytes) -> bytes:
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


def ended(server: Server, **labels: str) -> float:
    """How many requests ended with these labels."""
    return Scrape(server).sum("accelserve_requests_total", **labels)


def check_books(server: Server) -> None:
    """Nothing is in flight or queued any more, and every request that was received ended once."""
    wait_until(lambda: _idle(Scrape(server)))
    now = Scrape(server)
    for protocol in ("http", "grpc"):
        received = now.sum("accelserve_requests_received_total", protocol=protocol)
        assert received == now.sum("accelserve_requests_total", protocol=protocol), f"{protocol} does not add up"


def _idle(now: Scrape) -> bool:
    busy = ("accelserve_requests_in_flight", "accelserve_queue_rows", "accelserve_batches_running")
    return all(now.sum(name) == 0 for name in busy)


def check_log(server: Server) -> None:
    """Nothing unforeseen happened so far."""
    log = server.log.read_text(errors="replace")
    assert "Traceback" not in log, log
    assert "unforeseen" not in log, log
