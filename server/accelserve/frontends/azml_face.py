"""The routes of azureml-inference-server-http: `/`, `/score`, `/swagger.json`; and /metrics.

By default with the improvements that docs/azure_probe_table.md lists; with a strict dialect as the original answers.
"""

from collections.abc import Mapping
from typing import Protocol

from accelserve.errors import ScoringError
from accelserve.frontends.azml_dialect import METHODS, AzmlDialect, message_answer
from accelserve.frontends.exchange import unforeseen
from accelserve.frontends.http_lane import HttpLane, LaneRoute
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse
from accelserve.frontends.script_exchange import ScriptExchange
from accelserve.frontends.script_swagger import swagger_of
from accelserve.lifecycle import Lifecycle
from accelserve.observability.metrics import Metrics, RequestRecord

_HTML = "text/html; charset=utf-8"
_NOT_FAILED = "x-ms-run-function-failed: False\r\n"


class Script(Protocol):
    """What the routes ask of the pool of workers beside answers."""

    @property
    def swagger(self) -> Mapping[str, str]: ...

    def ready(self) -> bool: ...

    def why_not_ready(self) -> str: ...


class AzmlFace:
    """Handler of all requests. Only those to /score are counted."""

    def __init__(
        self, exchange: ScriptExchange, script: Script, dialect: AzmlDialect, lifecycle: Lifecycle, metrics: Metrics
    ) -> None:
        self._exchange = exchange
        self._script = script
        self._dialect = dialect
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def handle(self, request: HttpRequest, record: RequestRecord | None = None) -> HttpResponse:
        head = request.head
        if head.path == "/score" and not self._is_ours(head):
            method = "GET" if head.method == "HEAD" and not self._dialect.strict else ""
            return await self._exchange.run(request, record, method)
        request_id, lines = self._dialect.told(head)
        try:
            self._dialect.check(head)
            answer = self._ours(head)
        except ScoringError as error:
            answer = self._dialect.refusal(head, error)
        except Exception as error:
            answer = self._dialect.refusal(head, unforeseen(error, request_id))
        return answer._replace(lines=lines.encode("latin-1", "replace") + answer.lines)

    def _is_ours(self, head: Head) -> bool:
        """A preflight request, and whoever asks what a path takes, is not asking the script."""
        return head.method == "OPTIONS" and not self._dialect.strict

    def _ours(self, head: Head) -> HttpResponse:
        """What has been checked and is not for the script."""
        if head.method == "OPTIONS":
            lines = f"allow: {', '.join(METHODS[head.path])}\r\n{_NOT_FAILED if head.path == '/score' else ''}"
            return HttpResponse(200, b"", lines.encode(), _HTML)
        if head.path == "/":
            return self._health()
        if head.path == "/swagger.json":
            found, text = swagger_of(self._script.swagger, head)
            if not found:
                return message_answer(404, text, _NOT_FAILED)
            return HttpResponse(200, text.encode(), _NOT_FAILED.encode())
        page, content_type = self._metrics.render(head.headers.get("accept", ""))
        return HttpResponse(200, page, content_type=content_type)

    def _health(self) -> HttpResponse:
        """Answered by the event loop, whatever the workers do."""
        if self._lifecycle.stopping:
            return message_answer(503, "the server is stopping", "")
        if not self._script.ready():
            return message_answer(503, self._script.why_not_ready(), "retry-after: 1\r\n")
        return HttpResponse(200, b"Healthy", content_type=_HTML)


def azml_lane(exchange: ScriptExchange) -> HttpLane:
    """Plain POSTs to /score, as `AzmlFace.handle` answers them."""
    return HttpLane((LaneRoute(lambda head: head.path == "/score", exchange.run, at_once=True),))
