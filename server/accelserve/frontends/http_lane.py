"""The short way for scoring: from ASGI to the handler and back, past FastAPI's routing and dependencies.

Measured on one core with a tiny model: FastAPI's own work on a request is larger than all of ours. Both ways lead to
the same handlers and give the same bytes (tests/frontends/test_http_lane.py replays every case through both).
"""

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from accelserve.frontends.http_exchange import Handle, answered
from accelserve.frontends.http_messages import HttpResponse, asgi_request, wire_headers


class HttpLane:
    """An ASGI application: scoring and /v1/ here, everything else FastAPI's.

    app: who gets the rest. raw, rest: handlers of raw scoring and of TF Serving's paths.
    """

    def __init__(self, app: FastAPI, raw: Handle, rest: Handle) -> None:
        self._app = app
        self._raw = raw
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._handle_for(scope["path"]) if scope["type"] == "http" else None
        if handle is None:
            await self._app(scope, receive, send)
        elif (body := await _body(receive)) is not None:
            await _send(send, await answered(handle, asgi_request(scope, body)))

    def _handle_for(self, path: str) -> Handle | None:
        if path == "/score" or is_service_path(path):
            return self._raw
        return self._rest if path.startswith("/v1/") else None


def is_service_path(path: str) -> bool:
    """`/api/v1/service/NAME/score`."""
    parts = path.split("/")
    return len(parts) == 6 and parts[:4] == ["", "api", "v1", "service"] and bool(parts[4]) and parts[5] == "score"


async def _body(receive: Receive) -> bytes | None:
    """The whole body, whose size the protocol class limits; None when the client left."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    parts = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
    return None


async def _send(send: Send, answer: HttpResponse) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": wire_headers(answer)})
    await send({"type": "http.response.body", "body": answer.body})
