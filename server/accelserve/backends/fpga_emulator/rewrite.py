"""A model as the emulated card computes it: the same graph in standard ONNX operators, in the card's format.

Batch normalization is folded, weights are quantized here, activations where a convolution or a matrix product reads
them; biases stay float32. With fp16 or bf16 between the layers every result of an element-wise unit is rounded once.
Nothing needs a shape: the batch and the picture's size may change with the request.
"""

from dataclasses import dataclass

from accelserve.backends.accel_onnx.operators import MULTIPLIERS, layer_name
from accelserve.backends.fpga_emulator.exactness import EXACT, ORDER_DEPENDENT, always_exact
from accelserve.backends.fpga_emulator.folding import fold_batch_norm
from accelserve.backends.fpga_emulator.formats import Fp32, Numerics
from accelserve.backends.fpga_emulator.rewrite_elementwise import Results
from accelserve.backends.fpga_emulator.rewrite_graph import Graph
from accelserve.backends.fpga_emulator.rewrite_layers import Layers, Multiplied
from accelserve.backends.fpga_emulator.signs import unsigned_values
from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2

LEAST_OPSET = 13


@dataclass(frozen=True, slots=True)
class EmulatedLayer:
    """A convolution or matrix product. block: how many values share an exponent. weight_bits: packed, all together.

    numerics: "exact" where no order of summation can change a bit, whatever the input, else "order-dependent".
    """

    name: str
    op: str
    block: int
    weight_bits: int
    numerics: str


@dataclass(frozen=True, slots=True)
class Emulated:
    model: onnx_pb2.ModelProto
    layers: tuple[EmulatedLayer, ...]


def emulate(model: onnx_pb2.ModelProto, numerics: Numerics) -> Emulated:
    """Same inputs and outputs, same operator sets. `model` is left as it is; its weights lie inside it.

    Raises ScoringError(PRECONDITION) naming the layer, or the model's operator set.
    """
    source = onnx_pb2.ModelProto()
    source.CopyFrom(model)
    graph = Graph(source)
    if graph.opset < LEAST_OPSET:
        message = f"the FPGA emulator wants ONNX's operator set {LEAST_OPSET} or later, got {graph.opset}"
        raise ScoringError(Kind.PRECONDITION, f"{message}: convert the model to a later one")
    if isinstance(numerics.format, Fp32) and numerics.elementwise == "fp32":
        return Emulated(source, ())
    fold_batch_norm(graph)
    made = _rewritten(graph, numerics)
    return Emulated(graph.written(source), made)


def _rewritten(graph: Graph, numerics: Numerics) -> tuple[EmulatedLayer, ...]:
    format = numerics.format
    layers = None if isinstance(format, Fp32) else Layers(graph, format, unsigned_values(graph))
    results, made = Results(graph, numerics), []
    for node in graph.source:
        if layers is not None and node.op_type in MULTIPLIERS:
            multiplied = layers.rewrite(node)
            made.append(_layer(node, multiplied, numerics))
            results.keep(multiplied.result)
        else:
            results.keep(node)
    return tuple(made)


def _layer(node: onnx_pb2.NodeProto, multiplied: Multiplied, numerics: Numerics) -> EmulatedLayer:
    format = numerics.format
    assert not isinstance(format, Fp32)
    block = min(format.block, multiplied.run)
    bits = multiplied.weights.size // multiplied.run * format.packed_bits(multiplied.run)
    exact = always_exact(multiplied.weights, multiplied.run, format)
    return EmulatedLayer(layer_name(node), node.op_type, block, bits, EXACT if exact else ORDER_DEPENDENT)
