"""Both listeners: opened together, and closed so that nothing accepted is lost."""

import asyncio
import socket
from dataclasses import dataclass, field

from accelserve.frontends.grpc_core import CoreServer
from accelserve.frontends.grpc_server import listen, listen_privately
from accelserve.frontends.http_policy import HttpConnectionPolicy
from accelserve.frontends.http_server import HttpServer
from accelserve.frontends.tls import Tls
from accelserve.lifecycle import Lifecycle
from accelserve.models.manager import ModelManager

_FORCED_CLOSE_S = 1.0
_LAST_CALL_S = 0.1
_CLOSES_S = 0.01  # grpcio's listener, once it is told to stop


@dataclass(slots=True)
class Doors:
    """HTTP, whose socket listens already, and gRPC.

    shared: other processes listen at the same ports, and take what comes when this one does not. So it opens only when
    it is ready, and sends nobody away when it closes. private: one more address for gRPC, which this process alone has.
    tls: at gRPC's port; HTTP's server has its own.
    """

    http: HttpServer
    http_socket: socket.socket
    grpc: CoreServer
    grpc_address: tuple[str, int]
    lifecycle: Lifecycle
    policy: HttpConnectionPolicy
    drain_timeout_s: float
    shared: bool = False
    private: str = ""
    tls: Tls | None = None
    grpc_port: int = 0
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def are_open(self) -> bool:
        return self._opened.is_set()

    def bind(self) -> None:
        """Take the gRPC port, and the private address. Raises ScoringError(CONFLICT)."""
        self.grpc_port = listen(self.grpc, *self.grpc_address, self.tls)
        if self.private:
            listen_privately(self.grpc, self.private)

    async def open(self) -> None:
        await self.grpc.start()
        self._opened.set()

    async def serve_http(self) -> None:
        """From the opening to the close; a task of its own."""
        await self._opened.wait()
        await self.http.serve(sockets=[self.http_socket])

    async def close(self, models: ModelManager, http_task: "asyncio.Task[None]") -> None:
        """Sockets first; what was accepted is answered within the drain timeout."""
        self.lifecycle.stopping = True
        self.policy.draining = True
        if not self.are_open:
            http_task.cancel()
            return
        self.http.should_exit = True
        await asyncio.gather(
            asyncio.wait({http_task}, timeout=self.drain_timeout_s + _FORCED_CLOSE_S),
            self._close_grpc_beside_others(models) if self.shared else self._close_grpc(models),
        )

    async def _close_grpc(self, models: ModelManager) -> None:
        """Clients hear UNAVAILABLE before the listener goes, and watchers are let go."""
        self.lifecycle.closing = True
        await models.announce()
        await asyncio.sleep(_LAST_CALL_S)
        async with asyncio.TaskGroup() as closing:
            closing.create_task(self.grpc.stop(self.drain_timeout_s))
            await asyncio.sleep(_CLOSES_S)
            self.lifecycle.grpc_closed.set()

    async def _close_grpc_beside_others(self, models: ModelManager) -> None:
        """Clients are told to connect anew, which takes them to another process; only watchers are let go."""
        async with asyncio.TaskGroup() as closing:
            closing.create_task(self.grpc.stop(self.drain_timeout_s))
            await asyncio.sleep(_LAST_CALL_S)
            self.lifecycle.closing = True
            self.lifecycle.grpc_closed.set()
            await models.announce()
