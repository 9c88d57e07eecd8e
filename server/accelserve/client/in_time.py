"""An HTTP answer that is there in time or not at all: a socket's own timeout begins anew with every part that comes."""

import io
import socket
import time
from http.client import HTTPResponse, IncompleteRead
from typing import Any

_PART_BYTES = 2**20


class _Readable:
    """All that an HTTPResponse wants of a socket."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection = connection
        self._until_s = until_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_SocketUntil(self._connection, self._until_s))


class _SocketUntil(io.RawIOBase):
    """What comes before `until_s`; afterwards it raises TimeoutError."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection = connection
        self._until_s = until_s
        self._file = connection.makefile("rb", buffering=0)  # keeps the socket, whose connection may be closed before

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def response_until(connection: socket.socket, *, method: str, until_s: float) -> HTTPResponse:
    """To be begun. What of its head and body has not come by `until_s`, of time.monotonic(), is a TimeoutError."""
    readable: Any = _Readable(connection, until_s)
    return HTTPResponse(readable, method=method)


def read_whole(response: HTTPResponse) -> bytes:
    """The body; the length that an answer claims takes no memory before it has come. Raises HTTPException, OSError."""
    parts = []
    while part := response.read1(_PART_BYTES):
        parts.append(part)
    if response.length:
        raise IncompleteRead(b"", response.length)
    response.close()  # read1 leaves it open, and its connection takes no request then
    return b"".join(parts)
