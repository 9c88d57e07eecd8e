"""An ONNX graph with all its weights and types, and parts cut out of it by the names of tensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from accelserve.backends.accel_onnx.model_file import inputs_of, read_model
from accelserve.backends.accel_onnx.operators import constants_of, is_constant, reads, refusal
from accelserve.backends.onnx_runtime.files import external_files
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

MOST_BYTES = 2**31 - 1  # of one protobuf message
_SMALL_BYTES = 4096  # constants up to here may say shapes


def read_whole(model: str, path: Path) -> ModelProto:
    """The file with the weights that lie beside it. Raises ScoringError(PRECONDITION), also above 2 GiB."""
    external_files(path)  # refuses places outside of the folder
    proto = read_model(model, path)
    sizes = [_beside(tensor).get("length", "0") for tensor in proto.graph.initializer]
    if (total := path.stat().st_size + sum(map(int, sizes))) > MOST_BYTES:
        message = f"{model}: with its weights it has {total:,} bytes, and an ONNX file of one piece ends at 2 GiB"
        raise ScoringError(Kind.PRECONDITION, message)
    for tensor in proto.graph.initializer:
        if place := _beside(tensor):
            tensor.raw_data = _weights(model, path.parent / place["location"], tensor.name, place)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return proto


def _beside(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data} if tensor.data_location else {}


def _weights(model: str, file: Path, name: str, place: Mapping[str, str]) -> bytes:
    length = int(place["length"]) if "length" in place else -1
    try:
        with file.open("rb") as stream:
            stream.seek(int(place.get("offset", "0")))
            data = stream.read(length)
    except OSError as error:
        raise ScoringError(Kind.PRECONDITION, f"{model}: weights {name}: {file}: {error.strerror}") from error
    if length not in (-1, len(data)):
        message = f"{model}: weights {name}: {file} is too short: want {length} bytes, got {len(data)}"
        raise ScoringError(Kind.PRECONDITION, message)
    return data


def types_of(model: ModelProto) -> Mapping[str, ValueInfoProto]:
    """Type and shape of every tensor of the graph for which they can be told, by name.

    Raises ScoringError(PRECONDITION) for a graph that contradicts itself.
    """
    import onnx

    thin = ModelProto()
    thin.CopyFrom(model)
    for tensor in thin.graph.initializer:
        if len(tensor.raw_data) > _SMALL_BYTES:
            tensor.ClearField("raw_data")  # shapes need the weights' sizes and not the weights
    try:
        told = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(thin.SerializeToString()))
    except (onnx.shape_inference.InferenceError, DecodeError, RuntimeError) as error:
        raise ScoringError(Kind.PRECONDITION, f"the graph's shapes contradict each other: {error}") from error
    graph = ModelProto.FromString(told.SerializeToString()).graph
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def only_for(model: ModelProto, outputs: Sequence[str], types: Mapping[str, ValueInfoProto]) -> ModelProto:
    """The model with `outputs` alone, any tensors of it, and with what is told of those in between."""
    found = ModelProto(
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version
    )
    found.opset_import.extend(model.opset_import)
    graph, kept = found.graph, _needed_for(model.graph, outputs)
    graph.name = model.graph.name or "graph"
    graph.node.extend(node for node in model.graph.node if kept.intersection(node.output))
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in kept)
    graph.input.extend(value for value in inputs_of(model.graph) if value.name in kept)
    graph.output.extend(types[name] if name in types else ValueInfoProto(name=name) for name in outputs)
    told = {value.name for value in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    graph.value_info.extend(types[name] for name in sorted(kept - told) if name in types)
    return found


def _needed_for(graph: GraphProto, outputs: Sequence[str]) -> set[str]:
    """Every value from which `outputs` are made, with these."""
    makers = {name: node for node in graph.node for name in node.output if name}
    needed, pending = set[str](), list(outputs)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += reads(makers[name]) if name in makers else ()
    return needed


def prefix_ends(model: ModelProto) -> tuple[str, ...]:
    """What a device hands over when it takes every operator that it can from the inputs on, whatever is left."""
    constants = constants_of(model)
    made = {value.name for value in inputs_of(model.graph)}
    given, left = set(made), list[NodeProto]()
    for node in model.graph.node:
        if is_constant(node, constants):
            continue
        takes = not refusal(node, constants) and all(name in made or name in constants for name in reads(node))
        if takes:
            made.update(filter(None, node.output))
        else:
            left.append(node)
    wanted = {name for node in left for name in reads(node)} | {value.name for value in model.graph.output}
    return tuple(name for node in model.graph.node for name in node.output if name in wanted & (made - given))
