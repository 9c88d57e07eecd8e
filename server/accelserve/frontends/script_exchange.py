"""One request of an entry script over HTTP, from first count to last header, whatever the routes around it are."""

import asyncio
import logging
from typing import Protocol

from accelserve.clock import Clock
from accelserve.entry_script.heads import request_head
from accelserve.entry_script.messages import ScriptResponse
from accelserve.entry_script.pool import WorkerPool
from accelserve.entry_script.script_run import ScriptRun
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.exchange import note_internal, unforeseen
from accelserve.frontends.http_coding import unpacked
from accelserve.frontends.http_exchange import asked_of
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse
from accelserve.frontends.offload import Offload
from accelserve.frontends.script_answer import THE_SCRIPTS_FAULT, http_answer
from accelserve.observability.metrics import Metrics, RequestRecord

logger = logging.getLogger("accelserve.http")

_NOT_PLAIN = ("content-encoding", "x-accelserve-timeout-ms", "x-accelserve-priority")
_OF_THE_CODING = frozenset({"content-encoding", "content-length"})


class Dialect(Protocol):
    """What the routes around the script say beside its own words."""

    def told(self, head: Head) -> tuple[str, str]:
        """The request's id, and header lines for its answer, whatever that is."""
        ...

    def check(self, head: Head) -> None:
        """Raises ScoringError for a request that the script is not asked."""
        ...

    def refusal(self, head: Head, error: ScoringError) -> HttpResponse:
        """The answer in place of the script's; its lines are those beyond `told`'s."""
        ...


class ScriptExchange:
    """Asks the script, counts, and answers in the words of a dialect. model: the name in the metrics."""

    def __init__(
        self,
        pool: WorkerPool,
        metrics: Metrics,
        clock: Clock,
        dialect: Dialect,
        offload: Offload,
        max_body_bytes: int,
        model: str,
        *,
        unpacks: bool = True,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._now_ns = clock.now_ns
        self._dialect = dialect
        self._offload = offload
        self._max_body_bytes = max_body_bytes
        self._model = model
        self._unpacks = unpacks

    async def run(self, request: HttpRequest, record: RequestRecord | None = None, method: str = "") -> HttpResponse:
        """Never raises, except for cancellation (the client is gone).

        record: where the request has been counted. method: what the script sees, if not the client's.
        """
        head = request.head
        if record is None:
            record = self._metrics.open("http")
        record.model, record.bytes_in = self._model, len(request.body)
        request_id, lines = self._dialect.told(head)
        try:
            self._dialect.check(head)
            if not method and head.read(_is_plain):
                response = await self._pool.submit(head.read(_script_head), request.body, request_id)
            else:
                response = await self._asked(request, record, request_id, method or head.method)
            answer = http_answer(response, lines)
        except ScoringError as error:
            return self._failed(head, record, error, request_id, lines)
        except Exception as error:
            return self._failed(head, record, unforeseen(error, request_id), request_id, lines)
        except BaseException as error:
            record.ended(error)
            raise
        self._count(record, response, answer)
        return answer

    async def _asked(self, request: HttpRequest, record: RequestRecord, request_id: str, method: str) -> ScriptResponse:
        head = request.head
        wait_ns, _ = head.read(asked_of)
        fields, body = head.fields, request.body
        if self._unpacks and "content-encoding" in head.headers:
            body = await unpacked(request, self._offload, self._max_body_bytes)
            fields = tuple([field for field in fields if field[0] not in _OF_THE_CODING])
            fields = (*fields, ("content-length", str(len(body))))
        asked = request_head(method, head.path, head.query_string, fields)
        if wait_ns is None:
            return await self._pool.submit(asked, body, request_id)
        deadline_ns = record.started_ns + wait_ns
        return await self._in_time(self._pool.submit(asked, body, request_id, deadline_ns), deadline_ns)

    async def _in_time(self, run: ScriptRun, deadline_ns: int) -> ScriptResponse:
        """A deadline that passes while the script runs is answered on time; the script runs on, for nobody."""

        def overdue() -> None:
            if not run.done():
                run.fail(ScoringError(Kind.DEADLINE, "the deadline passed before the script's answer was there"))

        left_s = max(0.0, (deadline_ns - self._now_ns()) / 1e9)
        timer = asyncio.get_running_loop().call_later(left_s, overdue)
        try:
            return await run
        finally:
            timer.cancel()

    def _failed(
        self, head: Head, record: RequestRecord, error: ScoringError, request_id: str, lines: str
    ) -> HttpResponse:
        if error.reason in THE_SCRIPTS_FAULT:  # where in the server it came from tells nobody anything
            logger.warning("%s", error.message, extra={"request_id": request_id})
        else:
            note_internal(error, request_id)
        answer = self._dialect.refusal(head, error)
        record.bytes_out = len(answer.body)
        record.failed(error, str(answer.status))
        logger.debug("%s: %s", error.reason, error.message, extra={"request_id": request_id})
        return answer._replace(lines=lines.encode("latin-1", "replace") + answer.lines)

    def _count(self, record: RequestRecord, response: ScriptResponse, answer: HttpResponse) -> None:
        record.bytes_out = len(answer.body)
        code = str(answer.status)
        if not response.failed:
            record.answered(None, code)
        elif answer.status == Kind.DEADLINE.http_status:
            record.failed(ScoringError(Kind.DEADLINE, "", reason="script_timeout"), code)
        else:
            record.failed(ScoringError(Kind.INTERNAL, "", reason="script_failed"), code)


def _is_plain(head: Head) -> bool:
    """Whether nothing in it asks for more than handing it over."""
    return not any(name in head.headers for name in _NOT_PLAIN)


def _script_head(head: Head) -> bytes:
    return request_head(head.method, head.path, head.query_string, head.fields)
