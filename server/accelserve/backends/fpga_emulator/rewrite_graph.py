"""An ONNX graph while it is rewritten: its constants, who reads a value, nodes and weights under names of their own."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2

FLOAT, INT64, FLOAT16, BFLOAT16 = 1, 7, 10, 16  # TensorProto.DataType
_ARRAYS = {FLOAT: "float_data", INT64: "int64_data"}
_DTYPES = {FLOAT: "<f4", INT64: "<i8"}
_TYPES = onnx_pb2.AttributeProto.AttributeType
_SCALARS = {"value_float": (np.float32, "f"), "value_int": (np.int64, "i")}
_VECTORS = {"value_floats": (np.float32, "floats"), "value_ints": (np.int64, "ints")}


def attributes(node: onnx_pb2.NodeProto) -> dict[str, Any]:
    """Name -> value; strings as str."""
    return {attribute.name: _value(attribute) for attribute in node.attribute}


def _value(attribute: onnx_pb2.AttributeProto) -> Any:
    if attribute.type == _TYPES.FLOAT:
        return attribute.f
    if attribute.type == _TYPES.STRING:
        return attribute.s.decode()
    if attribute.type == _TYPES.TENSOR:
        return attribute.t
    fields = {_TYPES.INTS: "ints", _TYPES.FLOATS: "floats"}
    return list(getattr(attribute, fields[attribute.type])) if attribute.type in fields else attribute.i


def set_attribute(node: onnx_pb2.NodeProto, name: str, value: int | float | str | Sequence[int]) -> None:
    """Add, or replace."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    made = node.attribute.add(name=name)
    if isinstance(value, str):
        made.type, made.s = _TYPES.STRING, value.encode()
    elif isinstance(value, int):
        made.type, made.i = _TYPES.INT, value
    elif isinstance(value, float):
        made.type, made.f = _TYPES.FLOAT, value
    else:
        made.type = _TYPES.INTS
        made.ints.extend(value)


def array(tensor: onnx_pb2.TensorProto) -> NDArray[Any]:
    """Of float32 and int64 alone. Raises ScoringError(PRECONDITION) for other types and for data outside the file."""
    if tensor.data_location == onnx_pb2.TensorProto.EXTERNAL:
        raise _unreadable(tensor, "lies in a file of its own: write the model as one file")
    if tensor.data_type not in _DTYPES:
        raise _unreadable(tensor, f"has ONNX's data type {tensor.data_type}, want float32 (1) or int64 (7)")
    dtype = np.dtype(_DTYPES[tensor.data_type])
    if tensor.raw_data:
        if len(tensor.raw_data) % dtype.itemsize:
            raise _unreadable(tensor, f"has {len(tensor.raw_data)} bytes, want {list(tensor.dims)} of {dtype.name}")
        values = np.frombuffer(tensor.raw_data, dtype)
    else:
        values = np.array(getattr(tensor, _ARRAYS[tensor.data_type]), dtype)
    if values.size != np.prod(tensor.dims, dtype=np.int64):
        raise _unreadable(tensor, f"has {values.size} values, want {list(tensor.dims)}")
    return values.reshape(tuple(tensor.dims))


def _unreadable(tensor: onnx_pb2.TensorProto, why: str) -> ScoringError:
    return ScoringError(Kind.PRECONDITION, f'fpga emulation: the weights "{tensor.name}": {why}')


def tensor(name: str, values: NDArray[Any]) -> onnx_pb2.TensorProto:
    """float32 or int64"""
    kind = FLOAT if values.dtype == np.float32 else INT64
    data = np.ascontiguousarray(values, _DTYPES[kind]).tobytes()
    return onnx_pb2.TensorProto(name=name, data_type=kind, dims=values.shape, raw_data=data)


class Graph:
    """Read from a model, written to anew: `add` and `keep` collect nodes in the order of their work."""

    def __init__(self, model: onnx_pb2.ModelProto) -> None:
        graph = model.graph
        self.opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self.source: list[onnx_pb2.NodeProto] = list(graph.node)
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[onnx_pb2.NodeProto] = []
        self._constants = {
            node.output[0]: node for node in self.source if node.op_type == "Constant" and len(node.output) == 1
        }
        self._names = {*self.initializers, *self.inputs} | {name for node in self.source for name in node.output}
        self._weights: dict[object, str] = {}

    def readers(self) -> dict[str, list[onnx_pb2.NodeProto]]:
        """Value -> the nodes of the source that read it."""
        found: dict[str, list[onnx_pb2.NodeProto]] = {}
        for node in self.source:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def constant(self, name: str) -> NDArray[Any] | None:
        """An initializer that is no input as well, or what a Constant makes; None: it changes with the request."""
        if name in self.initializers and name not in self.inputs:
            return array(self.initializers[name])
        return _of_constant(self._constants[name]) if name in self._constants else None

    def fresh(self, stem: str) -> str:
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}.{count}"
        self._names.add(name)
        return name

    def weight(self, stem: str, values: NDArray[Any]) -> str:
        """A new initializer; small equal ones are made once."""
        key = (values.dtype.str, values.shape, values.tobytes()) if values.size <= 8 else object()
        if key not in self._weights:
            name = self.fresh(stem)
            self.initializers[name] = tensor(name, values)
            self._weights[key] = name
        return self._weights[key]

    def number(self, value: float) -> str:
        return self.weight("fpga/number", np.array(value, np.float32))

    def shape(self, *sizes: int) -> str:
        return self.weight("fpga/shape", np.array(sizes, np.int64))

    def add(self, operator: str, inputs: Iterable[str], output: str, **more: int | float | str | Sequence[int]) -> str:
        """A node whose only output is `output`, or that with a number behind it when it is taken."""
        name = self.fresh(output)
        node = onnx_pb2.NodeProto(op_type=operator, name=name, input=inputs, output=[name])
        for attribute, value in more.items():
            set_attribute(node, attribute, value)
        self.nodes.append(node)
        return name

    def keep(self, node: onnx_pb2.NodeProto) -> None:
        self.nodes.append(node)

    def written(self, model: onnx_pb2.ModelProto) -> onnx_pb2.ModelProto:
        """`model` with the collected nodes, and the constants that they read."""
        read = {name for node in self.nodes for name in node.input} | {*self.outputs, *self.inputs}
        read |= {name for node in self.nodes for graph in _subgraphs(node) for name in _names_in(graph)}
        made = onnx_pb2.ModelProto(
            ir_version=model.ir_version, producer_name="accelserve", opset_import=model.opset_import
        )
        made.graph.name = model.graph.name
        made.graph.node.extend(node for node in self.nodes if node.op_type != "Constant" or node.output[0] in read)
        made.graph.input.extend(model.graph.input)
        made.graph.output.extend(model.graph.output)
        made.graph.initializer.extend(tensor for name, tensor in self.initializers.items() if name in read)
        return made


def barrier(graph: Graph, x: str) -> str:
    """x, as a value that ONNX Runtime does not fuse with what made it. No data is copied.

    Its fusions are right within a rounding or two, not to the bit: a sum fused into a convolution comes before the
    bias, a factor goes into the weights.
    """
    return graph.add("Reshape", [x, graph.add("Shape", [x], f"{x}/same_shape")], f"{x}/apart")


def _of_constant(node: onnx_pb2.NodeProto) -> NDArray[Any] | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            return array(attribute.t)
        for fields in (_SCALARS, _VECTORS):
            if attribute.name in fields:
                dtype, field = fields[attribute.name]
                return np.array(getattr(attribute, field), dtype)
    return None


def _subgraphs(node: onnx_pb2.NodeProto) -> list[onnx_pb2.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == _TYPES.GRAPH]


def _names_in(graph: onnx_pb2.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return names.union(*(_names_in(inner) for node in graph.node for inner in _subgraphs(node)))
