"""Which values are never below zero: their blocks need no magnitudes and no lower limit."""

from accelserve.backends.fpga_emulator.rewrite_graph import Graph, attributes
from accelserve.wire import onnx_pb2

_MAKES = ("Relu", "Sigmoid", "Softmax", "Exp", "Abs")
_KEEPS = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"),
    *("Identity", "Dropout", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
_KEEPS_OF_ALL = ("Concat", "Add", "Mul", "Sum", "Max")


def unsigned_values(graph: Graph) -> set[str]:
    found: set[str] = set()
    for node in graph.source:
        if _is_unsigned(graph, node, found):
            found.add(node.output[0])
    return found


def _is_unsigned(graph: Graph, node: onnx_pb2.NodeProto, found: set[str]) -> bool:
    if node.op_type in _MAKES:
        return True
    if node.op_type == "Clip":
        return _least(graph, node) >= 0
    if node.op_type in _KEEPS:
        return node.input[0] in found
    return node.op_type in _KEEPS_OF_ALL and all(name in found for name in node.input)


def _least(graph: Graph, node: onnx_pb2.NodeProto) -> float:
    values = graph.constant(node.input[1]) if len(node.input) > 1 else None
    return float(attributes(node).get("min", "-inf")) if values is None else float(values)
