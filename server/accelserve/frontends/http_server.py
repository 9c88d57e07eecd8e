"""The HTTP listener: uvicorn on uvloop with our protocol class."""

import asyncio
import contextlib
import ctypes
import errno
import logging
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from accelserve.config import ServerConfig
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_protocol import HttpConnectionPolicy, HttpLimits, HttpProtocol, protocol_class
from accelserve.frontends.tls import Tls

_BACKLOG = 2048
_LAST_CALL_S = 0.1  # at the end: for handshakes under way, then for first requests on connections just taken
_ARRIVES_S = 1.0  # a TLS handshake that has begun when the server ends
_FAREWELL_S = 3600.0  # uvloop's own limit for the end of a TLS connection; ours looks whether anything moves
_LOG = logging.getLogger("accelserve.frontends.http")

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module lacks it
# Classic BPF over the TCP header: drop a segment with SYN among its flags (byte 13), pass all others.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class HttpServer(uvicorn.Server):
    """uvicorn's server, without its signal handlers (the runtime has its own), and losing no connection at the end.

    shared: other processes accept from the same sockets. tls: for every connection; handshake_s: how long one may take.
    """

    def __init__(
        self, config: uvicorn.Config, shared: bool = False, tls: Tls | None = None, handshake_s: float = 30.0
    ) -> None:
        super().__init__(config)
        self._shared = shared
        self._tls = tls
        self._handshake_s = handshake_s
        self._arriving: weakref.WeakSet[HttpProtocol] = weakref.WeakSet()  # in a handshake, or past it

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which has no limit for handshakes of its own."""
        await self.lifespan.startup()
        loop, secured = asyncio.get_running_loop(), self._secured(self._handshake_s)
        self.servers = [
            await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG, **secured)
            for listener in sockets or ()
        ]
        self.started = True

    def _secured(self, handshake_s: float) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {
            "ssl": self._tls.context,
            "ssl_handshake_timeout": handshake_s,
            "ssl_shutdown_timeout": _FAREWELL_S,
        }

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closing a listening socket resets what its queue holds: let nothing more in, and empty it first.

        Where others accept too, it stays open, and what it holds is theirs.
        """
        if self._shared:
            self._stop_accepting(sockets)
        else:
            await self._close_door(sockets)
        handshakes = any(made.transport is None for made in self._arriving)  # of connections that uvloop took
        # For first requests on connections just taken.
        await asyncio.sleep(_ARRIVES_S if handshakes else _LAST_CALL_S)
        await super().shutdown(sockets)
        for left in list(self.server_state.connections):  # the time to drain is over
            if isinstance(left, HttpProtocol):
                left.give_up()

    async def _close_door(self, sockets: list[socket.socket] | None) -> None:
        doors = [listener.dup() for listener in sockets or ()]  # they stay open when the loop's are closed
        for door in doors:
            _refuse_newcomers(door)
        await asyncio.sleep(_LAST_CALL_S)
        self._stop_accepting(sockets)
        loop, secured = asyncio.get_running_loop(), self._secured(_ARRIVES_S)
        taken = [taken for door in doors for taken in _take_all_and_close(door)]
        connecting = [loop.connect_accepted_socket(self._protocol, connection, **secured) for connection in taken]
        await asyncio.gather(*connecting, return_exceptions=True)  # some clients never end their handshake

    def _stop_accepting(self, sockets: list[socket.socket] | None) -> None:
        for server, listener in zip(self.servers, sockets or (), strict=True):
            server.close()
            listener.close()

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., Any] = self.config.http_protocol_class
        made: HttpProtocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        if self._tls is not None:
            self._arriving.add(made)
        return made


def build_http_server(
    app: ASGIApp,
    policy: HttpConnectionPolicy,
    drain_timeout_s: float,
    *,
    shared: bool = False,
    tls: Tls | None = None,
) -> HttpServer:
    """A server that listens nowhere yet; hand the socket to `serve`. shared: with other processes."""
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
    return HttpServer(config, shared, tls, policy.limits.header_timeout_s)


def http_limits(config: ServerConfig) -> HttpLimits:
    """What a configuration allows a connection."""
    return HttpLimits(
        max_header_bytes=config.max_header_bytes,
        max_body_bytes=config.max_body_bytes,
        header_timeout_s=config.read_timeout_s,
        body_timeout_s=config.read_timeout_s,
        keep_alive_s=config.keep_alive_s,
    )


def open_http_socket(host: str, port: int, flag: str = "--http-port") -> socket.socket:
    """Bind and listen; port 0 takes a free one. Raises ScoringError(CONFLICT) naming the port. flag: that says it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        message = f"HTTP port {port} on {host} {reason}; choose another with {flag}"
        raise ScoringError(Kind.CONFLICT, message) from error
    opened.setblocking(False)
    return opened


def _refuse_newcomers(listener: socket.socket) -> None:
    """Let the kernel drop attempts to connect; once the socket is closed, the next attempt finds it closed."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    kept = ctypes.create_string_buffer(code, len(code))  # the kernel copies it during the call
    try:
        program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(kept))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:  # some kernels want privileges for it
        _LOG.debug("a connection made in the moment in which the socket closes may be reset: %s", error)


def _take_all_and_close(door: socket.socket) -> list[socket.socket]:
    """What waits to be accepted. A newcomer that could not be refused is lost only if it comes after them."""
    taken = []
    with door, contextlib.suppress(OSError):  # none is left, or no more can be taken
        while True:
            connection, _ = door.accept()
            connection.setblocking(False)
            taken.append(connection)
    return taken
