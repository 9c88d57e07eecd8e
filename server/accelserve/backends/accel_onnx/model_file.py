"""An ONNX file read by those who take it apart: graph and weights, signature, the batch axis made fixed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from google.protobuf.message import DecodeError

from accelserve.backends.artifact_cache import digest_of
from accelserve.backends.base import ModelArtifact
from accelserve.backends.onnx_runtime.files import external_files
from accelserve.backends.onnx_runtime.precision import content_digest
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import DEFAULT_SIGNATURE, DTYPES, Shape, Signature, TensorSpec
from accelserve.wire.onnx_pb2 import GraphProto, ModelProto, TensorProto, ValueInfoProto

_MOST_BYTES = 2**31 - 1  # of one protobuf message
_BY_ONNX = {dtype.onnx: dtype for dtype in DTYPES if dtype.onnx is not None}


def read_model(model: str, path: Path) -> ModelProto:
    """The file's graph; weights in files beside it stay there. Raises ScoringError(PRECONDITION)."""
    try:
        proto: ModelProto = ModelProto.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ScoringError(Kind.PRECONDITION, f"{model} cannot be read as an ONNX model: {error}") from error
    if not proto.graph.output:
        raise ScoringError(Kind.PRECONDITION, f"{model}: {path} holds no ONNX graph with an output")
    return proto


def read_whole(model: str, path: Path) -> ModelProto:
    """The file's graph with the weights that lie beside it. Raises ScoringError(PRECONDITION), also above 2 GiB."""
    proto = read_model(model, path)
    external_files(path)  # refuses places outside of the folder
    room = _MOST_BYTES - path.stat().st_size
    for tensor in proto.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        tensor.raw_data = _weights(model, path.parent / place.get("location", ""), tensor.name, place, room)
        room -= len(tensor.raw_data)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return proto


def _weights(model: str, file: Path, name: str, place: Mapping[str, str], room: int) -> bytes:
    """place: what the tensor says of offset and length. room: for how many bytes."""
    try:
        with file.open("rb") as stream:
            offset = int(place.get("offset", 0))
            wanted = int(place.get("length", file.stat().st_size - offset))
            if wanted > room:
                raise ValueError("with these the model has over 2 GiB, more than an ONNX file of one piece holds")
            stream.seek(offset)
            data = stream.read(max(wanted, 0))
        if len(data) != wanted:
            raise ValueError(f"want {wanted} bytes, got {len(data)}")
    except (OSError, ValueError) as error:
        raise ScoringError(Kind.PRECONDITION, f"{model}: weights {name}: {file} cannot be read: {error}") from error
    return data


def signature_of(model: str, proto: ModelProto) -> Signature:
    """The one signature of a graph; initializers that it also lists as inputs are none.

    Raises ScoringError(PRECONDITION) for an input or output that is no tensor of a known type.
    """
    return Signature(DEFAULT_SIGNATURE, _specs(model, inputs_of(proto.graph)), _specs(model, proto.graph.output))


def inputs_of(graph: GraphProto) -> tuple[ValueInfoProto, ...]:
    """What a run has to be fed."""
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(value for value in graph.input if value.name not in constants)


def with_batch(model: str, proto: ModelProto, rows: int) -> ModelProto:
    """A copy for exactly that many rows: compilers for FPGAs take no open axis.

    The free first axis of inputs and outputs is fixed; what the file says of shapes in between is left out.
    Raises ScoringError(PRECONDITION) for an input with another open axis.
    """
    fixed = ModelProto()
    fixed.CopyFrom(proto)
    fixed.graph.ClearField("value_info")
    for value in inputs_of(fixed.graph):
        shape = _shape(value)
        if shape is None or -1 in shape[1:]:
            message = f'{model} "{value.name}": want a fixed shape for an FPGA, got {_spec(model, value)}'
            raise ScoringError(Kind.PRECONDITION, f"{message}; only the batch axis may be open")
    for value in (*inputs_of(fixed.graph), *fixed.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and sizes[0].WhichOneof("value") != "dim_value":
            sizes[0].dim_value = rows
    return fixed


def content_of(artifact: ModelArtifact, made_for: Mapping[str, object]) -> str:
    """The digest of a plain file, with the weights beside it, or of a converted folder. made_for: as `digest_of`."""
    digest = digest_of if artifact.path.is_dir() else content_digest
    return digest(artifact.path, dict(made_for))


def _specs(model: str, values: Iterable[ValueInfoProto]) -> Mapping[str, TensorSpec]:
    return MappingProxyType({value.name: _spec(model, value) for value in values})


def _spec(model: str, value: ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = _BY_ONNX.get(tensor.elem_type)
    if dtype is None:
        message = f'{model} "{value.name}": want a tensor of a known type, got ONNX type {tensor.elem_type}'
        raise ScoringError(Kind.PRECONDITION, message)
    return TensorSpec(value.name, dtype, _shape(value), value.name)


def _shape(value: ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value if size.WhichOneof("value") == "dim_value" else -1 for size in tensor.shape.dim)
