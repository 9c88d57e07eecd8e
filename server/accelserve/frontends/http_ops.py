"""What operators ask: is it alive, is it ready, what does it count."""

import re
from dataclasses import dataclass

import orjson

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import HttpRequest, HttpResponse, error_response
from accelserve.frontends.readiness import Readiness
from accelserve.lifecycle import Lifecycle
from accelserve.messages import ModelRef
from accelserve.models.manager import ModelManager
from accelserve.models.servable import LoadedModel
from accelserve.observability.metrics import Metrics

_READY_MODEL = re.compile(r"/readyz/([^/]+)")


@dataclass(frozen=True, slots=True)
class Operations:
    """/healthz (alive), /readyz and /readyz/NAME (ready), /metrics."""

    models: ModelManager
    metrics: Metrics
    lifecycle: Lifecycle
    readiness: Readiness

    async def healthz(self, request: HttpRequest) -> HttpResponse:
        """Alive: the event loop answers. Nothing about models, so that a probe never kills a server that loads."""
        return HttpResponse(200, orjson.dumps({"status": "alive"}))

    async def readyz(self, request: HttpRequest) -> HttpResponse:
        """200 when every model has settled and at least one is AVAILABLE, or the entry script runs: see `Readiness`."""
        found = _READY_MODEL.fullmatch(request.path)
        name = found[1] if found else None
        if name is not None and name not in self.models.names():
            return error_response(ScoringError(Kind.NOT_FOUND, f"no model is named {name!r}"))
        stopping = self.lifecycle.stopping
        ready = self.readiness.ready() if name is None else not stopping and self.models.ready(name)
        names = [name] if name is not None else self.models.names()
        told: dict[str, object] = {
            "status": "ready" if ready else "stopping" if stopping else "not ready",
            "models": {each: self.models.state(each).value for each in names},
        }
        if not ready and not stopping and name is None:
            told["reason"] = self.readiness.why_not()
        if name is not None:
            told["versions"] = self._versions(name)
        return HttpResponse(200 if ready else 503, orjson.dumps(told))

    def _versions(self, name: str) -> list[dict[str, object]]:
        """Each version, newest first: its state, and of one that serves where it runs, of one that failed why."""
        serving = {servable.version: servable.model for servable in self.models.servables() if servable.name == name}
        versions = []
        for status in self.models.statuses(ModelRef(name)):
            about: dict[str, object] = {"version": status.version, "state": status.state}
            if status.error_message:
                about["error"] = status.error_message
            if (health := self.models.health(name, status.version)) is not None:
                about |= {"device_state": health.state.value, "reason": health.reason}
            if (model := serving.get(status.version)) is not None:
                about |= _placement(model)
            versions.append(about)
        return versions

    async def metrics_page(self, request: HttpRequest) -> HttpResponse:
        body, content_type = self.metrics.render(request.headers.get("accept", ""))
        return HttpResponse(200, body, content_type=content_type)


def _placement(model: LoadedModel) -> dict[str, object]:
    """Where a model runs. nodes: of its graph, by where they run; {} where that is not known."""
    return {
        "backend": model.backend,
        "devices": [device.id for device in model.devices],
        "emulated": model.emulated,
        "numerics": model.capabilities.numerics,
        "nodes": dict(model.session.placement.nodes),
    }
