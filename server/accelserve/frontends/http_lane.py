"""The short way for scoring: from a connection to the handler and back, past ASGI and FastAPI.

Plain requests take it: HTTP/1.1 that stays open, POST to a scoring path, a Content-Length, and nothing that changes how
the body is read. All others go to uvicorn's cycle and FastAPI, which have the same handlers on the same paths. Both
ways give the same bytes (tests/frontends replays every case through both).

Measured on one core, tiny model, 32 clients: ASGI and FastAPI cost more than all the rest together.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_convoy import MOST_TOGETHER, Convoy, Together
from accelserve.frontends.http_exchange import RecordedHandle, unforeseen_response
from accelserve.frontends.http_messages import Head, Header, HttpRequest, HttpResponse, head_of
from accelserve.observability.metrics import RequestRecord
from accelserve.ticket import Errand

logger = logging.getLogger("accelserve.http")

_MOST_HEADS = 512
_MOST_HEAD_BYTES = 2048
_END = b"\r\n\r\n"


class LaneRoute(NamedTuple):
    """fits: which heads. together: answers several requests at once, where there is such a way.

    at_once: none of them gains by what comes beside it, so each starts when it is there.
    """

    fits: Callable[[Head], bool]
    handle: RecordedHandle
    together: Together | None = None
    at_once: bool = False


class PlainHead(NamedTuple):
    """A head that the short lane takes.

    length: of the body, in bytes; 0 for one that is turned away and not remembered. kin: equal for heads that say the
    same else. let_in: the guard's version that judged it.
    """

    head: Head
    route: LaneRoute
    length: int
    kin: Hashable
    let_in: int = 0


class HttpLane:
    """Which requests are for the short lane, and the heads that were found to be.

    A client sends the same head again and again. Bytes that httptools has read as a whole head mean the same the next
    time, so they are looked up (0.3 µs) and not parsed (4 µs). A client with ever new heads costs others no more than
    one parse now and then: the oldest is forgotten.
    """

    def __init__(self, routes: Sequence[LaneRoute]) -> None:
        """routes: the first that fits is taken."""
        self._routes = routes
        self._heads: dict[bytes, PlainHead] = {}
        self._arrived: list[HotCycle] = []

    def plain_head(self, scope: Mapping[str, Any], headers: Sequence[Header], let_in: int = 0) -> PlainHead | None:
        """What the lane wants of a complete head, None when it is not for it. scope: ASGI's, of an HTTP/1.1 request."""
        length = length_of(headers)
        if not length or scope["method"] != "POST":
            return None
        head = head_of("POST", scope["path"], scope["query_string"], headers)
        route = next((route for route in self._routes if route.fits(head)), None)
        if route is None:
            return None
        same = tuple([header for header in headers if header[0] != b"content-length"])
        return PlainHead(head, route, length, (scope["path"], scope["query_string"], same), let_in)

    def arrive(self, cycle: "HotCycle") -> None:
        """If the request is whole, and has not come before: let it leave when the loop has read what there is."""
        if cycle.more_body or cycle.arrived:
            return
        cycle.arrived = True
        if cycle.plain.route.at_once:
            _start_one(cycle)
            return
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._depart)
        self._arrived.append(cycle)

    def _depart(self) -> None:
        arrived = [cycle for cycle in self._arrived if cycle.waits]
        self._arrived = []
        if len(arrived) == 1:
            _start_one(arrived[0])
            return
        kinds: dict[Hashable, list[HotCycle]] = {}
        for cycle in arrived:
            kinds.setdefault(cycle.plain.kin, []).append(cycle)
        for cycles in kinds.values():
            for at in range(0, len(cycles), MOST_TOGETHER):
                _start(cycles[at : at + MOST_TOGETHER])

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


def _start_one(cycle: "HotCycle") -> None:
    try:
        cycle.start()
    except Exception:  # a fault of ours at one must not keep those behind it waiting
        logger.exception("a request could not be started")


def _start(cycles: "Sequence[HotCycle]") -> None:
    """Those of one kind, together where that can be."""
    together = cycles[0].plain.route.together
    if together is None or len(cycles) == 1:
        for cycle in cycles:
            _start_one(cycle)
        return
    convoy = Convoy(cycles)
    convoy.start(together, [cycle.join(convoy) for cycle in cycles])


def length_of(headers: Sequence[Header]) -> int:
    """The Content-Length of a request that nothing keeps from the short lane, else 0. Other tokens are llhttp's."""
    length = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name in (b"expect", b"transfer-encoding", b"upgrade"):
            return 0
    return length


class Refusing(Protocol):
    """A `http_policy.HttpConnectionPolicy`: it counts what no application does, and has the words for it."""

    @property
    def refused(self) -> Callable[[Kind], None]: ...

    def refusal(self, error: ScoringError) -> HttpResponse: ...


def turned_away(scope: Mapping[str, Any], policy: Refusing, error: ScoringError) -> PlainHead:
    """A head whose request is answered with an error, once its body is read."""

    async def handle(request: HttpRequest, record: RequestRecord | None = None) -> HttpResponse:
        policy.refused(error.kind)
        return policy.refusal(error)

    head = Head(scope["method"], scope["path"], {}, {})
    return PlainHead(head, LaneRoute(lambda _: True, handle), 0, error)


class Answering(Protocol):
    """What a request in the short lane asks of its connection."""

    def answer(self, cycle: "HotCycle", answer: HttpResponse) -> None:
        """The answer is there."""
        ...

    def refusal(self, error: ScoringError) -> HttpResponse:
        """What tells a client about `error`, where no handler does."""
        ...


class HotCycle(Errand):
    """A request in the short lane, from its head to its answer; beside `http_cycle.Cycle` in its connection."""

    __slots__ = (
        "_body",
        "_connection",
        "_convoy",
        "arrived",
        "last",
        "more_body",
        "plain",
        "response_complete",
        "response_started",
    )

    waiting_for_100_continue = False

    def __init__(self, connection: Answering, plain: PlainHead) -> None:
        super().__init__()
        self._connection = connection
        self.plain = plain
        self._body: bytes | bytearray | None = None  # None again once it has been handed on
        self._convoy: Convoy | None = None
        self.more_body = True
        self.arrived = False
        self.response_started = self.response_complete = False
        self.last = False  # the connection closes after this answer

    def feed(self, body: bytes) -> None:
        """A piece of the body."""
        if self._body is None:
            self._body = body
        elif isinstance(self._body, bytes):
            self._body = bytearray(self._body + body)
        else:
            self._body += body

    @property
    def waits(self) -> bool:
        """Whether it is still to be started."""
        return self._body is not None

    def start(self) -> None:
        self.run(self.plain.route.handle(self._request()))

    def join(self, convoy: Convoy) -> HttpRequest:
        """Be answered by a convoy, which gets the request."""
        self._convoy = convoy
        return self._request()

    def _request(self) -> HttpRequest:
        body, self._body = self._body, None
        return HttpRequest(self.plain.head, bytes(body or b""))

    def told(self, answer: HttpResponse) -> None:
        self._convoy = None
        self._connection.answer(self, answer)

    def alone(self, request: HttpRequest, record: RequestRecord) -> None:
        self._convoy = None
        self.run(self.plain.route.handle(request, record))

    def abandon(self) -> None:
        """Nobody waits for this answer any more."""
        self._body = None
        if self._convoy is not None:
            self._convoy.leave(self)
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
        self.abandon()
        stopping = ScoringError(Kind.DRAINING, "the server is stopping", retry_after_s=1)
        self._connection.answer(self, self._connection.refusal(stopping))
