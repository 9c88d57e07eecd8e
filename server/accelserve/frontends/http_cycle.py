"""One HTTP request inside an ASGI application: uvicorn's cycle, with cancellation and our errors added."""

import asyncio
from typing import Any, Protocol

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import HttpResponse, wire_headers


class Connection(Protocol):
    """What a request asks of the connection that it came on."""

    def closes_after(self, cycle: "Cycle") -> bool:
        """Whether the answer that is about to start is the connection's last."""
        ...

    def refusal(self, error: ScoringError) -> HttpResponse:
        """What tells a client about `error`, where the application does not."""
        ...

    def ready_to_read(self) -> None:
        """The application asked for more of the body: from now on the client's silence counts."""
        ...


class Cycle(RequestResponseCycle):
    """A request from its headers to its answer.

    When the client goes, or the rest of its body cannot be had (it grew over the limit, broke the grammar or stopped
    coming), the application is cancelled. In the second case the connection answers and tells `policy.refused`, so an
    application that counts requests opens its record when it has read the body.
    """

    def __init__(self, connection: Connection, *uvicorn: Any) -> None:
        super().__init__(*uvicorn)
        self.connection = connection
        self.task: asyncio.Task[Any] | None = None
        self.last = False  # the connection closes after this answer

    def feed(self, body: bytes) -> None:
        """A piece of the body."""
        self.body += body
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def abandon(self) -> None:
        """Nobody waits for this answer any more: stop the application."""
        self.disconnected = True
        self.message_event.set()
        if self.task is not None:
            self.task.cancel()

    async def run_asgi(self, app: ASGI3Application) -> None:
        self.task = asyncio.current_task()
        if self.disconnected:
            return

        async def guarded(scope: HTTPScope, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                await self._answer_cancelled()

        await super().run_asgi(guarded)  # type: ignore[arg-type]

    async def _answer_cancelled(self) -> None:
        """By `abandon`, or by uvicorn when its graceful shutdown took too long; neither is an error to be logged."""
        if self.response_complete or self.disconnected:
            return
        if self.response_started:  # half an answer cannot be taken back, only cut
            self.disconnected = True
            self.transport.close()
            return
        answer = self.connection.refusal(ScoringError(Kind.DRAINING, "the server is stopping", retry_after_s=1))
        await self.send({"type": "http.response.start", "status": answer.status, "headers": wire_headers(answer)})
        await self.send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def receive(self) -> ASGIReceiveEvent:
        if self.flow.read_paused or self.waiting_for_100_continue:
            self.connection.ready_to_read()
        return await super().receive()

    async def send(self, message: ASGISendEvent) -> None:
        if self.response_started:
            await super().send(message)
            return
        if self.connection.closes_after(self):
            self.keep_alive = False
        await super().send(message)
        # The headers are written; closing is the connection's business (uvicorn's cycle would close at once).
        self.last, self.keep_alive = not self.keep_alive, True
