"""The response that an `@rawhttp` script gives: what scripts use of Flask's, without Flask."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from accelserve.entry_script.json_answers import JsonEncoder
from accelserve.entry_script.mappings import Headers

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_FAILED = "x-ms-run-function-failed"
_TEXT = (str, bytes, bytearray, memoryview)


class AMLResponse:
    """message: text, bytes or pieces of these as they are; None is `{}`; with json_str, anything as JSON.

    Here a message that is none of these is JSON too, and a header's value stays whole. StrictAMLResponse has it as the
    original: a dict gives its keys, and a comma in a value makes two headers of it.
    """

    encoder: ClassVar[JsonEncoder] = JsonEncoder()

    def __init__(
        self,
        message: Any,
        status_code: int | str = 200,
        response_headers: Mapping[str, Any] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        self.status_code = _status(status_code)
        self.headers = Headers()
        self._set_message({} if message is None else message, json_str or message is None)
        self.headers[_FAILED] = run_function_failed
        self._add_headers(response_headers or {})

    def _set_message(self, message: Any, as_json: bool) -> None:
        as_json = as_json or not self._is_text(message)
        self.response: Any = self.encoder.encode(message) if as_json else message
        self.headers["Content-Type"] = _JSON if as_json else _HTML

    def _is_text(self, message: Any) -> bool:
        if isinstance(message, list | tuple):
            return bool(message) and all(isinstance(piece, _TEXT) for piece in message)
        return isinstance(message, _TEXT) or hasattr(message, "__next__") or hasattr(message, "read")

    def _add_headers(self, headers: Mapping[str, Any]) -> None:
        for name, value in headers.items():
            if name.lower() == "content-type":
                self.headers.remove(name)
            for item in value if isinstance(value, list | tuple) else [value]:
                self.headers.add(name, item)

    def get_data(self, as_text: bool = False) -> Any:
        """The body, put together once: bytes, or str with as_text."""
        self.response = joined(self.response)
        return self.response.decode("utf-8", "replace") if as_text else self.response

    def set_data(self, value: str | bytes) -> None:
        self.response = value

    @property
    def data(self) -> bytes:
        body: bytes = self.get_data()
        return body

    @data.setter
    def data(self, value: str | bytes) -> None:
        self.set_data(value)

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", ""))

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers["Content-Type"] = value

    @property
    def mimetype(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def status(self) -> str:
        return f"{self.status_code} {_phrase(self.status_code)}".rstrip()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status}]>"


class StrictAMLResponse(AMLResponse):
    """As the original's."""

    encoder = JsonEncoder(strict=True)

    def _is_text(self, message: Any) -> bool:
        return True

    def _add_headers(self, headers: Mapping[str, Any]) -> None:
        if "Content-Type" in headers:
            self.headers.remove("Content-Type")
        for name, value in headers.items():
            for part in value.split(","):
                self.headers.add(name, part.strip())


def joined(message: Any) -> bytes:
    """The bytes of a body given as text, bytes or pieces of these. Raises TypeError for anything else."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, str):
        return message.encode()
    if isinstance(message, bytearray | memoryview):
        return bytes(message)
    return b"".join(_piece(piece) for piece in _pieces(message))


def _pieces(message: Any) -> Iterable[Any]:
    return [message.read()] if hasattr(message, "read") else message


def _piece(piece: Any) -> bytes:
    if isinstance(piece, _TEXT):
        return joined(piece)
    raise TypeError(f"a body is made of text and bytes, not of {type(piece).__name__}")


def _status(status: int | str) -> int:
    """Also of "404 NOT FOUND". Raises ValueError for what no answer can have."""
    number = int(status.split()[0]) if isinstance(status, str) else int(status)
    if not 200 <= number <= 599:
        raise ValueError(f"an answer cannot have the status {status}")
    return number


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.upper()
    except ValueError:
        return ""
