"""What an FPGA takes of an ONNX graph: one table for the emulator and for cards, so that what emulates can also run.

A Brainwave-style device is matrix-vector units with constant weights, and element-wise units between them. All that
needs a value of its own to decide on shape or order (softmax, non-maximum suppression, lookups) is the host's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from accelserve.wire.onnx_pb2 import GraphProto, ModelProto, NodeProto

MULTIPLIERS = ("Conv", "Gemm", "MatMul")  # what an FPGA is for; a graph without any is the host's
Constants = Collection[str]  # names of values that do not depend on an input
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Refusal:
    """layer: the node's name, or its first output where it has none."""

    layer: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f'{self.operator} "{self.layer}" ({self.reason})'


def _any(node: NodeProto, constants: Constants) -> str:
    return ""


def _weights(node: NodeProto, constants: Constants) -> str:
    return "" if node.input[1] in constants else "its second operand is not constant"


def _gemm(node: NodeProto, constants: Constants) -> str:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return "transA is not taken" if transposed else _weights(node, constants)


def _shape_is_constant(node: NodeProto, constants: Constants) -> str:
    """All inputs but the first say how, not what."""
    return "" if all(name in constants for name in node.input[1:] if name) else "its settings are not constant"


def _one_output(node: NodeProto, constants: Constants) -> str:
    return "only its first output is made" if any(node.output[1:]) else _shape_is_constant(node, constants)


OPERATORS: Mapping[str, Callable[[NodeProto, Constants], str]] = MappingProxyType(
    {
        **{"Conv": _weights, "MatMul": _weights, "Gemm": _gemm},
        **dict.fromkeys(("BatchNormalization", "MaxPool", "Dropout"), _one_output),
        **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Identity"), _any),
        **dict.fromkeys(("Relu", "LeakyRelu", "Abs", "Neg", "Sqrt", "Add", "Sub", "Mul", "Div", "Max", "Min"), _any),
        **dict.fromkeys(("Sigmoid", "Tanh"), _any),
        **dict.fromkeys(
            ("Clip", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Pad", "Slice"), _one_output
        ),
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "LpNormalization"), _one_output),
    }
)


def layer_name(node: NodeProto) -> str:
    return node.name or next(iter(node.output), "")


def refusal(node: NodeProto, constants: Constants) -> str:
    """Why a device does not take a node, "" when it does."""
    if node.domain not in ("", "ai.onnx"):
        return f"it is an operator of {node.domain}"
    check = OPERATORS.get(node.op_type)
    return "an FPGA has no such unit" if check is None else check(node, constants)


def constants_of(model: ModelProto) -> set[str]:
    """Initializers, and what is computed from constants alone."""
    found = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if is_constant(node, found):
            found.update(node.output)
    return found


def is_constant(node: NodeProto, constants: Constants) -> bool:
    """Whether a node depends on no input of the graph; such nodes are computed before anything runs."""
    return all(name in constants for name in reads(node))


def reads(node: NodeProto) -> Iterator[str]:
    """The values that a node needs, also those that only graphs inside it read; without names made in these."""
    yield from filter(None, node.input)
    for inner in (a.g for a in node.attribute if a.HasField("g")):
        made = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
        for each in inner.node:
            yield from (name for name in reads(each) if name not in made)
            made.update(each.output)
        yield from (value.name for value in inner.output if value.name not in made)


def needed_for(graph: GraphProto, outputs: Iterable[str]) -> set[str]:
    """Every value from which `outputs` are made, with these."""
    makers = {name: node for node in graph.node for name in node.output if name}
    needed, pending = set[str](), list(outputs)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += reads(makers[name]) if name in makers else ()
    return needed


def unsupported(model: ModelProto) -> tuple[Refusal, ...]:
    """Every node that a device does not take, in the graph's order."""
    constants = constants_of(model)
    return tuple(
        Refusal(layer_name(node), node.op_type, reason)
        for node in model.graph.node
        if not is_constant(node, constants) and (reason := refusal(node, constants))
    )


def in_words(layers: Iterable[object]) -> str:
    """Of layers or refusals, the first eight, and how many more there are."""
    told = [str(each) for each in layers]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return ", ".join(told[:_SHOWN]) + more
