"""Batch normalization folded into the convolution before it, as a device's compiler does, before any rounding."""

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.accel_onnx.operators import layer_name
from accelserve.backends.fpga_emulator.rewrite_graph import Graph, attributes
from accelserve.wire import onnx_pb2

_EPSILON = 1e-5  # where the node says nothing


def fold_batch_norm(graph: Graph) -> None:
    """Change `graph.source`: each Conv whose only reader is a BatchNormalization takes over its scale and shift."""
    readers = graph.readers()
    folded: dict[int, onnx_pb2.NodeProto] = {}
    for conv in graph.source:
        users = readers.get(conv.output[0], []) if conv.op_type == "Conv" else []
        if len(users) != 1 or users[0].op_type != "BatchNormalization" or conv.output[0] in graph.outputs:
            continue
        if _fold(graph, conv, users[0]):
            folded[id(users[0])] = conv
    for norm_id, conv in folded.items():
        norm = next(node for node in graph.source if id(node) == norm_id)
        conv.output[0] = norm.output[0]
    graph.source = [node for node in graph.source if id(node) not in folded]


def _fold(graph: Graph, conv: onnx_pb2.NodeProto, norm: onnx_pb2.NodeProto) -> bool:
    """Whether all of both is constant; in float64, rounded once to float32."""
    weight, bias = graph.constant(conv.input[1]), _bias(graph, conv)
    scale, shift, mean, variance = (graph.constant(name) for name in norm.input[1:5])
    if weight is None or bias is None or scale is None or shift is None or mean is None or variance is None:
        return False
    factor = scale / np.sqrt(variance.astype(np.float64) + attributes(norm).get("epsilon", _EPSILON))
    wide = factor.reshape(-1, *[1] * (weight.ndim - 1))
    name = layer_name(conv)
    new = [
        graph.weight(f"{name}/folded_weight", (weight * wide).astype(np.float32)),
        graph.weight(f"{name}/folded_bias", ((bias - mean) * factor + shift).astype(np.float32)),
    ]
    conv.input[:] = [conv.input[0], *new]
    return True


def _bias(graph: Graph, conv: onnx_pb2.NodeProto) -> NDArray[np.float32] | None:
    """Zero where there is none, None where it is not constant."""
    if len(conv.input) > 2 and conv.input[2]:
        return graph.constant(conv.input[2])
    return np.zeros(1, np.float32)
