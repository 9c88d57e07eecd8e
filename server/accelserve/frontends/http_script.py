"""POST /score and /api/v1/service/NAME/score of a server whose scoring is an entry script."""

from collections.abc import Coroutine
from typing import Any

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_exchange import RecordedHandle
from accelserve.frontends.http_ids import ServerIds
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse, error_response
from accelserve.frontends.script_exchange import ScriptExchange
from accelserve.observability.metrics import RequestRecord


class ServerDialect(ServerIds):
    """Errors that the script did not make are told as everywhere in this server. A `script_exchange.Dialect`."""

    def check(self, head: Head) -> None:
        if head.method != "POST":
            raise ScoringError(Kind.METHOD, f"{head.method} {head.path}: scoring takes POST, with the bytes to score")

    def refusal(self, head: Head, error: ScoringError) -> HttpResponse:
        return error_response(error, {"allow": "POST"} if error.kind is Kind.METHOD else None)


class ScriptScoring:
    """The handler. models: of the same routes, for those who name a model."""

    def __init__(self, script: ScriptExchange, models: RecordedHandle) -> None:
        self._script = script
        self._models = models

    def handle(self, request: HttpRequest, record: RequestRecord | None = None) -> Coroutine[Any, Any, HttpResponse]:
        if "model" in request.head.query:
            return self._models(request, record)
        return self._script.run(request, record)
