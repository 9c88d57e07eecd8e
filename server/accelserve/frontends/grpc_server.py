"""The gRPC listener: grpcio's asyncio server with raw-bytes handlers."""

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.grpc_health import SERVICE as HEALTH_SERVICE
from accelserve.frontends.grpc_reflection import reflection_pool

_SERVICES = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    HEALTH_SERVICE,
    reflection.SERVICE_NAME,
)


def build_grpc_server(handlers: Iterable[grpc.GenericRpcHandler], max_message_bytes: int) -> grpc.aio.Server:
    """A server that listens nowhere yet. max_message_bytes: of one message, -1 for no limit."""
    options = (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # grpcio would share a taken port silently.
        ("grpc.so_reuseport", 0),
    )
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(tuple(handlers))
    reflection.enable_server_reflection(_SERVICES, server, reflection_pool())
    return server


def listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """Open the port. Returns the port, a free one for 0. Raises ScoringError(CONFLICT)."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = int(server.add_insecure_port(address))
    except RuntimeError as error:
        bound, reason = 0, str(error)
    else:
        reason = "the address cannot be used"
    if not bound:
        message = f"gRPC port {port} on {host} is in use or not allowed ({reason}); choose another with --grpc-port"
        raise ScoringError(Kind.CONFLICT, message)
    return bound
