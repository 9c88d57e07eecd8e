"""What httptools' parser has read: the head of a request, what is to come of its body, and why it stopped."""

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import httptools

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_body import LARGE_BODY_BYTES
from accelserve.frontends.http_messages import Header

_LOG = logging.getLogger("accelserve.frontends.http")


class EnoughError(Exception):
    """Raised in the parser's callbacks: stop, nothing is wrong with what was parsed so far."""


def complete_scope(scope: Any, parser: httptools.HttpRequestParser, url: bytes, root_path: str) -> None:
    """Write into an ASGI scope what a complete head says.

    Raises ScoringError(MALFORMED) for another HTTP than 1.0 and 1.1, HttpParserError or UnicodeError for no URL.
    """
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise ScoringError(Kind.MALFORMED, f"HTTP/{version} is not spoken here")
    parsed = httptools.parse_url(url)
    raw = parsed.path or b"/"  # of http://host, RFC 9110 4.2.3
    path = raw.decode("ascii")
    scope["http_version"] = version
    scope["method"] = parser.get_method().decode("ascii")
    scope["path"] = root_path + (unquote(path) if "%" in path else path)
    scope["raw_path"] = root_path.encode("ascii") + raw
    scope["query_string"] = parsed.query or b""


def framing_of(http_version: str, headers: Sequence[Header]) -> bytes:
    """A head with nothing in it but what says where its body ends, whatever its verb."""
    lines = [f"POST / HTTP/{http_version}\r\n".encode()]
    lines += [b"%b: %b\r\n" % h for h in headers if h[0] in (b"content-length", b"transfer-encoding")]
    return b"".join((*lines, b"\r\n"))


def is_brief(headers: Sequence[Header]) -> bool:
    """Whether a request's body comes unasked, and is so small that it is sooner read than refused."""
    for name, value in headers:
        if name == b"content-length":
            if int(value) > LARGE_BODY_BYTES:
                return False
        elif name in (b"expect", b"transfer-encoding", b"upgrade"):
            return False
    return True


def key_in(headers: Sequence[Header]) -> str | None:
    """The key that was sent. Two are as good as none: which is meant?"""
    sent = [value for name, value in headers if name == b"authorization"]
    return sent[0].decode("latin-1") if len(sent) == 1 else None


def problem_of(error: httptools.HttpParserError) -> ScoringError | None:
    """What stopped the parser: an exception of our callbacks, which it wraps, or bytes that are not HTTP.

    None for `EnoughError`. What is unforeseen goes to the log.
    """
    cause = error.__context__
    if isinstance(cause, ScoringError):
        return cause
    if isinstance(cause, EnoughError):
        return None
    if not isinstance(cause, httptools.HttpParserError | UnicodeError | None):
        _LOG.error("unforeseen while parsing a request", exc_info=cause)
        return ScoringError(Kind.INTERNAL, "internal error")
    return ScoringError(Kind.MALFORMED, f"malformed HTTP request: {cause or error}")
