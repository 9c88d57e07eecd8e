"""Normalisation and layout as an ONNX graph, so that a device does them: uint8 pixels in, a model's float input out.

The arithmetic is codecs/images.py's, operator by operator in float32, so that both give the same bits: pixels cross to
the device as bytes, a quarter of the floats, and the host's cores only decode.
"""

from collections.abc import Sequence

import numpy as np

from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, DType, TensorSpec
from accelserve.wire import onnx_pb2

NORMALISED = "/normalised"  # after an input's name: the graph's output, since the input has the name itself
_IR_VERSION = 8
_OPSET = 13
_TO_NCHW = (0, 3, 1, 2)
_UINT8, _FLOAT32 = BY_NAME["uint8"], BY_NAME["float32"]


def why_not_pixels(preprocessing: Preprocessing, spec: TensorSpec) -> str:
    """What keeps the graph from standing in for the host's work, "" when nothing does."""
    if spec.dtype.name == "uint8":
        return f'input "{spec.name}" takes bytes as they are: there is nothing to normalise'
    if spec.dtype.onnx is None or spec.dtype.is_string:
        return f'input "{spec.name}" is of {spec.dtype}, which no picture becomes in an ONNX graph'
    if preprocessing.resize == "letterbox":
        return 'resize = "letterbox" fills with 0 after normalising, which no pixel need be before it'
    return ""


def pixel_graph(preprocessing: Preprocessing, spec: TensorSpec) -> bytes:
    """A serialized ONNX model: uint8 [n,H,W,C] -> `spec`'s dtype, [n,H,W,C] or [n,C,H,W].

    The input has the name of `spec`, the output that and NORMALISED. The layout first, while values are bytes and the
    least is moved; then (x - mean) * scale in float32, then the dtype. `why_not_pixels` has nothing against it.
    """
    height, width = preprocessing.size
    image = (height, width, preprocessing.channels)
    planes = (preprocessing.channels, height, width)
    in_planes = preprocessing.layout == "NCHW"
    graph = onnx_pb2.GraphProto(name="normalise")
    steps: list[tuple[str, Sequence[float], dict[str, int | Sequence[int]]]] = []
    if in_planes:
        steps.append(("Transpose", (), {"perm": _TO_NCHW}))
    steps.append(("Cast", (), {"to": _number(_FLOAT32)}))
    if any(preprocessing.mean):
        steps.append(("Sub", preprocessing.mean, {}))
    if set(preprocessing.scale) != {1.0}:
        steps.append(("Mul", preprocessing.scale, {}))
    if spec.dtype is not _FLOAT32:
        steps.append(("Cast", (), {"to": _number(spec.dtype)}))
    value, output = spec.name, spec.name + NORMALISED
    for index, (operator, constant, attributes) in enumerate(steps):
        made = output if index == len(steps) - 1 else f"{spec.name}/step{index}"
        inputs = [value]
        if constant:
            inputs.append(_constant(graph, f"{spec.name}/constant{index}", constant, in_planes))
        node = graph.node.add(op_type=operator, input=inputs, output=[made])
        node.attribute.extend(_attribute(name, wanted) for name, wanted in attributes.items())
        value = made
    graph.input.append(_value_info(spec.name, _UINT8, image))
    graph.output.append(_value_info(output, spec.dtype, planes if in_planes else image))
    model = onnx_pb2.ModelProto(ir_version=_IR_VERSION, producer_name="accelserve", graph=graph)
    model.opset_import.add(version=_OPSET)
    serialized: bytes = model.SerializeToString()
    return serialized


def _number(dtype: DType) -> int:
    assert dtype.onnx is not None
    return dtype.onnx


def _constant(graph: onnx_pb2.GraphProto, name: str, numbers: Sequence[float], in_planes: bool) -> str:
    """One number, or one per channel of [n,C,H,W] or [n,H,W,C]."""
    values = np.asarray(numbers, "<f4").reshape((-1, 1, 1) if in_planes else (-1,))
    graph.initializer.add(name=name, data_type=_number(_FLOAT32), dims=values.shape, raw_data=values.tobytes())
    return name


def _attribute(name: str, value: int | Sequence[int]) -> onnx_pb2.AttributeProto:
    if isinstance(value, int):
        return onnx_pb2.AttributeProto(name=name, i=value, type=onnx_pb2.AttributeProto.INT)
    return onnx_pb2.AttributeProto(name=name, ints=value, type=onnx_pb2.AttributeProto.INTS)


def _value_info(name: str, dtype: DType, row: Sequence[int]) -> onnx_pb2.ValueInfoProto:
    """shape: a free batch axis, then `row`."""
    info = onnx_pb2.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = _number(dtype)
    info.type.tensor_type.shape.dim.add(dim_param="batch")
    for size in row:
        info.type.tensor_type.shape.dim.add(dim_value=size)
    return info
