"""The ids of a request: what a client calls it, what the server does, and the header lines that tell both."""

from collections.abc import Callable
from typing import NamedTuple

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import Head
from accelserve.observability.logs import RequestIds, clean_request_id

AZML_MOST_CHARACTERS = 100


class _Sent(NamedTuple):
    """The ids that a client sent; "" for those it did not, or that are not fit for logs."""

    own: str
    microsoft: str
    client: str


class ServerIds:
    """Of our own routes: every client's names are answered, each with its own value if it was sent.

    new_id is injected so that tests can compare bytes.
    """

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        self._new_id = new_id or RequestIds().new

    def told(self, head: Head) -> tuple[str, str]:
        """The request's id, and the header lines that tell it."""
        own, microsoft, client = head.read(_sent)
        own = own or self._new_id()
        lines = f"x-request-id: {own}\r\nx-ms-request-id: {microsoft or own}\r\n"
        return own, f"{lines}x-ms-client-request-id: {client}\r\n" if client else lines


class AzmlIds:
    """Of azmlinfsrv's routes: x-ms-request-id stands in for a missing x-ms-client-request-id and the other way round.

    version: what x-ms-server-version says, "" for nothing.
    """

    def __init__(self, version: str, new_id: Callable[[], str] | None = None) -> None:
        self._version = f"x-ms-server-version: {version}\r\n" if version else ""
        self._new_id = new_id or RequestIds().new

    def told(self, head: Head) -> tuple[str, str]:
        """The request's id, and the header lines that tell it. An id that is too long is not repeated."""
        trace, own, microsoft, client = head.read(_azml_sent)
        if len(own) > AZML_MOST_CHARACTERS:
            return self._new_id(), f"{self._version}{trace}"
        own = own or _as_uuid(self._new_id())
        lines = f"{self._version}x-request-id: {own}\r\n"
        if len(microsoft) > AZML_MOST_CHARACTERS or len(client) > AZML_MOST_CHARACTERS:
            return own, lines + trace
        told = client or microsoft
        lines = f"{lines}x-ms-request-id: {microsoft or client or own}\r\n"
        return own, f"{lines}x-ms-client-request-id: {told}\r\n{trace}" if told else lines + trace

    def check(self, head: Head) -> None:
        """Raises ScoringError(HEADERS_TOO_LARGE) for an id of more than 100 characters, in the original's words."""
        _, own, microsoft, client = head.read(_azml_sent)
        if len(own) > AZML_MOST_CHARACTERS:
            what = "x-request-id"
        elif len(microsoft) > AZML_MOST_CHARACTERS or len(client) > AZML_MOST_CHARACTERS:
            what = "x-ms-request-id and x-ms-client-request-id"
        else:
            return
        raise ScoringError(Kind.HEADERS_TOO_LARGE, f"{what} must not exceed {AZML_MOST_CHARACTERS} characters")


def _sent(head: Head) -> _Sent:
    names = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
    return _Sent(*[clean_request_id(head.headers.get(name, "")) or "" for name in names])


def _azml_sent(head: Head) -> tuple[str, str, str, str]:
    """The line of TraceId, "" without one, and the ids as they came."""
    trace = f"traceid: {head.headers['traceid']}\r\n" if "traceid" in head.headers else ""
    own, microsoft = head.headers.get("x-request-id", ""), head.headers.get("x-ms-request-id", "")
    return trace, own, microsoft, head.headers.get("x-ms-client-request-id", "")


def _as_uuid(digits: str) -> str:
    """32 hexadecimal digits as a UUID of version 4; anything else as it is."""
    if len(digits) != 32:
        return digits
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
