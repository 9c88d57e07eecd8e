"""The short way for scoring: from a connection to the handler and back, past ASGI and FastAPI.

Plain requests take it: HTTP/1.1 that stays open, POST to a scoring path, a Content-Length, and nothing that changes how
the body is read. All others go to uvicorn's cycle and FastAPI, which have the same handlers on the same paths. Both
ways give the same bytes (tests/frontends replays every case through both).

Measured on one core, tiny model, 32 clients: ASGI and FastAPI cost more than all the rest together.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_exchange import Handle, unforeseen_response
from accelserve.frontends.http_messages import Head, Header, HttpRequest, HttpResponse, error_response
from accelserve.observability.logs import new_request_id
from accelserve.ticket import Errand

_MOST_HEADS = 512
_MOST_HEAD_BYTES = 2048
_END = b"\r\n\r\n"


class PlainHead(NamedTuple):
    """A head that the short lane takes. length: of the body, in bytes."""

    head: Head
    handle: Handle
    length: int


class HttpLane:
    """Which requests are for the short lane, and the heads that were found to be.

    A client sends the same head again and again. Bytes that httptools has read as a whole head mean the same the next
    time, so they are looked up (0.3 µs) and not parsed (4 µs). A client with ever new heads costs others no more than
    one parse now and then: the oldest is forgotten.
    """

    def __init__(self, routes: Sequence[tuple[Callable[[Head], bool], Handle]]) -> None:
        """routes: which heads, and what answers them; the first that fits."""
        self._routes = routes
        self._heads: dict[bytes, PlainHead] = {}

    def handle_for(self, head: Head) -> Handle | None:
        return next((handle for fits, handle in self._routes if fits(head)), None)

    def find(self, data: bytes) -> tuple[PlainHead | None, int]:
        """The head that data begins with, if it is known, and where it ends; 0 when no end is in sight."""
        end = data.find(_END, 0, _MOST_HEAD_BYTES) + len(_END)
        if end < len(_END):
            return None, 0
        return self._heads.get(data[:end]), end

    def remember(self, data: bytes, plain: PlainHead) -> None:
        """data: all of a head, which a parser that expected one has read from its first byte to its last."""
        heads = self._heads
        if len(heads) >= _MOST_HEADS and data not in heads:
            del heads[next(iter(heads))]
        heads[data] = plain


def length_of(headers: Sequence[Header]) -> int:
    """The Content-Length of a request that nothing keeps from the short lane, else 0. Other tokens are llhttp's."""
    length = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name in (b"expect", b"transfer-encoding", b"upgrade"):
            return 0
    return length


class Answering(Protocol):
    """What a request in the short lane asks of its connection."""

    def answer(self, cycle: "HotCycle", answer: HttpResponse) -> None:
        """The answer is there."""
        ...


class HotCycle(Errand):
    """A request in the short lane, from its head to its answer; beside `http_cycle.Cycle` in its connection."""

    __slots__ = ("_connection", "_parts", "last", "more_body", "plain", "response_complete", "response_started")

    waiting_for_100_continue = False

    def __init__(self, connection: Answering, plain: PlainHead) -> None:
        super().__init__()
        self._connection = connection
        self.plain = plain
        self._parts: list[bytes] = []
        self.more_body = True
        self.response_started = self.response_complete = False
        self.last = False  # the connection closes after this answer

    def feed(self, body: bytes) -> None:
        """A piece of the body."""
        self._parts.append(body)

    def start(self) -> None:
        """Call the handler once, when the body is whole."""
        if self.more_body or not self._parts:
            return
        parts, self._parts = self._parts, []
        head, handle, _ = self.plain
        self.run(handle(HttpRequest(head, parts[0] if len(parts) == 1 else b"".join(parts))))

    def abandon(self) -> None:
        """Nobody waits for this answer any more."""
        self.cancel()

    def returned(self, value: HttpResponse) -> None:
        self._connection.answer(self, value)

    def raised(self, error: BaseException) -> None:
        """What no exchange has caught; CancelledError comes from pools that are closed."""
        if isinstance(error, asyncio.CancelledError):
            self.give_up()
        elif isinstance(error, Exception):
            self._connection.answer(self, unforeseen_response(self.plain.head, error))
        else:
            raise error

    def give_up(self) -> None:
        """The server ends before the answer is there."""
        self.cancel()
        stopping = ScoringError(Kind.DRAINING, "the server is stopping", retry_after_s=1)
        self._connection.answer(self, error_response(stopping, {"x-request-id": new_request_id()}))
