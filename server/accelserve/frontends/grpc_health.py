"""grpc.health.v1.Health, answered from the models' real state at the moment of the question."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import grpc
from grpc_health.v1 import health_pb2

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

    def handlers(self) -> grpc.GenericRpcHandler:
        types = {
            "request_deserializer": health_pb2.HealthCheckRequest.FromString,
            "response_serializer": health_pb2.HealthCheckResponse.SerializeToString,
        }
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, **types),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **types),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def status(self, service: str) -> int | None:
        """SERVING or NOT_SERVING; None for a service that is not there."""
        if service in _WHOLE_SERVER:
            ready = self.models.ready()
        elif service in self.models.names():
            ready = self.models.ready(service)
        else:
            return None
        return int(_Status.SERVING if ready and not self.lifecycle.stopping else _Status.NOT_SERVING)

    async def check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        status = self.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service or model is named {request.service!r}")
        return _Status(status=status)

    async def watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Each change of the status, the present one first; ends with the server."""
        while not self.lifecycle.closing:
            status = self.status(request.service)
            yield _Status(status=_Status.SERVICE_UNKNOWN if status is None else status)
            await self.models.changed(partial(self._differs, request.service, status))

    def _differs(self, service: str, status: int | None) -> bool:
        return self.lifecycle.closing or self.status(service) != status
