"""What a script answered, as an HTTP answer: which of its header lines are sent, and what HTTP cannot say."""

import re
from functools import lru_cache

from accelserve.entry_script.messages import Headers, ScriptResponse
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import BODILESS, HttpResponse

THE_SCRIPTS_FAULT = frozenset({"script_timeout", "script_crashed", "script_answer"})  # reasons of errors
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_A_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 5.5
# The server's own business: how the body is framed (RFC 9110 7.6.1), and what it tells of the request.
_NOT_THE_SCRIPTS = frozenset(
    {
        *("content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer"),
        *("upgrade", "content-type", "x-request-id", "x-ms-request-id", "x-ms-client-request-id"),
        *("x-ms-run-function-failed", "x-ms-run-fn-exec-ms"),
    }
)


def http_answer(response: ScriptResponse, lines: str) -> HttpResponse:
    """lines: the server's own header lines. Raises ScoringError(INTERNAL) for what HTTP cannot say."""
    status, body, content_type, headers, run_ns, failed, _ = response
    if not 200 <= status < 600:
        raise _unsayable(f"it answered with status {status}, want one from 200 to 599")
    if not _is_value(content_type):
        raise _unsayable("its Content-Type has what no header has")
    own = _script_lines(headers) if headers else ""
    took = f"x-ms-run-fn-exec-ms: {run_ns / 1e6:.3f}\r\n" if run_ns is not None else ""
    told = f"{lines}{own}x-ms-run-function-failed: {failed}\r\n{took}"
    return HttpResponse(status, b"" if status in BODILESS else body, told.encode("latin-1", "replace"), content_type)


@lru_cache(256)
def _is_value(text: str) -> bool:
    """Whether it can stand in a header; content types are few."""
    return _NOT_IN_A_VALUE.search(text) is None


def _script_lines(headers: Headers) -> str:
    lines = []
    for name, value in headers:
        lowered = name.lower()  # as uvicorn sends the names of the long way
        if lowered in _NOT_THE_SCRIPTS:
            continue
        if not _NAME.fullmatch(name) or _NOT_IN_A_VALUE.search(value):
            raise _unsayable(f"its header {name[:64]!r} has a name or a value that no header has")
        lines.append(f"{lowered}: {value}\r\n")
    return "".join(lines)


def _unsayable(what: str) -> ScoringError:
    return ScoringError(Kind.INTERNAL, f"the script's answer cannot be sent: {what}", reason="script_answer")
