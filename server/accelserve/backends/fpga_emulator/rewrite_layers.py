"""Convolutions and matrix products with both operands in the emulated card's format."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.accel_onnx.operators import layer_name
from accelserve.backends.fpga_emulator.formats import BlockFloat, MxFloat
from accelserve.backends.fpga_emulator.quantize import quantize
from accelserve.backends.fpga_emulator.rewrite_blocks import Blocked, quantized
from accelserve.backends.fpga_emulator.rewrite_graph import Graph, attributes, barrier, set_attribute
from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2

Floats = NDArray[np.float32]
_LAST = np.iinfo(np.int64).max  # "to the end" of a Slice


@dataclass(frozen=True, slots=True)
class Multiplied:
    """What became of one layer. result: the last node of what it became, which makes the layer's own output.

    weights: the quantized ones, [outputs, values that one output sums] in block order.
    run: how many values in a row the blocks divide; the last block may be shorter.
    """

    result: onnx_pb2.NodeProto
    weights: Floats
    run: int


@dataclass
class Layers:
    """Rewrites layers one by one. Activations that several layers read are quantized once for each way of dividing."""

    graph: Graph
    format: BlockFloat | MxFloat
    unsigned: set[str]
    _activations: dict[tuple[object, ...], str] = field(default_factory=dict)

    def rewrite(self, node: onnx_pb2.NodeProto) -> Multiplied:
        """The result is not added to the graph, what it needs is.

        Raises ScoringError(PRECONDITION) naming the layer.
        """
        if node.op_type != "Conv":
            return self._product(node)
        return self._im2col(node) if self.format.axis == "im2col" else self._conv(node, self._weights(node))

    def _weights(self, node: onnx_pb2.NodeProto) -> Floats:
        values = self.graph.constant(node.input[1])
        if values is None:
            raise _refused(node, f'its second operand "{node.input[1]}" is not constant')
        if values.dtype != np.float32:
            raise _refused(node, f'its weights "{node.input[1]}" are {values.dtype}, want float32')
        if not values.size:
            raise _refused(node, f'its weights "{node.input[1]}" are empty, {list(values.shape)}')
        return values

    def _conv(self, node: onnx_pb2.NodeProto, weights: Floats) -> Multiplied:
        """weights: [outputs, channels of a group, taps...]"""
        groups, run = attributes(node).get("group", 1), weights.shape[1]
        activations, padded = self._channels(node.input[0], groups, run)
        values = quantize(weights, self.format, axis=1)
        widened = _widened(values, 1, padded)
        summed = np.moveaxis(values, 1, -1).reshape(len(values), -1)
        return Multiplied(self._replaced(node, activations, widened), summed, run)

    def _im2col(self, node: onnx_pb2.NodeProto) -> Multiplied:
        """All that an output sums as channels of their own, then a convolution of one tap."""
        weights, groups = self._weights(node), attributes(node).get("group", 1)
        taps = int(np.prod(weights.shape[2:]))
        if taps == 1:
            return self._conv(node, weights)
        pointwise = onnx_pb2.NodeProto(op_type="Conv", name=node.name, output=node.output)
        pointwise.input.extend([self._patches(node, groups, weights.shape[1:]), *node.input[1:]])
        set_attribute(pointwise, "group", groups)
        rows = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)  # [outputs, taps * channels]
        return self._conv(pointwise, rows.reshape(*rows.shape, *[1] * (weights.ndim - 2)))

    def _patches(self, node: onnx_pb2.NodeProto, groups: int, shape: tuple[int, ...]) -> str:
        """[n, groups * taps * channels, ...]: each tap picked out by a kernel of one 1, then put in order.

        shape: (channels of a group, taps...).
        """
        channels, kernel = shape[0], shape[1:]
        taps = int(np.prod(kernel))
        settings = {name: value for name, value in attributes(node).items() if name != "group"}
        key = (node.input[0], "patches", groups, shape, repr(sorted(settings.items())))
        if key not in self._activations:
            graph, stem = self.graph, f"{node.input[0]}/fpga"
            ones = np.tile(np.eye(taps, dtype=np.float32), (groups * channels, 1)).reshape(-1, 1, *kernel)
            inputs = [node.input[0], graph.weight(f"{stem}/taps", ones)]
            picked = graph.add("Conv", inputs, f"{stem}/picked", group=groups * channels, **settings)
            order = np.arange(len(ones)).reshape(groups, channels, taps).swapaxes(1, 2).reshape(-1)
            patches = graph.add("Gather", [picked, graph.weight(f"{stem}/order", order)], f"{stem}/patches", axis=1)
            if node.input[0] in self.unsigned:
                self.unsigned.add(patches)
            self._activations[key] = patches
        return self._activations[key]

    def _product(self, node: onnx_pb2.NodeProto) -> Multiplied:
        """Gemm and MatMul: blocks along the last axis of the activations."""
        weights, given = self._weights(node), attributes(node)
        if given.get("transA"):
            raise _refused(node, "transA is not supported: transpose before it")
        axis = weights.ndim - 1 if given.get("transB") or weights.ndim == 1 else weights.ndim - 2
        activations, padded = self._last_axis(node.input[0], weights.shape[axis])
        values = quantize(weights, self.format, axis)
        summed = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        made = self._replaced(node, activations, _widened(values, axis, padded))
        if len(made.input) > 2 and made.input[2]:
            made = self._bias_apart(made, given.get("beta", 1.0))
        return Multiplied(made, summed, values.shape[axis])

    def _bias_apart(self, gemm: onnx_pb2.NodeProto, beta: float) -> onnx_pb2.NodeProto:
        """The Add of a Gemm's bias: ONNX Runtime's Gemm begins its sums with the bias, which then are not exact."""
        added = onnx_pb2.NodeProto(op_type="Add", name=f"{layer_name(gemm)}/bias", output=gemm.output)
        bias = gemm.input[2]
        if beta != 1.0:
            bias = self.graph.add("Mul", [bias, self.graph.number(beta)], f"{bias}/times_beta")
        gemm.input.pop()
        gemm.output[0] = self.graph.fresh(f"{gemm.output[0]}/product")
        self.graph.keep(gemm)
        added.input.extend([barrier(self.graph, gemm.output[0]), bias])
        return added

    def _replaced(self, node: onnx_pb2.NodeProto, activations: str, weights: Floats) -> onnx_pb2.NodeProto:
        made = onnx_pb2.NodeProto()
        made.CopyFrom(node)
        made.name = layer_name(node)
        made.input[:] = [activations, self.graph.weight(f"{layer_name(node)}/weights", weights), *node.input[2:]]
        return made

    def _channels(self, x: str, groups: int, run: int) -> tuple[str, int]:
        """(x [n, groups * run, ...] in the format, channels of each group in it)

        Where blocks do not divide a group's channels, zero channels are put behind them.
        """
        block = min(run, self.format.block)
        padded = run + -run % block
        key = (x, "channels", groups, run)
        if key not in self._activations:
            graph, stem = self.graph, f"{x}/fpga"
            shape, source = self._shape(x, groups * padded, padded != run), x
            if padded != run:
                source = graph.add("Reshape", [x, graph.shape(0, groups, run, -1)], f"{stem}/groups")
                source = self._padded(source, (0, 0, padded - run, 0), stem)
            view = (0, groups * padded // block, block, -1)
            self._activations[key] = self._quantized(x, source, view, shape)
        return self._activations[key], padded

    def _shape(self, x: str, channels: int, differ: bool) -> str:
        """The shape of x but for its channels, as Reshape wants it."""
        graph, stem = self.graph, f"{x}/fpga"
        shape = graph.add("Shape", [x], f"{stem}/shape")
        if not differ:
            return shape
        parts = [self._part(shape, 0, 1, stem), graph.shape(channels), self._part(shape, 2, _LAST, stem)]
        return graph.add("Concat", parts, f"{stem}/shape", axis=0)

    def _last_axis(self, x: str, run: int) -> tuple[str, int]:
        """(x [..., run] in the format, how long its last axis is with zeros behind it)"""
        block = min(run, self.format.block)
        padded = run + -run % block
        key = (x, "last axis", run)
        if key not in self._activations:
            graph, stem = self.graph, f"{x}/fpga"
            shape, source = graph.add("Shape", [x], f"{stem}/shape"), x
            if padded != run:
                source = graph.add("Reshape", [x, graph.shape(-1, run)], f"{stem}/rows")
                source = self._padded(source, (0, padded - run), stem)
                shape = self._part(shape, 0, -1, stem)
                shape = graph.add("Concat", [shape, graph.shape(padded)], f"{stem}/shape", axis=0)
            self._activations[key] = self._quantized(x, source, (-1, padded // block, block), shape)
        return self._activations[key], padded

    def _quantized(self, x: str, source: str, view: tuple[int, ...], shape: str) -> str:
        stem = f"{x}/fpga"
        blocks = self.graph.add("Reshape", [source, self.graph.shape(*view)], f"{stem}/blocks")
        rounded = quantized(self.graph, Blocked(blocks, x in self.unsigned, stem), self.format)
        return self.graph.add("Reshape", [rounded, shape], f"{stem}/quantized")

    def _padded(self, x: str, behind: tuple[int, ...], stem: str) -> str:
        """Zeros behind each axis."""
        pads = self.graph.weight(f"{stem}/pads", np.array([0] * len(behind) + list(behind), np.int64))
        return self.graph.add("Pad", [x, pads], f"{stem}/padded")

    def _part(self, shape: str, start: int, end: int, stem: str) -> str:
        return self.graph.add("Slice", [shape, self.graph.shape(start), self.graph.shape(end)], f"{stem}/sizes")


def _widened(values: Floats, axis: int, size: int) -> Floats:
    """With zeros behind `axis`, which is `size` long then."""
    more = [(0, size - length if place == axis else 0) for place, length in enumerate(values.shape)]
    return np.pad(values, more) if values.shape[axis] != size else values


def _refused(node: onnx_pb2.NodeProto, why: str) -> ScoringError:
    message = (
        f'layer "{layer_name(node)}" ({node.op_type}): {why}: the emulated card cannot take it; leave it to the host'
    )
    return ScoringError(Kind.PRECONDITION, message)
