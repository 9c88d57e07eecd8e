"""An HTTP request and its answer as plain values, so that both lanes give the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from accelserve.codecs.tfserving_json import encode_error
from accelserve.errors import ScoringError

JSON = "application/json"
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """path without the query; query: last value of each name; headers: lower-case names; body: complete."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


def asgi_request(scope: Mapping[str, Any], body: bytes) -> HttpRequest:
    """scope: of an ASGI "http" connection; header names are lower-case there."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"]
    pairs = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
    return HttpRequest(scope["method"], scope["path"], pairs, headers, body)


def error_response(error: ScoringError, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """`{"error": message}` with the kind's status, the reason, and `Retry-After` where trying again may help."""
    extra = {"x-accelserve-reason": error.reason, **(headers or {})}
    if error.retry_after_s is not None:
        extra["retry-after"] = str(error.retry_after_s)
    return HttpResponse(error.kind.http_status, encode_error(error.message), extra)


def wire_headers(answer: HttpResponse) -> list[Header]:
    """An answer's headers as bytes, in the order and the spelling of Starlette's Response."""
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    headers.append((b"content-type", answer.content_type.encode("latin-1")))
    return headers
