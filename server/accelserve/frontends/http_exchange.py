"""One scoring request over HTTP from first count to last header: ids, deadline, metrics, errors."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.exchange import note_internal, parse_priority, provenance_lines, time_spent, unforeseen
from accelserve.frontends.http_convoy import Outcome
from accelserve.frontends.http_ids import ServerIds
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse, error_response
from accelserve.messages import Priority, ScoreResponse, Timing
from accelserve.observability.logs import clean_request_id, new_request_id
from accelserve.observability.metrics import Metrics, RequestRecord, TogetherRecord

logger = logging.getLogger("accelserve.http")

MAX_TIMEOUT_MS = 24 * 3600 * 1000


class Answer(NamedTuple):
    """What a handler made: the body, and who computed it."""

    body: bytes
    response: ScoreResponse


class Asked(NamedTuple):
    """What a head asks of any scoring request. wait_ns: from its arrival to its deadline."""

    wait_ns: int | None
    priority: Priority


Handle = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]


class RecordedHandle(Protocol):
    """A handler of counted requests. record: of one that has been counted before."""

    def __call__(
        self, request: HttpRequest, record: RequestRecord | None = None
    ) -> Coroutine[Any, Any, HttpResponse]: ...


Handler = Callable[[HttpRequest, RequestRecord], Awaitable[Answer]]
# None: not together.
TogetherHandler = Callable[
    [Sequence[HttpRequest], TogetherRecord], Awaitable[tuple[Sequence[bytes], ScoreResponse] | None]
]


class HttpExchange:
    """Runs a handler as one counted request. new_id is injected so that tests can compare bytes."""

    def __init__(self, metrics: Metrics, clock: Clock, new_id: Callable[[], str] | None = None) -> None:
        self._metrics = metrics
        self._ids = ServerIds(new_id).told
        self.now_ns = clock.now_ns

    async def run(self, request: HttpRequest, handler: Handler, record: RequestRecord | None = None) -> HttpResponse:
        """Never raises, except for cancellation (the client is gone). record: where the request has been counted."""
        request_id, ids = self._ids(request.head)
        if record is None:
            record = self._metrics.open("http")
        record.bytes_in = len(request.body)
        try:
            body, response = await handler(request, record)
        except ScoringError as error:
            return self._failed(record, error, request_id, ids)
        except Exception as error:
            return self._failed(record, unforeseen(error, request_id), request_id, ids)
        except BaseException as error:
            record.ended(error)
            raise
        record.bytes_out = len(body)
        record.answered(response.timing)
        spent = time_spent(response.timing, record.decode_ns)
        lines = f"{ids}x-accelserve-timing: {spent}\r\n{provenance_lines(response)}"
        return HttpResponse(200, body, lines.encode("latin-1"))

    async def run_together(
        self, requests: Sequence[HttpRequest], present: Sequence[bool], handler: TogetherHandler
    ) -> Outcome:
        """All as one, or what they need to go on alone. Raises only what is no Exception."""
        record = self._metrics.open_together("http", len(requests))
        try:
            found = await handler(requests, record)
        except ScoringError:  # each will be told by itself what is wrong
            found = None
        except Exception:
            logger.exception("requests that came together could not be answered together")
            found = None
        except BaseException as error:
            record.ended(error)
            raise
        if found is None:
            return None, record.apart()
        bodies, response = found
        queue_ns, compute_ns, rows, modelled_ns, first, closed = timing = response.timing
        waited = [len(request.body) for request, still in zip(requests, present, strict=True) if still]
        told = sum([len(body) for body, still in zip(bodies, present, strict=True) if still])
        record.answered(timing, len(waited), sum(waited), told)
        provenance = provenance_lines(response)
        answers = []
        for at, (request, body) in enumerate(zip(requests, bodies, strict=True), first):
            _, ids = self._ids(request.head)
            position = at % rows if rows else 0  # of more than one batch holds, each begins anew
            spent = time_spent(Timing(queue_ns, compute_ns, rows, modelled_ns, position, closed), record.decode_ns)
            lines = f"{ids}x-accelserve-timing: {spent}\r\n{provenance}"
            answers.append(HttpResponse(200, body, lines.encode("latin-1")))
        return answers, None

    def _failed(self, record: RequestRecord, error: ScoringError, request_id: str, ids: str) -> HttpResponse:
        note_internal(error, request_id)
        # Every counted route takes POST alone.
        answer = error_response(error, {"allow": "POST"} if error.kind is Kind.METHOD else None)
        record.bytes_out = len(answer.body)
        record.failed(error, str(answer.status))
        logger.debug("%s: %s", error.reason, error.message, extra={"request_id": request_id})
        return answer._replace(lines=ids.encode("latin-1") + answer.lines)


async def answered(handle: Handle, request: HttpRequest) -> HttpResponse:
    """What `handle` answers. What no exchange has caught: the traceback to the log, its id to the client."""
    try:
        return await handle(request)
    except Exception as error:
        return unforeseen_response(request.head, error)


def unforeseen_response(head: Head, error: Exception) -> HttpResponse:
    request_id = clean_request_id(head.headers.get("x-request-id", "")) or new_request_id()
    return error_response(unforeseen(error, request_id), {"x-request-id": request_id})


def asked_of(head: Head) -> Asked:
    """`x-accelserve-timeout-ms` and `x-accelserve-priority`. Raises ScoringError(INVALID)."""
    text = head.headers.get("x-accelserve-timeout-ms")
    wait_ns = None if text is None else _milliseconds(text) * 1_000_000
    return Asked(wait_ns, parse_priority(head.headers.get("x-accelserve-priority", "normal")))


def _milliseconds(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text[:12]) <= MAX_TIMEOUT_MS and len(text) <= 12:
        return int(text)
    message = f"x-accelserve-timeout-ms: want whole milliseconds from 1 to {MAX_TIMEOUT_MS}, got {text[:32]!r}"
    raise ScoringError(Kind.INVALID, message)
