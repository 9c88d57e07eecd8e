"""What an HTTP connection is allowed to do, and what one that breaks the rules is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.guard import Guard
from accelserve.frontends.http_body import BodyMemory
from accelserve.frontends.http_lane import HttpLane
from accelserve.frontends.http_messages import Header, HttpResponse, error_response, wire_headers
from accelserve.observability.logs import new_request_id


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Sizes and silences of one connection.

    max_header_bytes: all header lines (or all trailer lines) together.
    header_timeout_s: from connecting, or from the first byte of a request, to the end of its headers.
    body_timeout_s: silence while a body is being sent and we are willing to read it; also how long a client may
    leave an answer unread without taking a byte.
    linger_s, linger_bytes: how long and how much is thrown away after a last answer to a client that is still
    sending; closing at once would reset the connection and destroy the answer on its way (RFC 9112 9.6).
    max_queued_requests: pipelined requests that may wait behind the one being answered; those beyond are left
    unread and the connection closes after the last answer (RFC 9112 9.3.2: the client retries them).
    """

    max_request_line_bytes: int = 8192
    max_header_bytes: int = 32768
    max_headers: int = 100
    max_body_bytes: int = 64 * 2**20
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    linger_s: float = 10.0
    linger_bytes: int = 256 * 2**20
    max_queued_requests: int = 1024


def _ignore(kind: Kind) -> None:
    """Nobody counts."""


@dataclass(slots=True)
class HttpConnectionPolicy:
    """What all connections of one server share.

    refused: called once for each request that no application counts: answered here, or left by its client in mid-body
    (CANCELLED). tell: the answer to one that no application answers, with these headers.
    lane: the short way for plain scoring requests; those that fit none of its routes go through the ASGI application.
    guard: who may ask; without one everybody.
    bodies: what large bodies are received into.
    draining: once True, each answer closes its connection (unless pipelined requests still wait behind it).
    """

    limits: HttpLimits = field(default_factory=HttpLimits)
    refused: Callable[[Kind], None] = _ignore
    tell: Callable[[ScoringError, Mapping[str, str]], HttpResponse] = error_response
    lane: HttpLane = field(default_factory=lambda: HttpLane(()))
    guard: Guard | None = None
    bodies: BodyMemory = field(default_factory=BodyMemory)
    draining: bool = False
    _beginnings: dict[int, bytes] = field(default_factory=dict, init=False)
    _of_headers: list[Header] | None = field(default=None, init=False)

    def beginning(self, status: int, default_headers: list[Header]) -> bytes:
        """An answer up to its own headers. uvicorn makes a new list of default headers, with the date, each second."""
        if default_headers is not self._of_headers:
            self._of_headers = default_headers
            self._beginnings.clear()
        found = self._beginnings.get(status)
        if found is None:
            lines = [b"%b: %b\r\n" % header for header in default_headers]
            found = self._beginnings[status] = b"".join((STATUS_LINE[status], *lines))
        return found

    def refusal(self, error: ScoringError) -> HttpResponse:
        """What tells a client about `error`, where no application does."""
        return self.tell(error, {"x-request-id": new_request_id()})

    def last_words(self, error: ScoringError, default_headers: list[Header]) -> bytes:
        """The same as a whole HTTP/1.1 answer, the last one of its connection."""
        answer = self.refusal(error)
        headers = (*default_headers, *wire_headers(answer), (b"connection", b"close"))
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join((STATUS_LINE[answer.status], *lines, b"\r\n", answer.body))
