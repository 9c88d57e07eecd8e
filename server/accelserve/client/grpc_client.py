"""The client that speaks TF Serving's gRPC."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from google.protobuf.message import DecodeError

from accelserve.client.server_error import ServerError, retry_seconds
from accelserve.client.tls import ClientTls, authorization
from accelserve.client.values import DEFAULT_TIMEOUT_S, Told, as_tensor, find_signature
from accelserve.codecs.tfserving_proto import decode_predict_response, encode_predict_request
from accelserve.errors import ScoringError
from accelserve.messages import ModelRef
from accelserve.tensors import Tensor
from accelserve.wire.tensorflow_pb2 import SignatureDef
from accelserve.wire.tfserving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    ModelSpec,
    SignatureDefMap,
)

_SERVICE = "/tensorflow.serving.PredictionService"
_UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class GrpcClient:
    """TF Serving's PredictionService over gRPC; for any number of threads. Needs grpcio, and no generated stubs.

    target: "host:port". metadata: sent with every call. key: one of the server's keys. tls: given, TLS is spoken.
    Methods raise ServerError.
    """

    def __init__(
        self,
        target: str,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        key: str = "",
        tls: ClientTls | None = None,
    ) -> None:
        import grpc  # here, so that clients of HTTP alone do not load it

        self._failure = grpc.RpcError
        if tls is None:
            self._channel = grpc.insecure_channel(target, options=_UNLIMITED)
        else:
            self._channel = grpc.secure_channel(target, tls.grpc_credentials(), options=_UNLIMITED)
        self._predict = self._channel.unary_unary(f"{_SERVICE}/Predict")
        self._get_metadata = self._channel.unary_unary(f"{_SERVICE}/GetModelMetadata")
        self._metadata = (*metadata, *([authorization(key)] if key else []))

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
        asked = _predict_message(inputs, model, signature, output_filter)
        return _outputs(self._ask(self._predict, asked, timeout_s))

    def predict_told(
        self,
        inputs: Mapping[str, Any],
        *,
        model: str = "",
        signature: str = "",
        output_filter: Sequence[str] = (),
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> Told[dict[str, Tensor]]:
        """`predict`, with what an accelserve server says beside the outputs: where and in what time they were made."""
        asked = _predict_message(inputs, model, signature, output_filter)
        metadata = (*self._metadata, ("x-accelserve-timing", "1"))
        try:
            answer, call = self._predict.with_call(asked, timeout=timeout_s, metadata=metadata)
        except self._failure as error:
            raise _grpc_error(error) from error
        told = {key: str(value) for key, value in call.trailing_metadata() or ()}
        return Told(_outputs(answer), told)

    def input_names(
        self, model: str = "", *, signature: str = "", timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> tuple[str, ...]:
        """What a signature calls its inputs, in order of name; empty if the model has no such signature.

        signature: "" for `serving_default`, else the only one.
        """
        asked = GetModelMetadataRequest(model_spec=ModelSpec(name=model), metadata_field=["signature_def"])
        answer = self._ask(self._get_metadata, asked.SerializeToString(), timeout_s)
        found = find_signature(_signatures(answer), signature)
        return tuple(sorted(found.inputs)) if found is not None else ()

    def _ask(self, method: Callable[..., bytes], message: bytes, timeout_s: float | None) -> bytes:
        try:
            return method(message, timeout=timeout_s, metadata=self._metadata)
        except self._failure as error:
            raise _grpc_error(error) from error


def _predict_message(inputs: Mapping[str, Any], model: str, signature: str, output_filter: Sequence[str]) -> bytes:
    tensors = {name: as_tensor(value) for name, value in inputs.items()}
    return encode_predict_request(ModelRef(model), signature, tensors, tuple(output_filter))


def _outputs(answer: bytes) -> dict[str, Tensor]:
    """Raises ServerError for what is no answer: anything may listen at a port."""
    try:
        return dict(decode_predict_response(answer).outputs)
    except ScoringError as error:
        raise ServerError("OK", f"the answer cannot be read: {error.message}") from None


def _signatures(answer: bytes) -> dict[str, SignatureDef]:
    """Raises ServerError as `_outputs`."""
    try:
        packed = GetModelMetadataResponse.FromString(answer).metadata["signature_def"]
        return dict(SignatureDefMap.FromString(packed.value).signature_def)
    except DecodeError as error:
        raise ServerError("OK", f"the model's metadata cannot be read: {error}") from None


def _grpc_error(error: Any) -> ServerError:
    metadata = dict(error.trailing_metadata() or ())
    reason, retry = metadata.get("x-accelserve-reason", ""), metadata.get("retry-after")
    return ServerError(error.code().name, error.details() or "", reason, retry_seconds(retry))
