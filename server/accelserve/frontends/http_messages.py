"""An HTTP request and its answer as plain values, so that both lanes give the same."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from accelserve.codecs.tfserving_json import encode_error
from accelserve.errors import Kind, ScoringError

JSON = "application/json"
BODILESS = frozenset({204, 304})  # what stood behind such a head would be taken for the next answer
Header = tuple[bytes, bytes]
Read = TypeVar("Read")


class Head:
    """What stands before a body. Equal bytes make equal heads, so one may serve many requests and is never changed.

    path without the query; query: last value of each name; headers: lower-case names, last value of each.
    query_string, fields: the same as they came, all of them in order.
    """

    __slots__ = ("_readings", "fields", "headers", "method", "path", "query", "query_string")

    def __init__(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        query_string: bytes = b"",
        fields: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.query_string = query_string
        self.fields = fields
        self._readings: dict[Callable[[Head], Any], Any] = {}

    def read(self, reader: "Callable[[Head], Read]") -> Read:
        """`reader(self)`, worked out once; `reader` depends on nothing else. What it raises is raised each time."""
        readings = self._readings
        if reader in readings:
            found: Read = readings[reader]
            return found
        made = readings[reader] = reader(self)
        return made


class HttpRequest(NamedTuple):
    """body: complete, and bytes or a read-only view of them."""

    head: Head
    body: bytes

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        return self.head.path

    @property
    def query(self) -> Mapping[str, str]:
        return self.head.query

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers


class HttpResponse(NamedTuple):
    """lines: header lines as on the wire, each with its CRLF, without those of content.

    content_type: "" for an answer without one. Of a status in BODILESS the body is empty.
    """

    status: int
    body: bytes
    lines: bytes = b""
    content_type: str = JSON


def head_of(method: str, path: str, query: bytes, headers: Iterable[Header]) -> Head:
    """query: as in the request line; headers: names in lower case."""
    pairs = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
    fields = tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    return Head(method, path, pairs, dict(fields), query, fields)


def asgi_request(scope: Mapping[str, Any], body: bytes) -> HttpRequest:
    """scope: of an ASGI "http" connection."""
    return HttpRequest(head_of(scope["method"], scope["path"], scope["query_string"], scope["headers"]), body)


def error_response(error: ScoringError, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """`{"error": message}` with the kind's status and `error_lines`."""
    return HttpResponse(error.kind.http_status, encode_error(error.message), error_lines(error, headers))


def error_lines(error: ScoringError, headers: Mapping[str, str] | None = None) -> bytes:
    """Header lines: the reason, these headers, and `Retry-After` where trying again may help."""
    extra = {"x-accelserve-reason": error.reason, **(headers or {})}
    if error.kind is Kind.UNAUTHENTICATED:
        extra["www-authenticate"] = "Bearer"  # RFC 9110 11.6.1: a 401 without it is none
    if error.retry_after_s is not None:
        extra["retry-after"] = str(error.retry_after_s)
    return header_lines(extra)


def header_lines(headers: Mapping[str, str]) -> bytes:
    """As on the wire. Raises ValueError for a value that would end its line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError(f"a header with a line break: {headers}")
    return text.encode("latin-1", "replace")


def wire_headers(answer: HttpResponse) -> list[Header]:
    """All of an answer's headers, in the order and the spelling of Starlette's Response."""
    lines = (answer.lines + content_lines(answer)).split(b"\r\n")[:-1]
    return [(name, value) for name, _, value in [line.partition(b": ") for line in lines]]


def content_lines(answer: HttpResponse) -> bytes:
    """The header lines of an answer's content."""
    status, body, _, content_type = answer
    if status in BODILESS:
        return b""
    if not content_type:
        return b"content-length: %d\r\n" % len(body)
    return b"content-length: %d\r\ncontent-type: %b\r\n" % (len(body), content_type.encode("latin-1"))
