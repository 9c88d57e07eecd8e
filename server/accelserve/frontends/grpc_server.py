"""The gRPC listener: all services on one port."""

from collections.abc import Iterable

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.grpc_core import CoreServer, Handlers, Porter
from accelserve.frontends.grpc_health import SERVICE as HEALTH_SERVICE
from accelserve.frontends.grpc_reflection import SERVICE as REFLECTION_SERVICE
from accelserve.frontends.grpc_reflection import reflection_handlers
from accelserve.frontends.grpc_tfserving import MODEL_SERVICE, PREDICTION_SERVICE
from accelserve.frontends.tls import Tls

_MANY = 64  # calls of a method at once, none of which a replica that goes may lose
_HANDSHAKE_MS = 30_000  # for TLS and for the first bytes of HTTP/2
_SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE, HEALTH_SERVICE, REFLECTION_SERVICE)


def build_grpc_server(
    handlers: Iterable[Handlers], max_message_bytes: int, *, shared: bool = False, porter: Porter | None = None
) -> CoreServer:
    """A server that listens nowhere yet. max_message_bytes: of one message, -1 for no limit.

    shared: other processes listen at its port too, each at a socket of its own. porter: who is let in.
    """
    options = (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # grpcio would share a taken port silently.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    )
    all_handlers = dict(reflection_handlers(_SERVICES))
    for some in handlers:
        all_handlers.update(some)
    return CoreServer(all_handlers, options, _MANY if shared else 1, porter)


def listen(server: CoreServer, host: str, port: int, tls: Tls | None = None) -> int:
    """Open the port. Returns the port, a free one for 0. Raises ScoringError(CONFLICT)."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if tls is None:
        bound = server.add_insecure_port(address)
    else:
        bound = server.add_secure_port(address, tls.grpc_credentials())
    if not bound:
        refused = "" if tls is None else ", or gRPC refuses the files of TLS, as it says above"
        message = f"gRPC port {port} on {host} is in use or not allowed{refused}; choose another with --grpc-port"
        raise ScoringError(Kind.CONFLICT, message)
    return bound


def listen_privately(server: CoreServer, address: str) -> None:
    """Open a Unix socket too, "unix:/PATH". Raises ScoringError(CONFLICT)."""
    if not server.add_insecure_port(address):
        raise ScoringError(Kind.CONFLICT, f"gRPC cannot listen at {address}")
