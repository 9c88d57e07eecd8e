"""The FastAPI application: which path goes to which handler, and nothing else."""

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from accelserve import __version__
from accelserve.errors import Kind, ScoringError
from accelserve.frontends import http_raw, http_tfserving
from accelserve.frontends.http_asgi import AnyMethod, asgi_response, endpoint
from accelserve.frontends.http_exchange import Handle
from accelserve.frontends.http_lane import HttpLane, LaneRoute
from accelserve.frontends.http_messages import HttpRequest, HttpResponse, error_response
from accelserve.frontends.http_ops import Operations
from accelserve.frontends.http_raw import RawScoring
from accelserve.frontends.http_script import ScriptScoring
from accelserve.frontends.http_tfserving import TfServingRest

Scoring = RawScoring | ScriptScoring
_PICTURE_OR_TENSOR: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object"}, "example": {"instances": [[1.0, 2.0]]}},
        },
    }
}
_JSON_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": {"instances": [[1.0, 2.0]]}}},
    }
}


def build_app(raw: Scoring, rest: TfServingRest, operations: Operations) -> FastAPI:
    """All routes. Answers do not depend on FastAPI: handlers map plain values to plain values.

    raw: of models, or of the entry script.
    """
    app = FastAPI(
        title="accelserve", version=__version__, openapi_url="/swagger.json", redoc_url=None, redirect_slashes=False
    )

    def route(path: str, handle: Handle, methods: list[str], summary: str, extra: dict[str, Any] | None = None) -> None:
        app.add_api_route(
            path,
            endpoint(handle),
            methods=methods,
            summary=summary,
            response_model=None,
            openapi_extra=extra,
            name=f"{methods[0]} {path}",
        )

    def hidden(path: str, handle: Handle) -> None:
        app.router.routes.append(Route(path, AnyMethod(handle), include_in_schema=False))

    score = "Score the body's bytes: JPEG, PNG, .npy, raw little-endian tensor or JSON; ?model=NAME, ?top=K"
    for path in ("/score", "/api/v1/service/{name}/score"):
        route(path, raw.handle, ["POST"], score, _PICTURE_OR_TENSOR)
        hidden(path, raw.handle)
    if isinstance(raw, ScriptScoring):
        about = "What the entry script takes and answers; ?version=2|3|3.1"
        route("/api/v1/service/{name}/swagger.json", raw.swagger, ["GET"], about)
    else:

        async def described(request: HttpRequest) -> HttpResponse:
            return HttpResponse(200, orjson.dumps(app.openapi()))

        route("/api/v1/service/{name}/swagger.json", described, ["GET"], "This document, as /swagger.json")
    route("/v1/models", rest.handle, ["GET"], "All models and the states of their versions")
    route("/v1/models/{name}", rest.handle, ["GET"], "State of a model's versions, as TF Serving says it")
    route("/v1/models/{name}/metadata", rest.handle, ["GET"], "Signatures of a model, as TF Serving says them")
    route("/v1/models/{name}:predict", rest.handle, ["POST"], "Predict, row or columnar form", _JSON_BODY)
    for version in ("v1", "V1"):  # TF Serving reads its paths in any case
        hidden(f"/{version}/{{rest:path}}", rest.handle)
    route("/healthz", operations.healthz, ["GET"], "Alive")
    route("/readyz", operations.readyz, ["GET"], "Ready: every model has settled and one is available")
    route("/readyz/{name}", operations.readyz, ["GET"], "Ready: this model is available")
    route("/metrics", operations.metrics_page, ["GET"], "Prometheus metrics")
    app.add_exception_handler(HTTPException, _refused)
    return app


def build_lane(raw: Scoring, rest: TfServingRest) -> HttpLane:
    """The scoring routes once more, for plain requests."""
    return HttpLane(
        (
            LaneRoute(http_raw.scores, raw.handle),
            LaneRoute(http_tfserving.scores, rest.predict, rest.predict_together),
        )
    )


async def _refused(request: Request, error: Exception) -> Response:
    """No such path, or a verb that the path does not take, in the words of all other errors."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    allow = (getattr(error, "headers", None) or {}).get("Allow")
    if status == 405:
        kind, message = Kind.METHOD, f"{request.method} {request.url.path}: this path takes {allow}"
    else:
        kind, message = Kind.NOT_FOUND, f"no such path: {request.url.path}; see /docs"
    return asgi_response(error_response(ScoringError(kind, message), {"allow": allow} if allow else None))
