"""What operators ask: is it alive, is it ready, what does it count."""

import re
from dataclasses import dataclass

import orjson

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import HttpRequest, HttpResponse, error_response
from accelserve.lifecycle import Lifecycle
from accelserve.models.manager import ModelManager
from accelserve.observability.metrics import Metrics

_READY_MODEL = re.compile(r"/readyz/([^/]+)")


@dataclass(frozen=True, slots=True)
class Operations:
    """/healthz (alive), /readyz and /readyz/NAME (ready), /metrics."""

    models: ModelManager
    metrics: Metrics
    lifecycle: Lifecycle

    async def healthz(self, request: HttpRequest) -> HttpResponse:
        """Alive: the event loop answers. Nothing about models, so that a probe never kills a server that loads."""
        return HttpResponse(200, orjson.dumps({"status": "alive"}))

    async def readyz(self, request: HttpRequest) -> HttpResponse:
        """200 when every model has settled and at least one is AVAILABLE, and the server is not told to stop."""
        found = _READY_MODEL.fullmatch(request.path)
        name = found[1] if found else None
        if name is not None and name not in self.models.names():
            return error_response(ScoringError(Kind.NOT_FOUND, f"no model is named {name!r}"))
        ready = not self.lifecycle.stopping and self.models.ready(name)
        names = [name] if name is not None else self.models.names()
        states = {each: self.models.state(each).value for each in names}
        if ready:
            return HttpResponse(200, orjson.dumps({"status": "ready", "models": states}))
        stopping = self.lifecycle.stopping
        told: dict[str, object] = {"status": "stopping" if stopping else "not ready", "models": states}
        if not stopping and name is None:
            told["reason"] = self.models.why_not_ready()
        return HttpResponse(503, orjson.dumps(told))

    async def metrics_page(self, request: HttpRequest) -> HttpResponse:
        body, content_type = self.metrics.render(request.headers.get("accept", ""))
        return HttpResponse(200, body, content_type=content_type)
