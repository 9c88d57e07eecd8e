"""TensorFlow Serving's gRPC messages <-> ours (specs/tfserving.md 1.2, 1.3, 1.5)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import Int64Value

from accelserve.codecs.request_layouts import RequestLayouts
from accelserve.codecs.tensor_proto import PaddingBudget, before_elements, decode_tensor, tensor_parts
from accelserve.codecs.wire_format import Part, field, field_head, memory_of
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, ScoreResponse, VersionStatus
from accelserve.tensors import Shape, Signature, Tensor, TensorSpec
from accelserve.wire.error_codes_pb2 import Code
from accelserve.wire.tensorflow_pb2 import SignatureDef, TensorInfo, TensorShapeProto
from accelserve.wire.tfserving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
    StatusProto,
)

SIGNATURE_DEF = "signature_def"  # the one metadata_field there is
SIGNATURE_DEF_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"

# A memo, as that of `lru_cache`: it changes no answer.
_LAYOUTS = RequestLayouts[tuple[ModelRef, str, tuple[str, ...], bool]]()
_MAX_INPUTS = 1024  # each costs 13 µs, and a megabyte has room for 75,000; no model takes as many

_Message = TypeVar("_Message", PredictRequest, PredictResponse, GetModelMetadataRequest, GetModelStatusRequest)


class PredictCall(NamedTuple):  # which is made in a third of the time of a frozen dataclass
    """A Predict request. signature: as sent, "" when the client named none.

    inputs: may lie in the request's own bytes, and are read-only then.
    has_model_spec: whether the request says anything about the model; real FPGA clients leave the message out.
    """

    model: ModelRef
    signature: str
    inputs: Mapping[str, Tensor]
    output_filter: tuple[str, ...] = ()
    has_model_spec: bool = True


@dataclass(frozen=True, slots=True)
class PredictAnswer:
    """What a client reads from a Predict response."""

    outputs: Mapping[str, Tensor]
    model: str
    version: int | None
    signature: str


@dataclass(frozen=True, slots=True)
class MetadataCall:
    """A GetModelMetadata request. fields: never empty, nothing but "signature_def"."""

    model: ModelRef
    fields: tuple[str, ...]


def decode_predict(data: bytes) -> PredictCall:
    """Read a PredictRequest.

    Raises ScoringError(INVALID): bytes that are no such message, an undecodable tensor, a repeated output_filter, more
    than 1024 inputs.
    """
    found = _LAYOUTS.find(data)
    if found is not None:
        inputs, (model, signature, output_filter, has_model_spec) = found
        return PredictCall(model, signature, inputs, output_filter, has_model_spec)
    call = _decode_predict(data)
    _LAYOUTS.learn(data, call.inputs, (call.model, call.signature, call.output_filter, call.has_model_spec))
    return call


def _decode_predict(data: bytes) -> PredictCall:
    request = _parse(PredictRequest, data)
    if len(request.inputs) > _MAX_INPUTS:
        raise ScoringError(Kind.INVALID, f"want at most {_MAX_INPUTS} inputs, got {len(request.inputs)}")
    spec, output_filter = request.model_spec, tuple(request.output_filter)
    if output_filter:
        _refuse_repeated(output_filter)
    budget = PaddingBudget()
    return PredictCall(
        model=_ref(spec),
        signature=spec.signature_name,
        inputs={name: decode_tensor(proto, name, budget) for name, proto in request.inputs.items()},
        output_filter=output_filter,
        has_model_spec=request.HasField("model_spec"),
    )


def encode_predict(response: ScoreResponse, *, as_content: bool = False) -> bytes:
    """Wire bytes of the PredictResponse; model_spec says who answered (a label is never echoed).

    as_content: TF Serving's `--enable_serialization_as_tensor_content`; public clients read the typed fields.
    """
    parts = _tensor_map(PredictResponse.OUTPUTS_FIELD_NUMBER, response.outputs, as_content)
    parts.append(_origin(response.model, response.version, response.signature))
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _origin(model: str, version: int, signature: str) -> bytes:
    """A PredictResponse with nothing but who answered: the end of every answer of one model."""
    encoded: bytes = PredictResponse(model_spec=_spec(ModelRef(model, version), signature)).SerializeToString()
    return encoded


def encode_predict_request(
    ref: ModelRef, signature: str, inputs: Mapping[str, Tensor], output_filter: Sequence[str] = ()
) -> bytes:
    """Wire bytes of the PredictRequest, numbers in tensor_content. Nothing said about the model: no model_spec."""
    spec = None if ref == ModelRef() and not signature else _spec(ref, signature)
    head = PredictRequest(model_spec=spec, output_filter=output_filter).SerializeToString()
    return b"".join([head, *_tensor_map(PredictRequest.INPUTS_FIELD_NUMBER, inputs, as_content=True)])


def decode_predict_response(data: bytes) -> PredictAnswer:
    """Read a PredictResponse. Raises ScoringError(INVALID) as `decode_predict` does."""
    response = _parse(PredictResponse, data)
    budget = PaddingBudget()
    return PredictAnswer(
        outputs={name: decode_tensor(proto, name, budget) for name, proto in response.outputs.items()},
        model=response.model_spec.name,
        version=_ref(response.model_spec).version,
        signature=response.model_spec.signature_name,
    )


def decode_metadata_call(data: bytes) -> MetadataCall:
    """Read a GetModelMetadataRequest. Raises ScoringError(INVALID) for no field or a field we do not know."""
    request = _parse(GetModelMetadataRequest, data)
    fields = tuple(request.metadata_field)
    if not fields:
        raise ScoringError(Kind.INVALID, "GetModelMetadataRequest must specify at least one metadata_field")
    for name in fields:
        if name != SIGNATURE_DEF:
            raise ScoringError(Kind.INVALID, f"Metadata field {name} is not supported")
    return MetadataCall(_ref(request.model_spec), fields)


def encode_metadata(name: str, version: int, signatures: Mapping[str, Signature]) -> bytes:
    """Wire bytes of the GetModelMetadataResponse with all signatures; its model_spec names no signature."""
    definitions = SignatureDefMap(signature_def={key: _signature_def(s) for key, s in signatures.items()})
    packed = AnyProto(type_url=SIGNATURE_DEF_TYPE_URL, value=definitions.SerializeToString())
    spec = _spec(ModelRef(name, version), "")
    encoded: bytes = GetModelMetadataResponse(model_spec=spec, metadata={SIGNATURE_DEF: packed}).SerializeToString()
    return encoded


def decode_status_call(data: bytes) -> ModelRef:
    """Read a GetModelStatusRequest. Raises ScoringError(INVALID) for bytes that are no such message."""
    return _ref(_parse(GetModelStatusRequest, data).model_spec)


def encode_status(versions: Sequence[VersionStatus]) -> bytes:
    """Wire bytes of the GetModelStatusResponse, the newest version first."""
    newest_first = sorted(versions, key=lambda v: v.version, reverse=True)
    encoded: bytes = GetModelStatusResponse(
        model_version_status=[_version_status(v) for v in newest_first]
    ).SerializeToString()
    return encoded


def _parse(message: type[_Message], data: bytes) -> _Message:
    try:
        parsed: _Message = message.FromString(data)
    except DecodeError as error:
        raise ScoringError(Kind.INVALID, f"not a {message.DESCRIPTOR.name}: {error}") from None
    return parsed


def _refuse_repeated(output_filter: tuple[str, ...]) -> None:
    seen = set[str]()
    for name in output_filter:
        if name in seen:
            raise ScoringError(Kind.INVALID, f"duplicate output tensor alias: {name}")
        seen.add(name)


def _ref(spec: ModelSpec) -> ModelRef:
    choice = spec.WhichOneof("version_choice")
    return ModelRef(
        name=spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def _spec(ref: ModelRef, signature: str) -> ModelSpec:
    version = None if ref.version is None else Int64Value(value=ref.version)
    return ModelSpec(name=ref.name, version=version, version_label=ref.label, signature_name=signature)


def _tensor_map(number: int, tensors: Mapping[str, Tensor], as_content: bool) -> list[Part]:
    """A map<string, TensorProto> field in pieces: each entry is a message {1: key, 2: tensor}."""
    parts: list[Part] = []
    for name, tensor in tensors.items():
        before = _before_elements(number, name, tensor.dtype, tensor.shape, as_content)
        if before is not None:
            parts += (before, memory_of(tensor))
            continue
        value = tensor_parts(tensor, as_content=as_content)
        parts.append(_entry_head(number, name, sum([len(part) for part in value])))
        parts += value
    return parts


@lru_cache(maxsize=1024)
def _before_elements(
    number: int, name: str, dtype: "np.dtype[np.generic]", shape: Shape, as_content: bool
) -> bytes | None:
    """All of an entry but for the tensor's elements, which follow as they lie in memory; None where they do not."""
    before = before_elements(dtype, shape, as_content)
    if before is None:
        return None
    return _entry_head(number, name, len(before) + math.prod(shape) * dtype.itemsize) + before


@lru_cache(maxsize=1024)
def _entry_head(number: int, name: str, size: int) -> bytes:
    """What stands before the `size` bytes of a tensor; a model's answers have few sizes."""
    key_and_head = field(1, name.encode()) + field_head(2, size)
    return field_head(number, len(key_and_head) + size) + key_and_head


def _signature_def(signature: Signature) -> SignatureDef:
    """Without defaults, as TF Serving's own recorded answers have them."""
    return SignatureDef(
        inputs={key: _tensor_info(spec) for key, spec in signature.inputs.items()},
        outputs={key: _tensor_info(spec) for key, spec in signature.outputs.items()},
        method_name=signature.method_name,
    )


def _tensor_info(spec: TensorSpec) -> TensorInfo:
    return TensorInfo(name=spec.tensor_name, dtype=spec.dtype.tf_name, tensor_shape=_tensor_shape(spec))


def _tensor_shape(spec: TensorSpec) -> TensorShapeProto:
    if spec.shape is None:
        return TensorShapeProto(unknown_rank=True)
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in spec.shape])


def _version_status(status: VersionStatus) -> ModelVersionStatus:
    return ModelVersionStatus(
        version=status.version,
        state=status.state,
        status=StatusProto(error_code=Code.Name(status.error_code), error_message=status.error_message),
    )
