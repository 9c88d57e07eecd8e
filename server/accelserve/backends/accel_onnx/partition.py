"""Where a graph is divided: what the device runs, and the tail that the host runs on its results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accelserve.backends.accel_onnx.operators import (
    MULTIPLIERS,
    Refusal,
    constants_of,
    in_words,
    is_constant,
    layer_name,
    needed_for,
    reads,
    refusal,
    unsupported,
)
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto, NodeProto, ValueInfoProto

_FLOAT = 1  # TensorProto.DataType
_REMEDY = "say where the device ends: `accelserve convert --to accelonnx --device-output NAME`, or use what it has"


@dataclass(frozen=True, slots=True)
class Split:
    """device has the model's inputs; tail, None when nothing is left, is fed by values of the same names.

    The device's outputs are what the tail reads and those of the model's that it makes itself.
    """

    device: ModelProto
    tail: ModelProto | None


def split(model: ModelProto, outputs: Sequence[str] | None = None) -> Split:
    """Divide a model. outputs: the values where the device ends; None: it takes all that it can from the inputs on.

    Raises ScoringError(PRECONDITION): a value that is not there, an operator on the device's side that it does not
    take, a layer that only a device is for on the host's side where no boundary was given; by operator and layer.
    """
    constants = constants_of(model)
    _check_outputs(model, constants)
    taken = _longest_prefix(model, constants) if outputs is None else _made_for(model, outputs, constants)
    rest = [node for node in model.graph.node if not taken.intersection(node.output)]
    moving = [node for node in rest if not is_constant(node, constants)]
    if outputs is None:
        _check_rest(moving, constants)
    if not any(node.op_type in MULTIPLIERS for node in model.graph.node if taken.intersection(node.output)):
        raise ScoringError(Kind.PRECONDITION, _nothing_for_a_device(moving, constants))
    read = {name for node in moving for name in reads(node)}
    ends = [name for node in model.graph.node for name in node.output if name in taken and name in read]
    made = [output.name for output in model.graph.output if output.name in taken]
    device = _part(model, taken, _device_inputs(model, taken, read, constants), list(dict.fromkeys([*ends, *made])))
    _check_device(device)
    if not moving:
        return Split(device, None)
    later = {name for node in moving for name in node.output}
    inputs = [v.name for v in model.graph.input if v.name in read - constants]
    return Split(device, _part(model, later, [*inputs, *ends], [o.name for o in model.graph.output if o.name in later]))


def prefix_ends(model: ModelProto) -> tuple[str, ...]:
    """What a device hands over when it takes every operator that it can from the inputs on, whatever is left."""
    taken = _longest_prefix(model, constants_of(model))
    left = (node for node in model.graph.node if not taken.intersection(node.output))
    wanted = {name for node in left for name in reads(node)} | {value.name for value in model.graph.output}
    return tuple(name for node in model.graph.node for name in node.output if name in wanted & taken)


def _check_outputs(model: ModelProto, constants: set[str]) -> None:
    """Raises ScoringError(PRECONDITION) for an output that is the same for every input: no part would make it."""
    fixed = [f'"{value.name}"' for value in model.graph.output if value.name in constants]
    if fixed:
        message = f"output {', '.join(fixed)} is a constant, which no device makes"
        raise ScoringError(Kind.PRECONDITION, f"{message}: leave it out of the model's outputs")


def _device_inputs(model: ModelProto, taken: set[str], read_later: set[str], constants: set[str]) -> list[str]:
    """The model's inputs, but for those that the tail alone reads."""
    read = {name for node in model.graph.node if taken.intersection(node.output) for name in reads(node)}
    names = [value.name for value in model.graph.input if value.name not in constants]
    return [name for name in names if name in read or name not in read_later]


def _check_device(device: ModelProto) -> None:
    """Raises ScoringError(PRECONDITION) for what the device does not take, by name."""
    for value in device.graph.input:
        if value.type.tensor_type.elem_type != _FLOAT:
            dtype = value.type.tensor_type.elem_type
            message = f'the FPGA takes float32 alone, and input "{value.name}" is of ONNX data type {dtype}'
            raise ScoringError(Kind.PRECONDITION, f"{message}; {_REMEDY}")
    if refused := unsupported(device):
        raise _refused(refused)


def _longest_prefix(model: ModelProto, constants: set[str]) -> set[str]:
    """The values that a device can make from the inputs."""
    made = {value.name for value in model.graph.input} - constants
    inputs = set(made)
    for node in model.graph.node:
        if is_constant(node, constants) or refusal(node, constants):
            continue
        if all(name in made or name in constants for name in node.input if name):
            made.update(filter(None, node.output))
    return made - inputs


def _made_for(model: ModelProto, outputs: Sequence[str], constants: set[str]) -> set[str]:
    """The values from which `outputs` are made, with these. Raises ScoringError(PRECONDITION) for an unknown one."""
    maker = {name: node for node in model.graph.node for name in node.output if name}
    if missing := [name for name in outputs if name not in maker or name in constants]:
        known = ", ".join(f'"{value.name}"' for value in model.graph.output)
        message = f"the model has no value {', '.join(f'{name!r}' for name in missing)} that a device could make"
        raise ScoringError(Kind.PRECONDITION, f"{message}; its outputs are {known}")
    needed = needed_for(model.graph, outputs)
    kept = (node for node in model.graph.node if needed.intersection(node.output) and not is_constant(node, constants))
    return {name for node in kept for name in node.output if name}


def _check_rest(rest: Sequence[NodeProto], constants: set[str]) -> None:
    """Raises ScoringError(PRECONDITION) when layers are left to the host by what stands before them."""
    left = [node for node in rest if node.op_type in MULTIPLIERS]
    if not left:
        return
    causes = tuple(Refusal(layer_name(node), node.op_type, why) for node in rest if (why := refusal(node, constants)))
    layers = in_words(f'"{layer_name(node)}"' for node in left)
    raise _refused(causes, f": {layers} would be left to the host")


def _nothing_for_a_device(left: Sequence[NodeProto], constants: set[str]) -> str:
    causes = tuple(Refusal(layer_name(node), node.op_type, why) for node in left if (why := refusal(node, constants)))
    why = f"the FPGA does not take {in_words(causes)}, and so " if causes else ""
    message = f"{why}the device would get no convolution and no matrix product"
    return f"{message}: this model has nothing for an FPGA; serve it on another device"


def _refused(refusals: Sequence[Refusal], consequence: str = "") -> ScoringError:
    message = f"the FPGA does not take {in_words(refusals)}{consequence}"
    return ScoringError(Kind.PRECONDITION, f"{message}; {_REMEDY}")


def _part(model: ModelProto, made: set[str], inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """The nodes that make `made`, with the constants that they need."""
    part = ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    part.opset_import.extend(model.opset_import)
    part.graph.name = model.graph.name
    made = made | set(_constants_for(model, made))
    part.graph.node.extend(node for node in model.graph.node if made.intersection(node.output))
    read = {name for node in part.graph.node for name in reads(node)}
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    part.graph.input.extend(_value(model, name) for name in inputs)
    part.graph.output.extend(_value(model, name) for name in outputs)
    return part


def _constants_for(model: ModelProto, made: set[str]) -> Iterator[str]:
    """The values of constant nodes from which those are fed that make `made`."""
    constants = constants_of(model)
    maker = {name: node for node in model.graph.node for name in node.output if name in constants}
    pending = [name for node in model.graph.node if made.intersection(node.output) for name in reads(node)]
    seen = set[str]()
    while pending:
        name = pending.pop()
        if name in maker and name not in seen:
            seen.add(name)
            yield name
            pending += reads(maker[name])


def _value(model: ModelProto, name: str) -> ValueInfoProto:
    """What the model says of a value; of one between nodes at least that a device makes float32."""
    graph = model.graph
    for told in (*graph.input, *graph.output, *graph.value_info):
        if told.name == name:
            value: ValueInfoProto = told
            return value
    value = ValueInfoProto(name=name)
    value.type.tensor_type.elem_type = _FLOAT
    return value
