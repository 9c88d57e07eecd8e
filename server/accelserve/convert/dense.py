"""The dense part as ONNX: tf2onnx, and the checks that tf2onnx does not make."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import onnx
import tf2onnx.convert
import tf2onnx.utils

from accelserve.convert.cut import REMEDY, listed
from accelserve.convert.float16 import byte_size
from accelserve.convert.known_ops import ROUNDED_DOWN, in_known_ops
from accelserve.convert.parts import PartGraph
from accelserve.errors import Kind, ScoringError

OPSET = 17  # both sides' best tried ground; --opset takes another
_LARGEST_BYTES = 2**31 - 1  # of one ONNX file without external data
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


class UnsupportedOps(Exception):
    """Operators that tf2onnx has no translation for; caught where the cut can be moved behind them."""

    def __init__(self, ops: list[tuple[str, str]]) -> None:
        super().__init__(f"tf2onnx cannot convert {listed(ops)}; {REMEDY}")
        self.nodes = frozenset(name for _, name in ops)


@dataclass(frozen=True, slots=True)
class OnnxPart:
    """model: an onnx.ModelProto. feeds, fetches: name in it -> value."""

    model: Any
    feeds: Mapping[str, str]
    fetches: Mapping[str, str]

    @property
    def nodes(self) -> int:
        return len(self.model.graph.node)

    def digest(self) -> bytes:
        """Equal for graphs that differ in names alone, as a Keras export's `serve` and `serving_default` do."""
        return sha256(_renamed(self.model).SerializeToString(deterministic=True)).digest()


def to_onnx(part: PartGraph, names: Mapping[str, str], opset: int) -> OnnxPart:
    """Convert. names: value -> the name it is to have in the ONNX model, for those that have a better one.

    Raises UnsupportedOps; ScoringError(PRECONDITION) for all else that tf2onnx stumbles over.
    """
    feeds = {_free(names.get(value, value), ()): value for value in part.feeds.values()}
    ports = {value: port for port, value in part.feeds.items()}
    fetches: dict[str, str] = {}
    for tensor in part.fetches:
        fetches[_free(names.get(tensor, tensor), (*feeds, *fetches))] = tensor
    renamed = {ports[value]: name for name, value in feeds.items()} | {t: name for name, t in fetches.items()}
    tf2onnx.utils.INTERNAL_NAME = 1  # numbers its names through the process; from 1, equal graphs are equal files
    with _heard() as errors:
        try:
            model, _ = tf2onnx.convert.from_graph_def(
                in_known_ops(part.definition),
                name="accelserve",
                input_names=[ports[value] for value in feeds.values()],
                output_names=list(fetches.values()),
                opset=opset,
                custom_op_handlers=ROUNDED_DOWN,
                tensors_to_rename=renamed,
            )
        except Exception as error:
            raise _failed(f"{type(error).__name__}: {error}", errors) from error
    if unsupported := sorted(set(_unknown_ops(model.graph, {o.domain: o.version for o in model.opset_import}))):
        raise UnsupportedOps(unsupported)
    if byte_size(model) > _LARGEST_BYTES:
        raise _failed("the ONNX model is larger than 2 GiB", errors)
    return OnnxPart(model, feeds, fetches)


def _renamed(model: Any) -> Any:
    """A copy whose tensors and nodes are numbered as they come; the model itself where an inner graph has names too."""
    if any(a.type in _GRAPHS for node in model.graph.node for a in node.attribute):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, numbers = copy.graph, {"": ""}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"t{len(numbers)}")

    for value in (*graph.input, *graph.output):
        value.name = number(value.name)
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = number(size.dim_param)
    for node in graph.node:
        node.name = ""
        node.input[:] = [number(name) for name in node.input]
        node.output[:] = [number(name) for name in node.output]
    for value in (*graph.initializer, *graph.value_info):
        value.name = number(value.name)
    initializers = sorted(graph.initializer, key=lambda tensor: tensor.name)
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(initializers)
    return copy


def _free(name: str, taken: tuple[str, ...]) -> str:
    """ONNX has one name space for inputs and outputs, a signature two."""
    while name in taken:
        name += "_output"
    return name


def _failed(reason: str, errors: list[str]) -> ScoringError:
    said = f" (tf2onnx said: {'; '.join(errors[:3])})" if errors else ""
    return ScoringError(Kind.PRECONDITION, f"tf2onnx does not convert the dense part: {reason}{said}; {REMEDY}")


def _unknown_ops(graph: Any, opsets: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """What is no ONNX operator. tf2onnx logs "Unsupported ops", leaves them in the file and reports success."""
    for node in graph.node:
        known = ("ai.onnx" if node.domain == "" else node.domain) in ("ai.onnx", "ai.onnx.ml")
        if not known or not _has(node.op_type, node.domain, opsets.get(node.domain, opsets.get("", OPSET))):
            yield node.op_type, node.name
        for attribute in node.attribute:
            if attribute.type in _GRAPHS:
                for inner in (attribute.g, *attribute.graphs):
                    yield from _unknown_ops(inner, opsets)


def _has(op: str, domain: str, version: int) -> bool:
    try:
        onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return False
    return True


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(" ".join(record.getMessage().split())[:200])


@contextmanager
def _heard() -> Iterator[list[str]]:
    """tf2onnx's errors, kept from the terminal and told in ours."""
    listener = _Listener()
    log = logging.getLogger("tf2onnx")
    before = log.propagate, log.level
    log.addHandler(listener)
    log.propagate = False
    try:
        yield listener.errors
    finally:
        log.removeHandler(listener)
        log.propagate, log.level = before[0], before[1]
