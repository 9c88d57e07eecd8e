"""What an ONNX graph's tensors are, and the part of it that some of them need."""

from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError

from accelserve.backends.accel_onnx.model_file import inputs_of
from accelserve.backends.accel_onnx.operators import needed_for
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto, ValueInfoProto

_SMALL_BYTES = 4096  # constants up to here may say shapes


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
    graph, kept = found.graph, needed_for(model.graph, outputs)
    graph.name = model.graph.name or "graph"
    graph.node.extend(node for node in model.graph.node if kept.intersection(node.output))
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in kept)
    graph.input.extend(value for value in inputs_of(model.graph) if value.name in kept)
    graph.output.extend(types[name] if name in types else ValueInfoProto(name=name) for name in outputs)
    told = {value.name for value in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    graph.value_info.extend(types[name] for name in sorted(kept - told) if name in types)
    return found
