"""POST /score and /api/v1/service/NAME/score of a server whose scoring is an entry script."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_exchange import RecordedHandle
from accelserve.frontends.http_ids import ServerIds
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse, error_response
from accelserve.frontends.script_exchange import ScriptExchange
from accelserve.frontends.script_swagger import swagger_of
from accelserve.observability.metrics import RequestRecord


class ServerDialect(ServerIds):
    """Errors that the script did not make are told as everywhere in this server. A `script_exchange.Dialect`."""

    def check(self, head: Head) -> None:
        if head.method != "POST":
            raise ScoringError(Kind.METHOD, f"{head.method} {head.path}: scoring takes POST, with the bytes to score")

    def refusal(self, head: Head, error: ScoringError) -> HttpResponse:
        return error_response(error, {"allow": "POST"} if error.kind is Kind.METHOD else None)


class ScriptScoring:
    """The handlers. models: of the same routes, for those who name a model. swagger: by version, once it is known."""

    def __init__(
        self, script: ScriptExchange, models: RecordedHandle, swagger: Callable[[], Mapping[str, str]]
    ) -> None:
        self._script = script
        self._models = models
        self._swagger = swagger

    def handle(self, request: HttpRequest, record: RequestRecord | None = None) -> Coroutine[Any, Any, HttpResponse]:
        if "model" in request.head.query:
            return self._models(request, record)
        return self._script.run(request, record)

    async def swagger(self, request: HttpRequest) -> HttpResponse:
        """What the script takes and answers."""
        found, text = swagger_of(self._swagger(), request.head)
        return HttpResponse(200, text.encode()) if found else error_response(ScoringError(Kind.NOT_FOUND, text))
