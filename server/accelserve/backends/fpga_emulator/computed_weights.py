"""Weights that a graph computes of constants alone (casts from fp16, transposes, dequantization), made plain ones."""

import numpy as np

from accelserve.backends.accel_onnx.operators import MULTIPLIERS, constants_of, is_constant
from accelserve.backends.fpga_emulator.measuring import RunOnce
from accelserve.backends.fpga_emulator.rewrite_graph import FLOAT, tensor
from accelserve.wire.onnx_pb2 import ModelProto

_WEIGHTED = (*MULTIPLIERS, "BatchNormalization")


def with_computed_weights(device: ModelProto, run_once: RunOnce) -> ModelProto:
    """The graph, or a copy in which such weights are initializers; what is no float32 stays as it is."""
    constants, graph = constants_of(device), device.graph
    held = {each.name for each in graph.initializer}
    lone = {node.output[0] for node in graph.node if len(node.output) == 1 and is_constant(node, constants)}
    read = {name for node in graph.node if node.op_type in _WEIGHTED for name in node.input[1:]}
    wanted = sorted((read & lone) - held - {value.name for value in graph.output})
    if not wanted:
        return device
    values = run_once(_of_constants(device, constants, wanted).SerializeToString(), wanted, {})
    found = {name: value for name, value in zip(wanted, values, strict=True) if value.dtype == np.float32}
    made = ModelProto()
    made.CopyFrom(device)
    del made.graph.node[:]
    made.graph.node.extend(node for node in graph.node if not found.keys() & set(node.output))
    made.graph.initializer.extend(tensor(name, value) for name, value in found.items())
    return made


def _of_constants(device: ModelProto, constants: set[str], wanted: list[str]) -> ModelProto:
    part = ModelProto(ir_version=device.ir_version, opset_import=device.opset_import)
    part.graph.name = device.graph.name
    part.graph.node.extend(node for node in device.graph.node if is_constant(node, constants))
    part.graph.initializer.extend(device.graph.initializer)
    for name in wanted:
        part.graph.output.add(name=name).type.tensor_type.elem_type = FLOAT
    return part
