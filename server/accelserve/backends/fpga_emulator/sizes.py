"""What can be known of values' sizes before a request: channels and picture, where the model's input has fixed ones.

Only a help: with literal sizes ONNX Runtime keeps more of its own fusions (ResNet-50 runs a tenth faster). Where
nothing is known, the rewrite asks for the shape as it runs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from accelserve.backends.fpga_emulator.rewrite_graph import Graph, attributes
from accelserve.wire import onnx_pb2

Sizes = tuple[int, ...]  # without the batch

_SAME = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus"),
    *("BatchNormalization", "LRN", "LpNormalization", "InstanceNormalization", "Softmax", "Sqrt", "Exp", "Abs"),
    *("Identity", "Dropout", "Cast"),
)
_BROADCAST = ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min")
_POOLS = ("MaxPool", "AveragePool")


def known_sizes(graph: Graph) -> Mapping[str, Sizes]:
    """Value -> its sizes but the first, where all of them are known."""
    found: dict[str, Sizes] = dict(graph.input_sizes)
    for node in graph.source:
        sizes = _of(graph, node, found)
        if sizes is not None and node.output:
            found[node.output[0]] = sizes
    return found


def _of(graph: Graph, node: onnx_pb2.NodeProto, found: Mapping[str, Sizes]) -> Sizes | None:
    if node.op_type in _BROADCAST:
        return _broadcast(graph, node, found)
    if node.op_type == "Concat":
        return _joined(node, found)
    sizes = found.get(node.input[0]) if node.input else None
    if sizes is None or node.op_type in _SAME:
        return sizes
    given = attributes(node)
    if node.op_type == "Conv":
        weights = graph.constant(node.input[1])
        return None if weights is None else _windowed((len(weights), *sizes[1:]), weights.shape[2:], given)
    if node.op_type in _POOLS:
        return None if given.get("ceil_mode") else _windowed(sizes, tuple(given["kernel_shape"]), given)
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return (sizes[0], *[1] * (len(sizes) - 1))
    if node.op_type == "Transpose" and given.get("perm", [1])[0] == 0:
        return tuple(sizes[axis - 1] for axis in given["perm"][1:])
    return _padded(graph, node, sizes) if node.op_type == "Pad" else None


def _windowed(sizes: Sizes, kernel: Sizes, given: Mapping[str, Any]) -> Sizes:
    """Sizes after a window has gone over all axes but the first (ONNX: Conv, MaxPool)."""
    axes = len(kernel)
    strides, dilations = given.get("strides", [1] * axes), given.get("dilations", [1] * axes)
    pads, auto = given.get("pads", [0] * 2 * axes), given.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        return (sizes[0], *(-(-size // stride) for size, stride in zip(sizes[1:], strides, strict=True)))
    if auto == "VALID":
        pads = [0] * 2 * axes
    spans = [dilation * (width - 1) + 1 for width, dilation in zip(kernel, dilations, strict=True)]
    wide = [size + pads[axis] + pads[axis + axes] for axis, size in enumerate(sizes[1:])]
    return (sizes[0], *((w - span) // stride + 1 for w, span, stride in zip(wide, spans, strides, strict=True)))


def _broadcast(graph: Graph, node: onnx_pb2.NodeProto, found: Mapping[str, Sizes]) -> Sizes | None:
    shapes: list[Sizes] = []
    for name in node.input:
        if name in found:
            shapes.append((1, *found[name]))
        elif (constant := graph.constant(name)) is not None:
            shapes.append(constant.shape)
        else:
            return None
    return np.broadcast_shapes(*shapes)[1:]


def _joined(node: onnx_pb2.NodeProto, found: Mapping[str, Sizes]) -> Sizes | None:
    if attributes(node).get("axis") != 1 or any(name not in found for name in node.input):
        return None
    parts = [found[name] for name in node.input]
    return (sum(part[0] for part in parts), *parts[0][1:])


def _padded(graph: Graph, node: onnx_pb2.NodeProto, sizes: Sizes) -> Sizes | None:
    pads = graph.constant(node.input[1]) if len(node.input) in (2, 3) else None
    if pads is None or len(pads) != 2 * len(sizes) + 2:
        return None
    more = pads.reshape(2, -1).sum(axis=0)[1:]
    return tuple(int(size + extra) for size, extra in zip(sizes, more, strict=True))
