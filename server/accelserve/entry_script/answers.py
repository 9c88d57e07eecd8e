"""What run() returned, as the response that the server sends."""

import json
from http import HTTPStatus
from typing import Any

from accelserve.entry_script.aml_response import FAILED_HEADER, AMLResponse, joined
from accelserve.entry_script.json_answers import JsonEncoder
from accelserve.entry_script.mappings import Headers
from accelserve.entry_script.messages import ScriptResponse

JSON = "application/json"
RUN_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
INTERNAL = "An unexpected internal error occurred. Check the logs for more info."

# The server's own business, whatever a script says.
_NOT_PASSED_ON = {"content-type", "content-length", "connection", "keep-alive", "transfer-encoding", "upgrade"}
_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED}


class UnencodableAnswer(Exception):
    """run() returned what no answer can be made of; the text says what."""


class Answers:
    """encoder: writes what is no response yet."""

    def __init__(self, encoder: JsonEncoder) -> None:
        self._encoder = encoder

    def response(self, returned: Any, run_ns: int) -> ScriptResponse:
        """A response of ours or of Flask is passed on, anything else is JSON; None is `{}`, as in the original.

        What a response's own pieces raise (a generator is the script's code) comes out as it is.
        Raises UnencodableAnswer.
        """
        if isinstance(returned, AMLResponse):
            return _passed_on(returned, run_ns) if returned.given_headers is not None else _plain(returned, run_ns)
        if _is_from_flask(returned):
            return _passed_on(returned, run_ns)
        try:
            body = self._encoder.encode({} if returned is None else returned)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise UnencodableAnswer(f"run() returned {type(returned).__name__}: {error}") from error
        return ScriptResponse(200, body, JSON, (), run_ns)


def error_response(status: int, message: str, *, run_ns: int | None = None, failed: bool = False) -> ScriptResponse:
    """`{"message": ...}`, spaced as the original's."""
    body = json.dumps({"message": message.encode(errors="replace").decode()}).encode()
    return ScriptResponse(status, body, JSON, (), run_ns, failed)


def _is_from_flask(value: Any) -> bool:
    """A `werkzeug.Response`, by what it can do: it is not imported here."""
    return all(hasattr(value, name) for name in ("status_code", "headers", "get_data", "mimetype"))


def _plain(response: AMLResponse, run_ns: int) -> ScriptResponse:
    """`_passed_on` of one without headers of its own, as most are."""
    status = response.status_code
    body = b"" if status in _WITHOUT_BODY else joined(response.response)
    failed = status >= 500 or response.run_function_failed
    return ScriptResponse(status, body, response.first_content_type, (), run_ns, failed)


def _passed_on(response: Any, run_ns: int) -> ScriptResponse:
    headers = response.headers
    if not isinstance(response, AMLResponse):
        response.direct_passthrough = False  # a file that Flask would send by itself
        headers = _checked(headers)
    body = response.get_data()
    if not isinstance(body, bytes):
        raise UnencodableAnswer(f"run() returned a response whose data is {type(body).__name__}")
    status = int(response.status_code)
    if not 200 <= status <= 599:
        raise UnencodableAnswer(f"run() returned the status {status}")
    pairs = [(name.lower(), value) for name, value in headers]
    content_type = next((value for name, value in pairs if name == "content-type"), "")
    failed = status >= 500 or (FAILED_HEADER, "True") in pairs
    kept = [pair for pair in pairs if pair[0] not in _NOT_PASSED_ON and pair[0] != FAILED_HEADER]
    if status in _WITHOUT_BODY:
        body = b""
    return ScriptResponse(status, body, content_type, tuple(kept), run_ns, failed)


def _checked(headers: Any) -> Headers:
    checked = Headers()
    try:
        for name, value in headers.items():
            checked.add(name, value)
    except ValueError as error:
        raise UnencodableAnswer(f"run() returned a response, but {error}") from error
    return checked
