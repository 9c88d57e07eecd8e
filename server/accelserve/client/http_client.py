"""The client that speaks HTTP: raw scoring, and TF Serving's REST predict."""

import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from accelserve.client.in_time import read_whole, response_until
from accelserve.client.server_error import ServerError, retry_seconds
from accelserve.client.tls import ClientTls, authorization
from accelserve.client.values import DEFAULT_TIMEOUT_S, Told, as_tensor, find_signature
from accelserve.codecs.json_tensors import tensor_of
from accelserve.codecs.json_text import dumps, json_value, parse_json
from accelserve.errors import ScoringError
from accelserve.tensors import DTYPES, DType, Tensor, TensorSpec, find_spec

# A kept connection that its server has closed meanwhile; over TLS OpenSSL has its own words for that.
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
GRACE_S = 1.0  # the server's own refusal, which says more, shall arrive before we give up
_SHOWN_BYTES = 1000  # of an answer that is not ours
_BY_TF_NAME: Mapping[str, DType] = MappingProxyType({dtype.tf_name: dtype for dtype in DTYPES})


class Client:
    """HTTP over one kept connection; for one thread at a time.

    url: "http://host:port", with a path where a proxy wants one, or "https://...". headers: sent with every request.
    key: one of the server's keys. tls: whom to trust, where the system's roots do not know the server.
    Methods raise ServerError for an answer that is not 200, TimeoutError, and OSError when there is no connection.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, key: str = "", tls: ClientTls | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"want an address like http://127.0.0.1:8501, got {url!r}")
        if parts.username is not None:
            raise ValueError("a key does not belong into an address, which others can see: say key=")
        if parts.scheme == "https":
            context = (tls or ClientTls()).context()
            self._connection: HTTPConnection = HTTPSConnection(parts.hostname, parts.port, context=context)
        elif tls is not None:
            raise ValueError(f"want an https:// address to speak TLS with, got {url!r}")
        else:
            self._connection = HTTPConnection(parts.hostname, parts.port)
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers or {}) | (dict([authorization(key)]) if key else {})
        self._outputs: dict[tuple[str, str], dict[str, TensorSpec]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def score(
        self,
        file: str | PathLike[str] | bytes,
        *,
        top: int | None = None,
        model: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> Any:
        """POST a file (by its path) or bytes as they are to /score; the answer's JSON.

        Of one output the nested list, of several an object; with top=K [{"index", "label", "score"}], best first.
        """
        body = file if isinstance(file, bytes) else Path(file).read_bytes()
        query = {"model": model, "top": top}
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        # No Content-Type: the server reads from the bytes what they are.
        return self._request("POST", "/score" + (f"?{asked}" if asked else ""), body, timeout_s=timeout_s)

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        model: str = "",
        signature: str = "",
        output_filter: Sequence[str] = (),
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> dict[str, Tensor]:
        """TF Serving's REST predict, columns in and out; inputs as `as_tensor` takes them.

        The first call for a signature also asks for the model's metadata: JSON has neither the only output's name nor
        any dtype. model: may be left out when the server has one model; ValueError if it has several.
        """
        name = quote(model or self._only_model(timeout_s), safe="")
        outputs = self._output_specs(name, signature, timeout_s)
        body = {"inputs": {key: json_value(as_tensor(value), as_b64=True) for key, value in inputs.items()}}
        extra = {"signature_name": signature, "output_filter": list(output_filter)}
        asked = dumps(body | {key: value for key, value in extra.items() if value})
        answer = self._request("POST", f"/v1/models/{name}:predict", asked, timeout_s=timeout_s)
        return _named_outputs(answer["outputs"], outputs, output_filter)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> Told[bytes]:
        """Any request; the answer's bytes as they came. path: below the client's url, with its query."""
        sent = {**self._headers, **(headers or {})}
        if timeout_s is not None and method == "POST":
            sent["x-accelserve-timeout-ms"] = str(max(1, round(timeout_s * 1000)))
        self._set_timeout(None if timeout_s is None else timeout_s + GRACE_S)
        try:
            response = self._send(method, self._prefix + path, body, sent)
            data = read_whole(response)
        except HTTPException as error:
            self.close()
            raise ConnectionError(f"{method} {path}: the answer is not HTTP, or not whole: {error!r}") from error
        except BaseException:
            self.close()  # what is under way on the connection would be read as the next answer
            raise
        if not 200 <= response.status < 300:
            raise _refusal(response, data)
        return Told(data, {name.lower(): value for name, value in response.headers.items()})

    def _only_model(self, timeout_s: float | None) -> str:
        names = [model["name"] for model in self._request("GET", "/v1/models", timeout_s=timeout_s)["models"]]
        if len(names) != 1:
            raise ValueError(f"say which model: the server has {', '.join(names) or 'none'}")
        return str(names[0])

    def _output_specs(self, model: str, signature: str, timeout_s: float | None) -> dict[str, TensorSpec]:
        if (model, signature) not in self._outputs:
            answer = self._request("GET", f"/v1/models/{model}/metadata", timeout_s=timeout_s)
            known = answer["metadata"]["signature_def"]["signature_def"]
            described = (find_signature(known, signature) or {}).get("outputs", {})
            self._outputs[model, signature] = {key: _spec(key, info) for key, info in described.items()}
        return self._outputs[model, signature]

    def _request(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None) -> Any:
        data = self.ask(method, path, body, timeout_s=timeout_s).value
        try:
            return parse_json(data)
        except ScoringError:
            raise ServerError(200, f"the answer is not JSON: {_shown(data)!r}") from None

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        """Once more on a new connection if a kept one turns out to be closed: a server may do that between requests."""
        kept = self._connection.sock is not None
        try:
            return self._send_once(method, path, body, headers)
        except _CLOSED:
            self.close()
            if not kept:
                raise
        return self._send_once(method, path, body, headers)

    def _send_once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        if self._connection.sock is None:
            self._connection.connect()
        with suppress(*_CLOSED):  # a server that refuses a large body stops reading it
            self._connection.request(method, path, body, headers)
        return self._connection.getresponse()

    def _set_timeout(self, seconds: float | None) -> None:
        """For the connecting and the sending, each; and from now on for all until the answer is whole."""
        answer = HTTPResponse if seconds is None else partial(response_until, until_s=time.monotonic() + seconds)
        self._connection.response_class = answer  # type: ignore[assignment]  # whatever makes one
        self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)


def _refusal(response: HTTPResponse, data: bytes) -> ServerError:
    """What an answer says that is not a success: `{"error": ...}`, of entry scripts `{"message": ...}`, else all.

    A redirection is none either: the key would go to whom the answer names.
    """
    if 300 <= response.status < 400 and (there := response.headers.get("location")):
        return ServerError(response.status, f"a redirection, which is not followed; it leads to {there}")
    said: Any = _shown(data)
    with suppress(ScoringError):
        said = parse_json(data)
    if isinstance(said, dict):
        said = next((said[key] for key in ("error", "message") if key in said), said)
    reason, retry = response.headers.get("x-accelserve-reason", ""), response.headers.get("retry-after")
    return ServerError(response.status, str(said) or response.reason, reason, retry_seconds(retry))


def _shown(data: bytes) -> str:
    return data[:_SHOWN_BYTES].decode(errors="replace")


def _spec(name: str, info: Mapping[str, Any]) -> TensorSpec:
    """An output as the metadata describes it; shapes are not needed here."""
    return TensorSpec(name, _BY_TF_NAME[info["dtype"]], None, info["name"])


def _named_outputs(values: Any, specs: Mapping[str, TensorSpec], wanted: Sequence[str]) -> dict[str, Tensor]:
    """TF Serving leaves out the name when there is one output. Raises ServerError where the two do not fit."""
    names = list(dict.fromkeys(wanted)) or list(specs)
    columns = {names[0]: values} if len(names) == 1 else values
    if not isinstance(columns, dict):
        raise ServerError(200, f"the answer has one output, the model's metadata has {', '.join(names) or 'none'}")
    return {name: tensor_of(value, _dtype(specs, name), has_bools=True) for name, value in columns.items()}


def _dtype(specs: Mapping[str, TensorSpec], name: str) -> DType:
    spec = find_spec(specs, name)
    if spec is None:
        raise ServerError(200, f"the answer has an output {name!r}, the model's metadata has {', '.join(specs)}")
    return spec.dtype
