"""Handlers of plain values as ASGI applications: the long way of a request, which is not for the short lane."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from accelserve.frontends.http_exchange import Handle, answered
from accelserve.frontends.http_messages import HttpResponse, asgi_request, wire_headers


def endpoint(handle: Handle) -> Callable[[Request], Awaitable[Response]]:
    async def call(request: Request) -> Response:
        return asgi_response(await answered(handle, asgi_request(request.scope, await request.body())))

    return call


class AnyMethod:
    """An endpoint whose handler judges the verb: Starlette asks an application of its own for no list of them."""

    def __init__(self, handle: Handle) -> None:
        self._call = endpoint(handle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._call(Request(scope, receive))
        await response(scope, receive, send)


def asgi_response(answer: HttpResponse) -> Response:
    response = Response(answer.body, answer.status, media_type=answer.content_type)
    response.raw_headers = wire_headers(answer)
    return response
