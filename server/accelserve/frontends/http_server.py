"""The HTTP listener: uvicorn on uvloop with our protocol class."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_protocol import HttpConnectionPolicy, protocol_class

_BACKLOG = 2048


class HttpServer(uvicorn.Server):
    """uvicorn's server, without its signal handlers: the runtime has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def build_http_server(app: ASGIApp, policy: HttpConnectionPolicy, drain_timeout_s: float) -> HttpServer:
    """A server that listens nowhere yet; hand the socket to `serve`."""
    config = uvicorn.Config(
        app,
        http=protocol_class(policy),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, int(policy.limits.keep_alive_s)),
        timeout_graceful_shutdown=max(1, int(drain_timeout_s)),
    )
    return HttpServer(config)


def open_http_socket(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 takes a free one. Raises ScoringError(CONFLICT) naming the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        message = f"HTTP port {port} on {host} {reason}; choose another with --http-port"
        raise ScoringError(Kind.CONFLICT, message) from error
    opened.setblocking(False)
    return opened
