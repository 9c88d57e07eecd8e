"""TF Serving's gRPC services spoken with our own messages over a plain channel, and how a test reads a refusal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2

from accelserve.wire.tensorflow_pb2 import DataType, TensorProto, TensorShapeProto
from accelserve.wire.tfserving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    PredictRequest,
    PredictResponse,
)

PATIENCE_S = 30.0
PREDICTION = "/tensorflow.serving.PredictionService"
MODEL = "/tensorflow.serving.ModelService"
HEALTH = "/grpc.health.v1.Health"
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Refusal:
    """How a call failed. metadata: what trailed it."""

    code: grpc.StatusCode
    text: str
    metadata: Mapping[str, str]


class Stub:
    """All methods on one channel. `ask_*` wait for the answer; a refusal is raised as grpc.RpcError."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, _UNLIMITED)
        self.predict = self._method(f"{PREDICTION}/Predict", PredictRequest, PredictResponse)
        self.metadata = self._method(
            f"{PREDICTION}/GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
        )
        self.status = self._method(f"{MODEL}/GetModelStatus", GetModelStatusRequest, GetModelStatusResponse)
        self.check = self._method(f"{HEALTH}/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
        self.watch = self.channel.unary_stream(
            f"{HEALTH}/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def __enter__(self) -> "Stub":
        return self

    def __exit__(self, *failure: object) -> None:
        self.channel.close()

    def _method(self, path: str, request: Any, response: Any) -> grpc.UnaryUnaryMultiCallable:
        return self.channel.unary_unary(
            path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

    def start(
        self, asked: PredictRequest, timeout_s: float | None = PATIENCE_S, metadata: Metadata = ()
    ) -> grpc.Future:
        """A Predict in flight."""
        return self.predict.future(asked, timeout=timeout_s, metadata=metadata)

    def ask(self, asked: PredictRequest, metadata: Metadata = ()) -> PredictResponse:
        return self.predict(asked, timeout=PATIENCE_S, metadata=metadata)

    def ask_bytes(self, path: str, data: bytes) -> bytes:
        """Bytes as they are, to any method."""
        return self.channel.unary_unary(path)(data, timeout=PATIENCE_S)

    def health(self, service: str = "") -> int:
        return self.check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S).status


def refusal_of(call: Any, *arguments: Any, **keywords: Any) -> Refusal:
    """`call(...)` has to fail; how it did. A future is asked for its exception."""
    error = call.exception(PATIENCE_S) if isinstance(call, grpc.Future) else _raised(call, *arguments, **keywords)
    assert error is not None, "the call was answered"
    return Refusal(error.code(), error.details() or "", dict(error.trailing_metadata() or ()))


def _raised(call: Any, *arguments: Any, **keywords: Any) -> grpc.RpcError | None:
    try:
        call(*arguments, **keywords)
    except grpc.RpcError as error:
        return error
    return None


def spec(name: str = "", version: int | None = None, label: str = "", signature: str = "") -> ModelSpec:
    made = ModelSpec(name=name, signature_name=signature)
    if version is not None:
        made.version.value = version
    if label:
        made.version_label = label
    return made


def shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def tensor(dtype: str, *sizes: int, **fields: Any) -> TensorProto:
    """tensor("FLOAT", 2, 1, float_val=[1, 2]): `dtype` without DT_, `sizes` the shape."""
    return TensorProto(dtype=DataType.Value(f"DT_{dtype}"), tensor_shape=shape(*sizes), **fields)


def floats(*values: float, sizes: Sequence[int] | None = None) -> TensorProto:
    """float32 in float_val; the shape is [n] if not told."""
    return tensor("FLOAT", *(sizes if sizes is not None else (len(values),)), float_val=values)


def content(array: np.ndarray) -> TensorProto:
    """float32 in tensor_content."""
    return tensor("FLOAT", *array.shape, tensor_content=np.ascontiguousarray(array, np.float32).tobytes())


def strings(*values: bytes, sizes: Sequence[int] | None = None) -> TensorProto:
    return tensor("STRING", *(sizes if sizes is not None else (len(values),)), string_val=values)


def request(model: ModelSpec | str | None, outputs: Sequence[str] = (), **inputs: TensorProto) -> PredictRequest:
    """model: a name, a spec, or None for a request without model_spec."""
    found = spec(model) if isinstance(model, str) else model
    return PredictRequest(model_spec=found, inputs=inputs, output_filter=outputs)


def sizes_of(proto: TensorProto) -> tuple[int, ...]:
    return tuple(dim.size for dim in proto.tensor_shape.dim)


def values_of(response: PredictResponse, output: str = "y") -> list[float]:
    """The only output: its float_val, which is where public clients look."""
    assert set(response.outputs) == {output}
    proto = response.outputs[output]
    assert (proto.dtype, proto.tensor_content) == (DataType.DT_FLOAT, b"")
    return list(proto.float_val)
