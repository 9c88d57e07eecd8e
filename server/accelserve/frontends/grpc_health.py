"""grpc.health.v1.Health, answered from the models' real state at the moment of the question."""

from dataclasses import dataclass
from functools import partial

import grpc
from grpc_health.v1 import health_pb2

from accelserve.frontends.grpc_core import CoreCall, Handlers, Streaming, Unary
from accelserve.frontends.readiness import Readiness
from accelserve.lifecycle import Lifecycle
from accelserve.models.manager import ModelManager

SERVICE = "grpc.health.v1.Health"
# TF Serving's health service knows the short names; probes written for it must find them.
_WHOLE_SERVER = frozenset(
    {
        "",
        "PredictionService",
        "ModelService",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
    }
)
_Status = health_pb2.HealthCheckResponse


@dataclass(frozen=True, slots=True)
class GrpcHealth:
    """Service names: "" and TF Serving's for the whole server, a model's name for that model."""

    models: ModelManager
    lifecycle: Lifecycle
    readiness: Readiness

    def handlers(self) -> Handlers:
        return {f"/{SERVICE}/Check": Unary(self.check), f"/{SERVICE}/Watch": Streaming(self.watch)}

    def status(self, service: str) -> int | None:
        """SERVING or NOT_SERVING; None for a service that is not there."""
        if service in _WHOLE_SERVER:
            ready = self.readiness.ready()
        elif service in self.models.names():
            ready = self.models.ready(service)
        else:
            return None
        return int(_Status.SERVING if ready and not self.lifecycle.stopping else _Status.NOT_SERVING)

    async def check(self, call: CoreCall, data: bytes) -> None:
        service = _service(data)
        status = self.status(service)
        if status is None:
            call.refuse(grpc.StatusCode.NOT_FOUND, f"no service or model is named {service!r}")
        else:
            call.answer(_Status(status=status).SerializeToString())

    async def watch(self, call: CoreCall) -> None:
        """Each change of the status, the present one first; ends with the server."""
        service = _service(await call.receive() or b"")
        while not self.lifecycle.closing:
            status = self.status(service)
            known = _Status.SERVICE_UNKNOWN if status is None else status
            await call.send(_Status(status=known).SerializeToString())
            await self.models.changed(partial(self._differs, service, status))
        call.finish()

    def _differs(self, service: str, status: int | None) -> bool:
        return self.lifecycle.closing or self.status(service) != status


def _service(data: bytes) -> str:
    return str(health_pb2.HealthCheckRequest.FromString(data).service)
