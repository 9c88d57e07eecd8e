"""One scoring request over HTTP from first count to last header: ids, deadline, metrics, errors."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.exchange import note_internal, parse_priority, provenance, time_spent, unforeseen
from accelserve.frontends.http_messages import HttpRequest, HttpResponse, error_response
from accelserve.messages import Priority, ScoreResponse
from accelserve.observability.logs import clean_request_id, new_request_id
from accelserve.observability.metrics import Metrics, RequestRecord

logger = logging.getLogger("accelserve.http")

MAX_TIMEOUT_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler made: the body, and who computed it."""

    body: bytes
    response: ScoreResponse


Handle = Callable[[HttpRequest], Awaitable[HttpResponse]]
Handler = Callable[[HttpRequest, RequestRecord], Awaitable[Answer]]


class HttpExchange:
    """Runs a handler as one counted request. new_id is injected so that tests can compare bytes."""

    def __init__(self, metrics: Metrics, clock: Clock, new_id: Callable[[], str] = new_request_id) -> None:
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id

    async def run(self, request: HttpRequest, handler: Handler) -> HttpResponse:
        """Never raises, except for cancellation (the client is gone)."""
        ids = self._request_ids(request.headers)
        with self._metrics.open("http") as record:
            record.bytes_in = len(request.body)
            try:
                answer = await handler(request, record)
            except ScoringError as error:
                return self._failed(record, error, ids)
            except Exception as error:
                return self._failed(record, unforeseen(error, ids["x-request-id"]), ids)
            record.bytes_out = len(answer.body)
            record.answered(answer.response.timing)
            response = answer.response
            headers = {
                **ids,
                "x-accelserve-timing": time_spent(response, record.decode_ns),
                **provenance(response),
                "x-accelserve-model": f"{response.model}:{response.version}",
            }
            return HttpResponse(200, answer.body, headers)

    def _failed(self, record: RequestRecord, error: ScoringError, ids: dict[str, str]) -> HttpResponse:
        note_internal(error, ids["x-request-id"])
        # Every counted route takes POST alone.
        allow = {"allow": "POST"} if error.kind is Kind.METHOD else {}
        response = error_response(error, {**ids, **allow})
        record.bytes_out = len(response.body)
        record.failed(error, str(response.status))
        logger.debug("%s: %s", error.reason, error.message, extra={"request_id": ids["x-request-id"]})
        return response

    def _request_ids(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Azure's front door and everybody else: both names are answered, each with its own value if it was sent."""
        own = clean_request_id(headers.get("x-request-id", "")) or self._new_id()
        microsoft = clean_request_id(headers.get("x-ms-request-id", "")) or own
        ids = {"x-request-id": own, "x-ms-request-id": microsoft}
        if client := clean_request_id(headers.get("x-ms-client-request-id", "")):
            ids["x-ms-client-request-id"] = client
        return ids

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def deadline_ns(self, headers: Mapping[str, str]) -> int | None:
        """From `x-accelserve-timeout-ms`. Raises ScoringError(INVALID)."""
        text = headers.get("x-accelserve-timeout-ms")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) <= MAX_TIMEOUT_MS and len(text) <= 12):
            message = f"x-accelserve-timeout-ms: want whole milliseconds from 1 to {MAX_TIMEOUT_MS}, got {text[:32]!r}"
            raise ScoringError(Kind.INVALID, message)
        return self._clock.now_ns() + int(text) * 1_000_000


async def answered(handle: Handle, request: HttpRequest) -> HttpResponse:
    """What `handle` answers. What no exchange has caught: the traceback to the log, its id to the client."""
    try:
        return await handle(request)
    except Exception as error:
        request_id = clean_request_id(request.headers.get("x-request-id", "")) or new_request_id()
        return error_response(unforeseen(error, request_id), {"x-request-id": request_id})


def priority(headers: Mapping[str, str]) -> Priority:
    return parse_priority(headers.get("x-accelserve-priority", "normal"))
