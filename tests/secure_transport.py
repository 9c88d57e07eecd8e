"""A transport whose socket is real, as one under TLS hides it: what lies below is asked of the kernel."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from fake_http import FakeTransport


class SecureTransport(FakeTransport):
    """As uvloop's under TLS: it has handed everything on, and knows of nothing below."""

    def __init__(self, below: socket.socket | None) -> None:
        super().__init__()
        self.below = below

    def get_extra_info(self, name, default=None):
        return {"socket": self.below, "sslcontext": True}.get(name, default)

    def can_write_eof(self) -> bool:
        return False


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(ours, the client's), over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with client, ours:
        ours.setblocking(False)
        yield ours, client


def fill(ours: socket.socket) -> None:
    """Until neither side of the connection takes more."""
    try:
        while True:
            ours.send(bytes(2**16))
    except BlockingIOError:
        return


def drain(client: socket.socket) -> None:
    client.settimeout(0.2)
    try:
        while client.recv(2**20):
            pass
    except TimeoutError:
        return
