"""The heads of frames: messages as JSON, and back.

The same heads come again and again, since a client's headers stay the same; so both sides keep some of them, by their
bytes or by what they say.
"""

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import orjson

from accelserve.entry_script.framing import Frame, FrameKind
from accelserve.entry_script.messages import (
    Headers,
    ScriptRequest,
    ScriptResponse,
    WorkerFailed,
    WorkerReady,
    WorkerSettings,
)

_KEPT_HEADS = 256
_KEPT_BYTES = 4096  # of one head; longer ones are read anew

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Kept(dict[_Key, _Value], Generic[_Key, _Value]):
    """A cache that forgets its oldest entry."""

    def keep(self, key: _Key, value: _Value) -> None:
        if len(self) >= _KEPT_HEADS:
            del self[next(iter(self))]
        self[key] = value


class RequestHeads:
    """Requests as frames; one for each side."""

    def __init__(self) -> None:
        self._known: _Kept[tuple[str, str, bytes, Headers], bytes] = _Kept()
        self._read: _Kept[bytes, tuple[str, str, bytes, Headers]] = _Kept()

    def frame(self, request_id: int, request: ScriptRequest) -> Frame:
        """Raises ValueError if path or headers cannot be text (a lone surrogate)."""
        said = request[:4]
        head = self._known.get(said)
        if head is None:
            head = request_head(*said)
            if len(head) <= _KEPT_BYTES:
                self._known.keep(said, head)
        return Frame(FrameKind.REQUEST, request_id, head, request.body)

    def request(self, frame: Frame) -> ScriptRequest:
        """Raises ValueError."""
        said = self._read.get(frame.head)
        if said is None:
            method, path, query_string, headers = _parts(frame.head, 4)
            said = (method, path, query_string.encode("latin-1"), _headers(headers))
            if len(frame.head) <= _KEPT_BYTES:
                self._read.keep(frame.head, said)
        return ScriptRequest(*said, frame.body)


class ResponseHeads:
    """Responses as frames; one for each side."""

    def __init__(self) -> None:
        self._known: _Kept[tuple[int, str, Headers, bool, str], bytes] = _Kept()
        self._read: _Kept[bytes, tuple[int, str, Headers, bool, str]] = _Kept()

    def frame(self, request_id: int, response: ScriptResponse) -> Frame:
        """Raises ValueError if a header cannot be text (a lone surrogate)."""
        status, body, content_type, headers, run_ns, failed, report = response
        said = (status, content_type, headers, failed, report)
        head = self._known.get(said)
        if head is None:
            head = _json(said)
            if len(head) <= _KEPT_BYTES:
                self._known.keep(said, head)
        return Frame(FrameKind.RESPONSE, request_id, head, body, run_ns)

    def response(self, frame: Frame) -> ScriptResponse:
        """Raises ValueError."""
        said = self._read.get(frame.head)
        if said is None:
            said = _response_said(frame.head)
            if len(frame.head) <= _KEPT_BYTES:
                self._read.keep(frame.head, said)
        status, content_type, known_headers, failed, report = said
        return ScriptResponse(status, frame.body, content_type, known_headers, frame.run_ns, failed, report)


def request_head(method: str, path: str, query_string: bytes, headers: Headers) -> bytes:
    """All of a request but its body. Raises ValueError if path or headers cannot be text (a lone surrogate)."""
    return _json([method, path, query_string.decode("latin-1"), headers])


def settings_frame(settings: WorkerSettings) -> Frame:
    return Frame(FrameKind.SETTINGS, 0, _json(asdict(settings)))


def settings_of(frame: Frame) -> WorkerSettings:
    return WorkerSettings(**orjson.loads(frame.head))


def ready_frame(ready: WorkerReady) -> Frame:
    return Frame(FrameKind.READY, 0, _json(asdict(ready)))


def failed_frame(failed: WorkerFailed) -> Frame:
    return Frame(FrameKind.FAILED, 0, _json(asdict(failed)))


def start_of(frame: Frame) -> WorkerReady | WorkerFailed:
    """What a worker says first. Raises ValueError if that is neither."""
    try:
        if frame.kind is FrameKind.READY:
            ready = WorkerReady(**orjson.loads(frame.head))
            if _are_texts(ready.shape, *ready.swagger.values()):
                return ready
        elif frame.kind is FrameKind.FAILED:
            failed = WorkerFailed(**orjson.loads(frame.head))
            if _are_texts(failed.message, failed.traceback):
                return failed
    except (TypeError, AttributeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"the worker began with a frame of another shape: {error}") from error
    raise ValueError(f"the worker began with a frame of kind {frame.kind.name}")


def _parts(head: bytes, number: int) -> list[Any]:
    parts = None
    with suppress(orjson.JSONDecodeError):
        parts = orjson.loads(head)
    if not isinstance(parts, list) or len(parts) != number:
        raise ValueError(f"not the head of a request or response: {head[:100]!r}")
    return parts


def _response_said(head: bytes) -> tuple[int, str, Headers, bool, str]:
    """Raises ValueError. A script can write what it likes onto its worker's socket, so nothing is taken on trust."""
    status, content_type, headers, failed, report = _parts(head, 5)
    if not (isinstance(status, int) and isinstance(failed, bool) and _are_texts(content_type, report)):
        raise ValueError(f"not the head of a response: {head[:100]!r}")
    return status, content_type, _headers(headers), failed, report


def _headers(pairs: Any) -> Headers:
    """Raises ValueError."""
    try:
        headers = tuple([(name, value) for name, value in pairs])
    except (TypeError, ValueError) as error:
        raise ValueError(f"not header lines: {error}") from error
    if not all(_are_texts(name, value) for name, value in headers):
        raise ValueError("not header lines: they are not text")
    return headers


def _are_texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:  # orjson's errors are TypeErrors
        raise ValueError(f"cannot be told: {error}") from error
