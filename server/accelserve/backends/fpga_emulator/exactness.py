"""When no order of summation can change a bit of a layer's sums.

All products of a sum are whole multiples of the finest step: that of the activations' blocks times the lowest bit of
the weights. While sum|a * w| is below 2^24 of them every partial sum is a whole number that float32 has, so that all
orders give the exact sum. The bias comes after it (`rewrite_layers`).

`always_exact` proves it for all inputs, from the weights alone: only where one block of activations spans the sum,
since the exponents of several may lie as far apart as float32 reaches. `watched` asks inputs: it holds for those.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.fpga_emulator.formats import BlockFloat, MxFloat
from accelserve.backends.fpga_emulator.rewrite_blocks import least_steps, reduce_max
from accelserve.backends.fpga_emulator.rewrite_graph import FLOAT, Graph, attributes
from accelserve.wire import onnx_pb2

Floats = NDArray[np.float32]

EXACT, ORDER_DEPENDENT = "exact", "order-dependent"
_MOST_STEPS = 2.0**24
_ROUNDING = 0.99  # the watched sums are float32 sums themselves: of n terms they may be 2^-24 n too small
_NEVER = 2.0**100  # the step of a block of zeros
_WINDOW = ("strides", "pads", "dilations", "auto_pad")


def always_exact(weights: Floats, run: int, format: BlockFloat | MxFloat) -> bool:
    """weights: quantized, [outputs, values that one output sums]; run: how many of those in a row blocks divide."""
    if not weights.shape[1] == run <= format.block:
        return False
    if isinstance(format, MxFloat):
        reach = format.element.largest * 2.0 ** (format.element.mantissa - format.element.emin)
    else:
        reach = float(format.top + (format.codes == "twos-complement"))
    return bool((_whole(weights, axis=1).sum(axis=1) * reach).max(initial=0) < _MOST_STEPS)


def _whole(weights: Floats, axis: int) -> NDArray[np.float64]:
    """|weights| as multiples of their lowest bit along `axis`, for each place on the others."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.int32)
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    digits = np.where(exponent > 0, fraction | 0x800000, fraction)
    lowest = np.ldexp((digits & -digits).astype(np.float64), np.maximum(exponent, 1) - 150)
    finest = np.where(digits == 0, np.inf, lowest).min(axis=axis, keepdims=True, initial=np.inf)
    whole: NDArray[np.float64] = np.abs(weights.astype(np.float64)) / finest
    return whole


@dataclass(frozen=True, slots=True)
class Watched:
    """model: with one more output for each layer, a number: its largest sum|a * w|, in finest steps.

    steps: layer -> that output. Layers whose weights have more than two axes and are not a convolution's are left out.
    """

    model: onnx_pb2.ModelProto
    steps: Mapping[str, str]


def watched(emulated: onnx_pb2.ModelProto, format: BlockFloat | MxFloat, layers: tuple[str, ...]) -> Watched:
    """Of a rewritten model with these layers. It takes more than twice its time: for samples, not for serving."""
    graph, steps = Graph(emulated), {}
    for node in graph.source:
        graph.keep(node)
        weights = graph.constant(node.input[1]) if node.name in layers else None
        if weights is not None and node.op_type == "Conv":
            steps[node.name] = _conv_steps(graph, node, weights, format)
        elif weights is not None and node.op_type in ("Gemm", "MatMul") and weights.ndim == 2:
            steps[node.name] = _product_steps(graph, node, weights, format)
    graph.outputs += steps.values()
    made = graph.written(emulated)
    for output in steps.values():
        made.graph.output.add(name=output).type.tensor_type.elem_type = FLOAT
    return Watched(made, steps)


def exact_for(steps: Mapping[str, float]) -> frozenset[str]:
    """The layers that were exact for the inputs that `Watched.model` has seen. A sum that is no number is not."""
    return frozenset(layer for layer, most in steps.items() if most < _MOST_STEPS * _ROUNDING)


def _conv_steps(graph: Graph, node: onnx_pb2.NodeProto, weights: Floats, format: BlockFloat | MxFloat) -> str:
    """The finest step that a window meets is a pooling of the blocks' steps."""
    given, stem = attributes(node), f"{node.name}/watched"
    magnitudes = graph.add("Abs", [node.input[0]], f"{stem}/magnitudes")
    whole = _whole(weights.reshape(len(weights), -1), 1).astype(np.float32).reshape(weights.shape)
    sums = graph.add("Conv", [magnitudes, graph.weight(f"{stem}/weights", whole)], f"{stem}/sums", **given)
    block = min(format.block, weights.shape[1])
    steps = _block_steps(
        graph, magnitudes, (0, weights.shape[1] * given.get("group", 1) // block, block, -1), stem, format
    )
    sizes = graph.add("Shape", [node.input[0]], f"{stem}/shape")
    last = graph.shape(np.iinfo(np.int64).max)
    parts = [graph.add("Slice", [sizes, graph.shape(0), graph.shape(1)], f"{stem}/rows"), graph.shape(1)]
    parts.append(graph.add("Slice", [sizes, graph.shape(2), last], f"{stem}/picture"))
    plane = graph.add("Reshape", [steps, graph.add("Concat", parts, f"{stem}/plane", axis=0)], f"{stem}/steps")
    window = {name: given[name] for name in _WINDOW if name in given}
    negative = graph.add("Neg", [plane], f"{stem}/negative")
    pooled = graph.add("MaxPool", [negative], f"{stem}/pooled", kernel_shape=weights.shape[2:], **window)
    return _largest_ratio(graph, sums, graph.add("Neg", [pooled], f"{stem}/finest"), stem)


def _product_steps(graph: Graph, node: onnx_pb2.NodeProto, weights: Floats, format: BlockFloat | MxFloat) -> str:
    stem = f"{node.name}/watched"
    matrix = weights.T if attributes(node).get("transB") else weights
    magnitudes = graph.add("Abs", [node.input[0]], f"{stem}/magnitudes")
    whole = graph.weight(f"{stem}/weights", _whole(matrix, 0).astype(np.float32))
    sums = graph.add("MatMul", [magnitudes, whole], f"{stem}/sums")
    rows = graph.add("Reshape", [sums, graph.shape(-1, matrix.shape[1])], f"{stem}/rows")
    block = min(format.block, len(matrix))
    steps = _block_steps(graph, magnitudes, (-1, len(matrix) // block, block), stem, format)
    return _largest_ratio(graph, rows, graph.add("Reshape", [steps, graph.shape(-1, 1)], f"{stem}/finest"), stem)


def _block_steps(graph: Graph, magnitudes: str, view: tuple[int, ...], stem: str, format: BlockFloat | MxFloat) -> str:
    """The finest step of the blocks along axis 1, which stays with size 1."""
    blocks = graph.add("Reshape", [magnitudes, graph.shape(*view)], f"{stem}/blocks")
    steps = least_steps(graph, reduce_max(graph, blocks, f"{stem}/largest"), stem, format)
    empty = graph.add("Equal", [steps, graph.number(0.0)], f"{stem}/empty")
    used = graph.add("Where", [empty, graph.number(_NEVER), steps], f"{stem}/used")
    negative = graph.add("Neg", [used], f"{stem}/used_negative")
    return graph.add("Neg", [reduce_max(graph, negative, f"{stem}/finest_block", axis=1)], f"{stem}/finest_block")


def _largest_ratio(graph: Graph, sums: str, steps: str, stem: str) -> str:
    ratio = graph.add("Div", [sums, steps], f"{stem}/ratio")
    return graph.add("ReduceMax", [ratio], f"{stem}/most_steps", keepdims=0)
