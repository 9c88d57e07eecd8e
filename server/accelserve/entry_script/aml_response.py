"""The response that an `@rawhttp` script gives: what scripts use of Flask's, without Flask."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any, ClassVar

from accelserve.entry_script.json_answers import JsonEncoder
from accelserve.entry_script.mappings import Headers

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
FAILED_HEADER = "x-ms-run-function-failed"
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
        self.run_function_failed = run_function_failed
        self.given_headers: Headers | None = None  # what there is beyond the first content type
        if message is None or json_str or not self._is_text(message):
            self.response: Any = self.encoder.encode({} if message is None else message)
            self.first_content_type = _JSON
        else:
            self.response = message
            self.first_content_type = _HTML
        if response_headers:
            self._add_headers(response_headers)

    @property
    def headers(self) -> Headers:
        """Made when they are asked for: most answers have none of their own."""
        if self.given_headers is None:
            self.given_headers = Headers(
                [("Content-Type", self.first_content_type), (FAILED_HEADER, str(self.run_function_failed))]
            )
        return self.given_headers

    def _is_text(self, message: Any) -> bool:
        if isinstance(message, _TEXT):
            return True
        if isinstance(message, list | tuple):
            return bool(message) and all(isinstance(piece, _TEXT) for piece in message)
        return hasattr(message, "__next__") or hasattr(message, "read")

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

    @mimetype.setter
    def mimetype(self, value: str) -> None:
        self.content_type = f"{value}; charset=utf-8" if value.startswith("text/") else value

    @property
    def status(self) -> str:
        return f"{self.status_code} {_phrase(self.status_code)}".rstrip()

    @status.setter
    def status(self, value: int | str) -> None:
        self.status_code = _status(value)

    def set_cookie(self, key: str, value: str = "", **attributes: Any) -> None:
        """attributes: of `http.cookies`, as `max_age`, `secure`, `httponly`, and `path`, which is "/" if unsaid."""
        cookie = SimpleCookie({key: value})
        for name, said in {"path": "/", **attributes}.items():
            if said not in (None, False):
                cookie[key][name.replace("_", "-")] = said
        self.headers.add("Set-Cookie", cookie[key].OutputString())

    @property
    def is_json(self) -> bool:
        return self.mimetype == _JSON or self.mimetype.endswith("+json")

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False) -> Any:
        """None if it is not said to be JSON. Raises ValueError if it is none, unless silent."""
        try:
            return json.loads(self.get_data()) if force or self.is_json else None
        except ValueError:
            if silent:
                return None
            raise

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
    if 200 <= number <= 599:
        return number
    raise ValueError(f"an answer cannot have the status {status}")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.upper()
    except ValueError:
        return ""
