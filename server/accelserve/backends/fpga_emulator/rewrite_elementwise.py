"""The element-wise units between the layers, in fp32, fp16 or bf16.

fp32: a layer's result stays apart from the sums and factors that ONNX Runtime would take into the layer.
fp16 and bf16: each result is rounded once, by a cast down and up, which keeps it apart as well.
float32 carries more than twice the bits of either and two, so that for +, -, *, / and the root one rounding of the
float32 result is the very result of a unit of that width (Figueroa 1995).
"""

from dataclasses import dataclass, field

from accelserve.backends.fpga_emulator.formats import Numerics
from accelserve.backends.fpga_emulator.rewrite_graph import BFLOAT16, FLOAT, FLOAT16, Graph, barrier, set_attribute
from accelserve.wire import onnx_pb2

_LARGEST_FP16 = 65504.0
_COMPUTE = frozenset(
    (
        *("Conv", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization", "LRN", "LpNormalization"),
        *("Add", "Sub", "Mul", "Div", "Sum", "Mean", "Sqrt", "Pow", "Exp", "Reciprocal", "Clip"),
        *("LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softmax"),
        *("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare"),
    )
)
_FUSED = frozenset(("Add", "Sub", "Mul", "Div", "Sum", "BatchNormalization"))
_LAYERS = frozenset(("Conv", "Gemm", "MatMul"))


@dataclass
class Results:
    """Takes the source's nodes into the graph, in their order."""

    graph: Graph
    numerics: Numerics
    _readers: dict[str, list[onnx_pb2.NodeProto]] = field(init=False)
    _put_off: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._readers = self.graph.readers()

    def keep(self, node: onnx_pb2.NodeProto) -> None:
        """The node, and what rounds its result under the result's own name.

        A Relu that alone reads a result is rounded in its place, which is the same and leaves both to be fused.
        """
        if self.numerics.elementwise == "fp32":
            self._keep_apart(node) if self._may_be_fused(node) else self.graph.keep(node)
            return
        due = node.op_type in _COMPUTE or (node.op_type == "Relu" and node.input[0] in self._put_off)
        if due and self._goes_to_a_relu(node.output[0]):
            self._put_off.add(node.output[0])
            due = False
        self._round(node) if due else self.graph.keep(node)

    def _may_be_fused(self, node: onnx_pb2.NodeProto) -> bool:
        readers = self._readers.get(node.output[0], []) if node.op_type in _LAYERS else []
        return any(reader.op_type in _FUSED for reader in readers)

    def _keep_apart(self, source: onnx_pb2.NodeProto) -> None:
        node = onnx_pb2.NodeProto()
        node.CopyFrom(source)
        wanted, node.output[0] = node.output[0], self.graph.fresh(f"{node.output[0]}/fused")
        self.graph.keep(node)
        barrier(self.graph, node.output[0])
        self.graph.nodes[-1].output[0] = wanted

    def _goes_to_a_relu(self, name: str) -> bool:
        readers = self._readers.get(name, [])
        return name not in self.graph.outputs and [reader.op_type for reader in readers] == ["Relu"]

    def _round(self, source: onnx_pb2.NodeProto) -> None:
        node = onnx_pb2.NodeProto()
        node.CopyFrom(source)
        wanted, value = node.output[0], self.graph.fresh(f"{node.output[0]}/unrounded")
        node.output[0] = value
        self.graph.keep(node)
        low = FLOAT16 if self.numerics.elementwise == "fp16" else BFLOAT16
        if low == FLOAT16 and self.numerics.fp16_overflow == "saturate":
            limits = [self.graph.number(-_LARGEST_FP16), self.graph.number(_LARGEST_FP16)]
            value = self.graph.add("Clip", [value, *limits], f"{wanted}/saturated")
        rounded = self.graph.add("Cast", [value], f"{wanted}/rounded", to=low)
        back = onnx_pb2.NodeProto(op_type="Cast", name=f"{rounded}/back", input=[rounded], output=[wanted])
        set_attribute(back, "to", FLOAT)
        self.graph.keep(back)
