"""Which tensors a conversion for an FPGA is about, and how clients are to call them.

The names given at the conversion, ":0" and all, are the clients' names (specs/azure_scoring.md 3.6). What a model's own
metadata says ("accelserve.input_name" and its kin, written by `recipes build`) is the default.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from accelserve.backends.accel_onnx.model_file import inputs_of
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto

_PREFIX = "accelserve."


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output. tensor: in the graph. key, name: the two that clients may use."""

    tensor: str
    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the model's metadata says, "" or () where it is silent."""

    input_name: str = ""
    input_key: str = ""
    output_key: str = ""
    device_outputs: tuple[str, ...] = ()


def told_by(model: ModelProto) -> Told:
    ours = [entry for entry in model.metadata_props if entry.key.startswith(_PREFIX)]
    said = {entry.key.removeprefix(_PREFIX): entry.value for entry in ours}
    return Told(
        said.get("input_name", ""),
        said.get("input_key", ""),
        said.get("output_key", ""),
        split_names([said.get("device_output", "")]),
    )


def split_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Names of a repeated flag whose values may be comma lists, as the original converter took them; each once."""
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def input_ports(model: ModelProto, told: Told, wanted: Sequence[str]) -> tuple[Port, ...]:
    """All inputs of the graph. wanted: how clients are to call them, () for what the model says.

    Raises ScoringError(PRECONDITION) when the names are not those of the graph's inputs.
    """
    tensors = [value.name for value in inputs_of(model.graph)]
    lone = tensors[0] if len(tensors) == 1 else None
    aliases = {_bare(told.input_name): lone, told.input_key: lone} if lone else {}
    found = {_tensor(name, tensors, aliases): name for name in wanted}
    if None in found or (wanted and set(found) != set(tensors)):
        there = ", ".join([*tensors, *([f"{told.input_name} (its clients' name)"] if told.input_name else [])])
        raise ScoringError(Kind.PRECONDITION, f"input {', '.join(wanted)}: the model's inputs are {there}")
    return tuple(_port(tensor, found.get(tensor), told.input_key, told.input_name, lone) for tensor in tensors)


def output_ports(model: ModelProto, told: Told, wanted: Sequence[str]) -> tuple[Port, ...]:
    """The outputs wanted: of the graph, or any tensor in it; all of the graph where nothing is said.

    Raises ScoringError(PRECONDITION) naming what is not there.
    """
    own = [value.name for value in model.graph.output]
    inner = [name for node in model.graph.node for name in node.output if name]
    aliases = {told.output_key: own[0]} if len(own) == 1 else {}
    found = {name: _tensor(name, [*own, *inner], aliases) for name in wanted or own}
    missing = [name for name, tensor in found.items() if tensor is None]
    if missing:
        message = f"output {', '.join(missing)}: no tensor of this name; the model's outputs are {', '.join(own)}"
        raise ScoringError(Kind.PRECONDITION, message)
    tensors = {tensor: name for name, tensor in found.items() if tensor is not None}
    lone = next(iter(tensors)) if len(tensors) == 1 else None
    return tuple(_port(tensor, name, told.output_key, "", lone) for tensor, name in tensors.items())


def _port(tensor: str, wanted: str | None, key: str, name: str, lone: str | None) -> Port:
    """wanted may be the key: then the name is what the model says."""
    called = name if lone and wanted in (None, key) and name else (wanted or tensor)
    return Port(tensor, key if lone and key else called, tensor if called == key else called)


def _tensor(name: str, tensors: Sequence[str], aliases: Mapping[str, str | None]) -> str | None:
    by_bare = {_bare(tensor): tensor for tensor in reversed(tensors)}
    exact = name if name in tensors else None
    return exact or by_bare.get(_bare(name)) or aliases.get(_bare(name)) or aliases.get(name)


def _bare(name: str) -> str:
    return name.removesuffix(":0")
