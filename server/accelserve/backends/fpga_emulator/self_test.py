"""Does this runtime, on this processor, do the emulation's arithmetic as float32 is defined? Asked when a model loads.

An optimizer that turns (x + C) - C into x, a fused multiply-add, numbers flushed to zero or a multiplier of fewer bits
would change results without a word. Golden blocks go through the same rewrite and the same kind of session as models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.fpga_emulator.formats import BlockFloat, Fp32, MxFloat, Numerics
from accelserve.backends.fpga_emulator.golden_blocks import golden_blocks
from accelserve.backends.fpga_emulator.measuring import RunOnce
from accelserve.backends.fpga_emulator.rewrite import emulate
from accelserve.backends.fpga_emulator.rewrite_graph import FLOAT, tensor
from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2

Floats = NDArray[np.float32]

_OPSET, _IR_VERSION = 17, 8
# (a, b, a + b in the element-wise unit): ties to even both ways, negative, what overflows, what is not on the grid.
_FP16 = ((2048, 1, 2048), (2048, 3, 2052), (-2048, -3, -2052), (0.1, 0, 0.0999755859375), (2**-25, 0, 0))
_BF16 = ((256, 1, 256), (256, 3, 260), (-256, -3, -260), (0.1, 0, 0.10009765625), (3 * 2.0**100, 0, 3 * 2.0**100))
_SUMS: Mapping[str, Sequence[tuple[float, float, float]]] = {
    "fp16-ieee": (*_FP16, (65504, 15, 65504), (65504, 16, np.inf), (-65504, -16, -np.inf)),
    "fp16-saturate": (*_FP16, (65504, 15, 65504), (65504, 16, 65504), (-(2.0**100), 0, -65504)),
    "bf16": _BF16,
}


def check_arithmetic(numerics: Numerics, run_once: RunOnce) -> None:
    """Raises ScoringError(PRECONDITION) with a golden value and what came instead. Takes some milliseconds."""
    if not isinstance(numerics.format, Fp32):
        _check_blocks(numerics.format, run_once)
    if numerics.elementwise != "fp32":
        _check_sums(numerics, run_once)


def _check_blocks(format: BlockFloat | MxFloat, run_once: RunOnce) -> None:
    """Each golden block with its neighbour in one column of channels: as they are, and behind a Relu."""
    signed, unsigned = golden_blocks(format), golden_blocks(format, unsigned=True)
    inputs = {"x": _columns(signed.given), "positive": _columns(unsigned.given)}
    graph = emulate(_blocks_graph(inputs["x"].shape[1]), Numerics(format)).model.SerializeToString()
    found = run_once(graph, ["y", "y_positive"], inputs)
    _compare(str(format), inputs["x"], _columns(signed.wanted), found[0])
    _compare(str(format), inputs["positive"], _columns(unsigned.wanted), found[1])


def _columns(blocks: Floats) -> Floats:
    """[values of a block, blocks] -> [1, values of two blocks, 1, blocks]"""
    return np.concatenate([blocks, np.roll(blocks, 1, axis=1)])[None, :, None, :]


def _blocks_graph(channels: int) -> onnx_pb2.ModelProto:
    """Convolutions that change nothing: their weights, ones and zeros, are the same in every format."""
    model = _model((("x", channels), ("positive", channels)), ("y", "y_positive"))
    ones = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    model.graph.initializer.append(tensor("ones", ones))
    model.graph.node.add(op_type="Conv", name="signed", input=["x", "ones"], output=["y"])
    model.graph.node.add(op_type="Relu", name="relu", input=["positive"], output=["unsigned"])
    model.graph.node.add(op_type="Conv", name="unsigned", input=["unsigned", "ones"], output=["y_positive"])
    return model


def _check_sums(numerics: Numerics, run_once: RunOnce) -> None:
    overflow = f"-{numerics.fp16_overflow}" if numerics.elementwise == "fp16" else ""
    rows = np.array(_SUMS[f"{numerics.elementwise}{overflow}"], np.float32)
    a, b, wanted = (column.reshape(1, -1, 1, 1) for column in rows.T)
    model = _model((("a", len(rows)), ("b", len(rows))), ("sum",))
    model.graph.node.add(op_type="Add", name="sum", input=["a", "b"], output=["sum"])
    made = emulate(model, Numerics(Fp32(), numerics.elementwise, numerics.fp16_overflow)).model
    found = run_once(made.SerializeToString(), ["sum"], {"a": a, "b": b})
    _compare(numerics.elementwise, a + b, wanted, found[0])


def _model(inputs: Sequence[tuple[str, int]], outputs: Sequence[str]) -> onnx_pb2.ModelProto:
    """Of float32 [n, channels, h, w], without nodes."""
    model = onnx_pb2.ModelProto(ir_version=_IR_VERSION, producer_name="accelserve")
    model.opset_import.add(version=_OPSET)
    model.graph.name = "golden"
    for name, channels in inputs:
        shape = _float32(model.graph.input.add(name=name))
        shape.dim.add(dim_param="n")
        shape.dim.add(dim_value=channels)
        shape.dim.add(dim_param="h")
        shape.dim.add(dim_param="w")
    for name in outputs:
        _float32(model.graph.output.add(name=name))
    return model


def _float32(value: onnx_pb2.ValueInfoProto) -> onnx_pb2.TensorShapeProto:
    value.type.tensor_type.elem_type = FLOAT
    return value.type.tensor_type.shape


def _compare(what: str, given: Floats, wanted: Floats, found: NDArray[Any]) -> None:
    if found.shape == wanted.shape and np.array_equal(found, wanted):
        return
    message = f"this runtime does not compute {what} as it is defined"
    if found.shape == wanted.shape:
        first = np.unravel_index(np.argmax(found != wanted), wanted.shape)
        message = f"{message}: {given[first]!r} became {found[first]!r}, want {wanted[first]!r}"
    remedy = (
        "its optimizer or the processor's mode changes float32 arithmetic: use the onnxruntime that accelserve wants"
    )
    raise ScoringError(Kind.PRECONDITION, f"{message}; {remedy}")
