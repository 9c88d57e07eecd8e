"""What one run of a graph tells: how large a card's work is, layer by layer, and which layers were exact for noise."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from accelserve.backends.accel_onnx.accel_model import AccelModel
from accelserve.backends.accel_onnx.model_file import inputs_of
from accelserve.backends.accel_onnx.operators import MULTIPLIERS, layer_name
from accelserve.backends.fpga_emulator.exactness import exact_for, watched
from accelserve.backends.fpga_emulator.formats import BlockFloat, MxFloat
from accelserve.backends.fpga_emulator.latency_model import LayerWork
from accelserve.backends.fpga_emulator.rewrite import Emulated
from accelserve.tensors import Shape, Tensor
from accelserve.wire.onnx_pb2 import ModelProto, NodeProto

RunOnce = Callable[[bytes, Sequence[str], Mapping[str, Tensor]], Sequence[Tensor]]
"""(a serialized graph, names of outputs, inputs) -> those outputs, by a session with the options of models."""

_INT64 = 7  # TensorProto.DataType
_SEED = 0
_MOST_WATCHED_BYTES = 256 * 2**20  # VGG-16, 512 MiB, took a minute and 6 GiB


def layer_work(device: ModelProto, model: AccelModel, run_once: RunOnce) -> tuple[LayerWork, ...] | None:
    """Of every convolution and matrix product; None where that cannot be told: an input
    has open sizes besides the batch, or weights are computed in the graph.
    """
    shapes = _row_shapes(device, model)
    if shapes is None:
        return None
    inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    layers = [node for node in device.graph.node if node.op_type in MULTIPLIERS]
    weights = {tensor.name: tuple(tensor.dims) for tensor in device.graph.initializer}
    if any(node.input[1] not in weights for node in layers):
        return None
    asked = _with_shapes(device, layers)
    names = [f"{node.output[0]}/shape of the layer" for node in layers]
    found = run_once(asked.SerializeToString(), names, inputs)
    return tuple(_work(n, tuple(s.tolist()), weights[n.input[1]]) for n, s in zip(layers, found, strict=True))


def exact_for_noise(
    device: ModelProto, model: AccelModel, emulated: Emulated, format: BlockFloat | MxFloat, run_once: RunOnce
) -> tuple[str, ...] | None:
    """The layers that no order of adding could change for a row of normally distributed values.

    None where that was not tried: open sizes, or a model so large that watching it takes too much time and memory.
    """
    shapes = _row_shapes(device, model)
    if shapes is None or device.ByteSize() > _MOST_WATCHED_BYTES:
        return None
    noise = np.random.default_rng(_SEED)
    inputs = {name: noise.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    seen = watched(emulated.model, format, tuple(layer.name for layer in emulated.layers))
    if not seen.steps:
        return ()
    most = run_once(seen.model.SerializeToString(), list(seen.steps.values()), inputs)
    return tuple(sorted(exact_for({name: float(steps) for name, steps in zip(seen.steps, most, strict=True)})))


def _row_shapes(device: ModelProto, model: AccelModel) -> dict[str, Shape] | None:
    """Of one row of every input, None where one has open sizes besides the batch."""
    shapes = {}
    for value in inputs_of(device.graph):
        shape = _row_of(device, value.name) or _told_by(model, value.name)
        if shape is None:
            return None
        shapes[value.name] = shape
    return shapes


def _row_of(device: ModelProto, name: str) -> Shape | None:
    """What the graph says, with one row where it leaves their number open; None where it leaves more open."""
    sizes = next(v.type.tensor_type.shape.dim for v in device.graph.input if v.name == name)
    shape = [size.dim_value if size.WhichOneof("value") == "dim_value" else 0 for size in sizes]
    if not shape or 0 in shape[1:]:
        return None
    return (shape[0] or 1, *shape[1:])


def _told_by(model: AccelModel, port: str) -> Shape | None:
    """What is decoded says how large it is, also where the graph does not."""
    steps = model.pictures
    if steps is None or model.device.feeds.get(port) not in model.inputs.values():
        return None
    size = (*steps.size, steps.channels)
    return (1, *size) if steps.layout == "NHWC" else (1, steps.channels, *steps.size)


def _with_shapes(device: ModelProto, layers: Sequence[NodeProto]) -> ModelProto:
    asked = ModelProto()
    asked.CopyFrom(device)
    del asked.graph.output[:]
    for node in layers:
        name = f"{node.output[0]}/shape of the layer"
        asked.graph.node.add(op_type="Shape", input=[node.output[0]], output=[name])
        asked.graph.output.add(name=name).type.tensor_type.elem_type = _INT64
    return asked


def _work(node: NodeProto, made: Shape, weights: Shape) -> LayerWork:
    """made: the shape of the layer's output; its first axis are rows."""
    name, settings = layer_name(node), {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        groups = settings.get("group", 1) or 1
        taps = prod(weights[2:])
        return LayerWork(name, prod(made[2:]), weights[0] // groups, weights[1] * taps, taps, groups)
    outputs = made[-1] if made else 1
    summed = prod(weights) // outputs if outputs else 0
    return LayerWork(name, prod(made[1:-1]), outputs, summed)
