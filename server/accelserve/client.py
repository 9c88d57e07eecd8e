"""A small client: raw scoring and Predict over HTTP, Predict over gRPC, without TensorFlow.

with Client("http://127.0.0.1:8501") as client:
    print(client.score("digit-7.jpg", top=3))
with GrpcClient("127.0.0.1:8500") as client:
    print(client.predict({"images": [jpeg_bytes]})["scores"])
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import numpy as np

from accelserve.codecs.json_tensors import tensor_of
from accelserve.codecs.json_text import dumps, json_value, parse_json
from accelserve.codecs.tfserving_proto import decode_predict_response, encode_predict_request
from accelserve.errors import ScoringError
from accelserve.messages import ModelRef
from accelserve.tensors import DEFAULT_SIGNATURE, DTYPES, DType, Tensor, TensorSpec, find_spec
from accelserve.wire.tfserving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    ModelSpec,
    SignatureDefMap,
)

DEFAULT_TIMEOUT_S = 30.0
GRACE_S = 1.0  # the server's own refusal, which says more, shall arrive before we give up
_SERVICE = "/tensorflow.serving.PredictionService"
_SHOWN_BYTES = 1000  # of an answer that is not ours
_UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_BY_TF_NAME: Mapping[str, DType] = MappingProxyType({dtype.tf_name: dtype for dtype in DTYPES})


class ServerError(Exception):
    """The server said no.

    status: HTTP's number, or gRPC's name ("UNAVAILABLE"). reason: the server's short word, empty if it gave none.
    retry_after_s: when trying again may help.
    """

    def __init__(self, status: int | str, message: str, reason: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s


class Client:
    """HTTP over one kept connection; for one thread at a time.

    url: "http://host:port", with a path where a proxy wants one. headers: sent with every request, a key for example.
    Methods raise ServerError for an answer that is not 200, TimeoutError, and OSError when there is no connection.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"want an address like http://127.0.0.1:8501, got {url!r}")
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = connect(parts.hostname, parts.port)
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers or {})
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

    def _only_model(self, timeout_s: float | None) -> str:
        names = [model["name"] for model in self._request("GET", "/v1/models", timeout_s=timeout_s)["models"]]
        if len(names) != 1:
            raise ValueError(f"say which model: the server has {', '.join(names) or 'none'}")
        return str(names[0])

    def _output_specs(self, model: str, signature: str, timeout_s: float | None) -> dict[str, TensorSpec]:
        if (model, signature) not in self._outputs:
            answer = self._request("GET", f"/v1/models/{model}/metadata", timeout_s=timeout_s)
            known = answer["metadata"]["signature_def"]["signature_def"]
            described = known.get(signature or DEFAULT_SIGNATURE, {}).get("outputs", {})
            self._outputs[model, signature] = {key: _spec(key, info) for key, info in described.items()}
        return self._outputs[model, signature]

    def _request(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None) -> Any:
        headers = dict(self._headers)
        if timeout_s is not None and method == "POST":
            headers["x-accelserve-timeout-ms"] = str(max(1, round(timeout_s * 1000)))
        self._set_timeout(None if timeout_s is None else timeout_s + GRACE_S)
        try:
            response = self._send(method, self._prefix + path, body, headers)
            data = response.read()
        except HTTPException as error:
            self.close()
            raise ConnectionError(f"{method} {path}: the answer is not HTTP, or not whole: {error!r}") from error
        except BaseException:
            self.close()  # what is under way on the connection would be read as the next answer
            raise
        return _document(response, data)

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        """Once more on a new connection if a kept one turns out to be closed: a server may do that between requests."""
        kept = self._connection.sock is not None
        try:
            return self._send_once(method, path, body, headers)
        except ConnectionError:
            self.close()
            if not kept:
                raise
        return self._send_once(method, path, body, headers)

    def _send_once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HTTPResponse:
        with suppress(BrokenPipeError, ConnectionResetError):  # a server that refuses a large body stops reading it
            self._connection.request(method, path, body, headers)
        return self._connection.getresponse()

    def _set_timeout(self, seconds: float | None) -> None:
        self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)


class GrpcClient:
    """TF Serving's PredictionService over gRPC; for any number of threads. Needs grpcio, and no generated stubs.

    target: "host:port". metadata: sent with every call. Methods raise ServerError.
    """

    def __init__(self, target: str, *, metadata: Sequence[tuple[str, str]] = ()) -> None:
        import grpc  # here, so that clients of HTTP alone do not load it

        self._failure = grpc.RpcError
        self._channel = grpc.insecure_channel(target, options=_UNLIMITED)
        self._predict = self._channel.unary_unary(f"{_SERVICE}/Predict")
        self._get_metadata = self._channel.unary_unary(f"{_SERVICE}/GetModelMetadata")
        self._metadata = tuple(metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        model: str = "",
        signature: str = "",
        output_filter: Sequence[str] = (),
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> dict[str, Tensor]:
        """Ask for the outputs; inputs as `as_tensor` takes them.

        A picture goes as its file's bytes, also to an accelserve model whose input is a dense image.
        """
        tensors = {name: as_tensor(value) for name, value in inputs.items()}
        asked = encode_predict_request(ModelRef(model), signature, tensors, tuple(output_filter))
        answer = self._ask(self._predict, asked, timeout_s)
        return dict(decode_predict_response(answer).outputs)

    def input_names(
        self, model: str = "", *, signature: str = DEFAULT_SIGNATURE, timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> tuple[str, ...]:
        """What the model's signature calls its inputs, in order of name; empty if it has no such signature."""
        asked = GetModelMetadataRequest(model_spec=ModelSpec(name=model), metadata_field=["signature_def"])
        answer = self._ask(self._get_metadata, asked.SerializeToString(), timeout_s)
        packed = GetModelMetadataResponse.FromString(answer).metadata["signature_def"]
        return tuple(sorted(SignatureDefMap.FromString(packed.value).signature_def[signature].inputs))

    def _ask(self, method: Callable[..., bytes], message: bytes, timeout_s: float | None) -> bytes:
        try:
            return method(message, timeout=timeout_s, metadata=self._metadata)
        except self._failure as error:
            raise _grpc_error(error) from error


def as_tensor(value: Any) -> Tensor:
    """What a caller has at hand, as a tensor.

    An array is taken as it is. `bytes` or `str` become a string tensor of shape [1], a list of them one of [n]. Python
    floats become float32 and ints int32 where they fit, else int64: the choice of TensorFlow's `make_tensor_proto`.
    """
    if isinstance(value, bytes | str):
        return as_tensor([value])
    # Strings not through numpy's own string types: "S" drops zero bytes at the end, and a JPEG may have some.
    tensor = np.asarray(value, np.object_ if isinstance(_first_leaf(value), bytes | str) else None)
    if tensor.dtype.kind in "SUO":
        return _strings(tensor)
    if isinstance(value, np.ndarray | np.generic):
        return tensor
    if tensor.dtype == np.float64:
        return tensor.astype(np.float32)
    small = tensor.dtype == np.int64 and tensor.size and np.abs(tensor).max() < 2**31
    return tensor.astype(np.int32) if small else tensor


def _first_leaf(value: Any) -> Any:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return value


def _strings(tensor: Tensor) -> Tensor:
    items = [item.encode() if isinstance(item, str) else item for item in tensor.ravel().tolist()]
    if not all(isinstance(item, bytes) for item in items):
        raise ValueError("want an array, or nested lists of equal lengths, of numbers or of strings")
    strings = np.empty(tensor.size, np.object_)
    strings[:] = items
    return strings.reshape(tensor.shape)


def _document(response: HTTPResponse, data: bytes) -> Any:
    """The answer's JSON. Raises ServerError."""
    try:
        document = parse_json(data)
    except ScoringError:
        document = data[:_SHOWN_BYTES].decode(errors="replace")
        if response.status == 200:
            raise ServerError(200, f"the answer is not JSON: {document!r}") from None
    if response.status == 200:
        return document
    message = document.get("error", document) if isinstance(document, dict) else document
    reason, retry = response.headers.get("x-accelserve-reason", ""), response.headers.get("retry-after")
    raise ServerError(response.status, str(message) or response.reason, reason, _seconds(retry))


def _grpc_error(error: Any) -> ServerError:
    metadata = dict(error.trailing_metadata() or ())
    reason, retry = metadata.get("x-accelserve-reason", ""), metadata.get("retry-after")
    return ServerError(error.code().name, error.details() or "", reason, _seconds(retry))


def _seconds(text: str | None) -> int | None:
    """`Retry-After`, where it is a number; other servers may send a date."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _spec(name: str, info: Mapping[str, Any]) -> TensorSpec:
    """An output as the metadata describes it; shapes are not needed here."""
    return TensorSpec(name, _BY_TF_NAME[info["dtype"]], None, info["name"])


def _named_outputs(values: Any, specs: Mapping[str, TensorSpec], wanted: Sequence[str]) -> dict[str, Tensor]:
    """TF Serving leaves out the name when there is one output."""
    names = list(dict.fromkeys(wanted)) or list(specs)
    columns = {names[0]: values} if len(names) == 1 else values
    return {name: tensor_of(value, _dtype(specs, name), has_bools=True) for name, value in columns.items()}


def _dtype(specs: Mapping[str, TensorSpec], name: str) -> DType:
    spec = find_spec(specs, name)
    if spec is None:
        raise ServerError(200, f"the answer has an output {name!r}, the model's metadata has {', '.join(specs)}")
    return spec.dtype
