"""A service's two ports: opened by whoever starts its supervisor, and kept by the supervisor for all replicas."""

import errno
import socket
from dataclasses import dataclass, replace

from accelserve.deploy.definition import ServiceDefinition
from accelserve.errors import Kind, ScoringError

_BACKLOG = 2048
_REMEDY = "choose another with --{port}-port, or 0 for a free one"


@dataclass(frozen=True, slots=True)
class Ports:
    """http: listens; the replicas inherit it and accept from it together. grpc: keeps the port's number; replicas
    listen there each with a socket of its own, among which the kernel shares out connections (SO_REUSEPORT).
    """

    http: socket.socket
    grpc: socket.socket

    def close(self) -> None:
        self.http.close()
        self.grpc.close()

    def written_into(self, definition: ServiceDefinition) -> ServiceDefinition:
        """The definition with the numbers that were found for port 0."""
        return replace(definition, http_port=_number(self.http), grpc_port=_number(self.grpc))


def open_ports(definition: ServiceDefinition, remedy: str = _REMEDY) -> Ports:
    """remedy: for the message; {port} is http or grpc. Raises ScoringError(CONFLICT) naming what cannot be had."""
    http = _bind(definition.host, definition.http_port, "HTTP", remedy)
    try:
        http.listen(_BACKLOG)
        http.setblocking(False)
        grpc = _bind(definition.host, definition.grpc_port, "gRPC", remedy)
        # Only now: so it was refused when somebody listens there, and replicas may listen beside it from here on.
        # Others may not have it, though nobody listens yet.
        grpc.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        grpc.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        http.close()
        raise _refused(definition.host, definition.http_port, "HTTP", error, remedy) from error
    except BaseException:
        http.close()
        raise
    return Ports(http, grpc)


def _bind(host: str, port: int, what: str, remedy: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        raise _refused(host, port, what, error, remedy) from error
    return opened


def _refused(host: str, port: int, what: str, error: OSError, remedy: str) -> ScoringError:
    reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
    return ScoringError(Kind.CONFLICT, f"{what} port {port} on {host} {reason}; {remedy.format(port=what.lower())}")


def _number(opened: socket.socket) -> int:
    return int(opened.getsockname()[1])
