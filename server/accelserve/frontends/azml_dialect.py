"""What azmlinfsrv says around a script's own words: ids, CORS, errors as `{"message": ...}`."""

import json
from collections.abc import Mapping

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.azml_cors import Cors
from accelserve.frontends.http_ids import AzmlIds
from accelserve.frontends.http_messages import Head, HttpResponse, error_lines
from accelserve.frontends.script_answer import THE_SCRIPTS_FAULT

# What each path takes. HEAD is answered as GET, OPTIONS by the server, unless the original's ways are asked for.
METHODS = {
    "/": ("GET", "HEAD", "OPTIONS"),
    "/score": ("GET", "HEAD", "POST", "OPTIONS"),
    "/swagger.json": ("GET", "HEAD", "OPTIONS"),
    "/metrics": ("GET", "HEAD", "OPTIONS"),
}
_NOT_THE_ORIGINALS = frozenset({"/metrics"})
# The original's words, which are Werkzeug's.
_NO_SUCH_PATH = (
    "The requested URL was not found on the server. If you entered the URL manually please check your spelling and "
    "try again."
)
_NO_SUCH_METHOD = "The method is not allowed for the requested URL."
_UNEXPECTED = "An unexpected internal error occurred. Check the logs for more info."


class AzmlDialect:
    """A `script_exchange.Dialect`. strict: as the original, which tells strangers nothing of their request."""

    def __init__(self, ids: AzmlIds, cors: Cors, *, strict: bool = False) -> None:
        self._ids = ids
        self._cors = cors
        self.strict = strict

    def told(self, head: Head) -> tuple[str, str]:
        request_id, lines = self._ids.told(head)
        if self.strict and not self._is_matched(head):
            return request_id, ""
        return request_id, lines + self._cors.lines(head)

    def check(self, head: Head) -> None:
        """Raises ScoringError: NOT_FOUND, METHOD, HEADERS_TOO_LARGE for an id that is too long."""
        if head.path not in METHODS or (self.strict and head.path in _NOT_THE_ORIGINALS):
            raise ScoringError(Kind.NOT_FOUND, _NO_SUCH_PATH)
        if head.method not in METHODS[head.path]:
            raise ScoringError(Kind.METHOD, _NO_SUCH_METHOD)
        self._ids.check(head)

    def refusal(self, head: Head, error: ScoringError) -> HttpResponse:
        kind = error.kind
        lines = f"x-ms-run-function-failed: {error.reason in THE_SCRIPTS_FAULT}\r\n"
        if self.strict:
            status = 500 if kind is Kind.DEADLINE else kind.http_status
            return message_answer(status, _UNEXPECTED if kind is Kind.INTERNAL else error.message, lines)
        lines += f"x-accelserve-reason: {error.reason}\r\n"
        if error.retry_after_s is not None:
            lines += f"retry-after: {error.retry_after_s}\r\n"
        if kind is Kind.METHOD:
            lines += f"allow: {', '.join(METHODS[head.path])}\r\n"
        return message_answer(kind.http_status, error.message, lines)

    def _is_matched(self, head: Head) -> bool:
        return head.method in METHODS.get(head.path, ()) and head.path not in _NOT_THE_ORIGINALS


def refused_by_connection(error: ScoringError, headers: Mapping[str, str]) -> HttpResponse:
    """What no route was asked: a `HttpConnectionPolicy.tell`. (The original's pages are gunicorn's.)"""
    lines = error_lines(error, {"x-ms-run-function-failed": "False", **headers})
    return message_answer(error.kind.http_status, error.message, lines.decode("latin-1"))


def message_answer(status: int, message: str, lines: str) -> HttpResponse:
    """`{"message": ...}`, spaced as the original's."""
    return HttpResponse(status, json.dumps({"message": message}).encode(), lines.encode("latin-1", "replace"))
