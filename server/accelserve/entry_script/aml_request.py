"""The request that an `@rawhttp` script gets: what scripts use of Flask's, without Flask.

All but the method is worked out when the script asks for it.
"""

import json
from email.message import Message
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from io import BytesIO
from typing import Any

from accelserve.entry_script.forms import FORM_TYPES, Form, query_pairs, read_form
from accelserve.entry_script.mappings import Headers, MultiDict
from accelserve.entry_script.messages import ScriptRequest


class AMLRequest:
    """strict: `data` is empty for forms and `json` wants a JSON content type, as in Flask; otherwise both just read.

    `get_json` raises ValueError, form and files raise ScoringError, where the body is none.
    """

    remote_addr: str | None = None  # the worker does not know it; a proxy's headers may
    scheme = "http"

    def __init__(self, message: ScriptRequest, strict: bool = False) -> None:
        self._message = message
        self._strict = strict
        self.method = message.method

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """The body: bytes, or str with as_text."""
        body = b"" if parse_form_data and self._strict and self.mimetype in FORM_TYPES else self._message.body
        return body.decode("utf-8", "replace") if as_text else body

    @property
    def data(self) -> bytes:
        body: bytes = self.get_data(parse_form_data=True)
        return body

    @cached_property
    def stream(self) -> BytesIO:
        return BytesIO(self._message.body)

    @cached_property
    def headers(self) -> Headers:
        return Headers([(name.title(), value) for name, value in self._message.headers])

    @property
    def content_type(self) -> str | None:
        value: str | None = self.headers.get("content-type")
        return value

    @property
    def mimetype(self) -> str:
        return (self.content_type or "").partition(";")[0].strip().lower()

    @property
    def mimetype_params(self) -> dict[str, str]:
        read = Message()
        read["content-type"] = self.content_type or ""
        return dict(read.get_params(failobj=[])[1:])

    @property
    def content_encoding(self) -> str | None:
        value: str | None = self.headers.get("content-encoding")
        return value

    @property
    def content_length(self) -> int | None:
        """Also of a body that came in chunks; None where there is none at all."""
        size_bytes = len(self._message.body)
        return size_bytes if size_bytes or "content-length" in self.headers else None

    @property
    def is_json(self) -> bool:
        kind = self.mimetype
        return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        if self._strict and not force and not self.is_json:
            if silent:
                return None
            raise ValueError(
                "Did not attempt to load JSON data because the request Content-Type was not 'application/json'"
            )
        try:
            return self._json if cache else json.loads(self._message.body)
        except (ValueError, RecursionError):
            if silent:
                return None
            raise

    @cached_property
    def _json(self) -> Any:
        return json.loads(self._message.body)

    @cached_property
    def _form(self) -> Form:
        return read_form(self._message.body, self.content_type or "")

    @property
    def form(self) -> MultiDict:
        return self._form.fields

    @property
    def files(self) -> MultiDict:
        return self._form.files

    @property
    def query_string(self) -> bytes:
        return self._message.query_string

    @cached_property
    def args(self) -> MultiDict:
        return MultiDict(query_pairs(self._message.query_string))

    @cached_property
    def values(self) -> MultiDict:
        """The query's parameters, then the form's."""
        return MultiDict([*self.args.items(multi=True), *self.form.items(multi=True)])

    @property
    def path(self) -> str:
        return self._message.path

    @property
    def full_path(self) -> str:
        return f"{self.path}?{self._message.query_string.decode('utf-8', 'replace')}"

    @property
    def host(self) -> str:
        return str(self.headers.get("host", ""))

    @property
    def host_url(self) -> str:
        return f"{self.scheme}://{self.host}/"

    url_root = root_url = host_url

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.full_path}".removesuffix("?")

    @property
    def is_secure(self) -> bool:
        return False

    @property
    def user_agent(self) -> str:
        return str(self.headers.get("user-agent", ""))

    @property
    def referrer(self) -> str | None:
        value: str | None = self.headers.get("referer")
        return value

    @property
    def authorization(self) -> str | None:
        value: str | None = self.headers.get("authorization")
        return value

    @cached_property
    def environ(self) -> dict[str, Any]:
        """What scripts read of WSGI's: the request line, and headers as HTTP_X_A."""
        names = {name: f"HTTP_{name.upper().replace('-', '_')}" for name, _ in self._message.headers}
        names |= {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
        return {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path,
            "QUERY_STRING": self._message.query_string.decode("latin-1"),
            "wsgi.url_scheme": self.scheme,
            "wsgi.input": self.stream,
            **{names[name]: self.headers[name] for name, _ in self._message.headers},
        }

    @cached_property
    def cookies(self) -> MultiDict:
        try:
            read = SimpleCookie(self.headers.get("cookie", ""))
        except CookieError:
            return MultiDict()
        return MultiDict((name, morsel.value) for name, morsel in read.items())

    def __repr__(self) -> str:
        return f"<AMLRequest {self.url!r} [{self.method}]>"
