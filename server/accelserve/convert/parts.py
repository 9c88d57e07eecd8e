"""The graphs of the parts of a cut: what crosses becomes a placeholder, what depends on no input is copied."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from accelserve.backends.saved_model_onnx.cut_model import ORDER
from accelserve.convert.cut import Cut, list_ops, node_of
from accelserve.convert.frozen import Frozen, sub_graph
from accelserve.convert.ops import PIVOTS, TABLES
from accelserve.errors import Kind, ScoringError

v1 = tf.compat.v1

# (table's node name, key type, value type) -> its content, keys ascending.
ReadTable = Callable[[str, Any, Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class PartGraph:
    """feeds, fetches: port -> value, both names of tensors. init: operations that fill the tables."""

    definition: Any
    feeds: Mapping[str, str]
    fetches: Mapping[str, str]
    init: tuple[str, ...] = ()

    @property
    def nodes(self) -> int:
        """Operations, constants not counted."""
        return sum(node.op not in ("Const", "Placeholder") for node in self.definition.node)


def split(frozen: Frozen, cut: Cut, read_table: ReadTable) -> dict[str, PartGraph]:
    """The parts by kind, those that there are. Raises ScoringError(PRECONDITION) for a handle that would cross."""
    outputs = set(frozen.outputs.values()) - frozen.graph.feeds
    parts: dict[str, PartGraph] = {}
    needed = outputs
    for kind, members in (("tail", cut.tail), ("dense", cut.dense), ("host", cut.host)):
        wanted = sorted(t for t in needed if node_of(t) in members)
        if kind == "host":  # and constant outputs, which no part owns
            wanted += sorted(t for t in outputs if not cut.part_of(t))
        if wanted:
            part = _Builder(frozen, cut, members).build(wanted)
            needed = needed | set(part.feeds.values())
            parts[kind] = part if kind == "dense" else _with_tables(part, kind, read_table)
    return {kind: parts[kind] for kind in ORDER if kind in parts}


class _Builder:
    """Collects one part's nodes, from what is wanted back to what other parts or the caller give."""

    def __init__(self, frozen: Frozen, cut: Cut, members: frozenset[str]) -> None:
        self._frozen = frozen
        self._cut = cut
        self._members = members
        self._definitions = {node.name: node for node in frozen.definition.node}
        self._feeds: dict[str, str] = {}  # value -> the placeholder's node name
        self._kept: dict[str, Any] = {}

    def build(self, wanted: Iterable[str]) -> PartGraph:
        wanted = list(wanted)
        waiting = [node_of(tensor) for tensor in wanted]
        while waiting:
            name = waiting.pop()
            if name not in self._kept:
                waiting += self._keep(name)
        definition = v1.GraphDef(versions=self._frozen.definition.versions)
        definition.library.CopyFrom(self._frozen.definition.library)
        definition.node.extend(self._placeholder(value, name) for value, name in sorted(self._feeds.items()))
        definition.node.extend(self._kept[name] for name in self._definitions if name in self._kept)
        feeds = {f"{name}:0": value for value, name in sorted(self._feeds.items())}
        definition = sub_graph(definition, [*self._kept, *self._feeds.values()])
        return PartGraph(definition, feeds, {tensor: tensor for tensor in wanted})

    def _keep(self, name: str) -> list[str]:
        """Copy a node; the nodes that it needs besides."""
        node = v1.NodeDef()
        node.CopyFrom(self._definitions[name])
        if "_class" in node.attr:  # names neighbours, which may be in another part
            del node.attr["_class"]
        node.device = ""
        sources = []
        for index, source in enumerate(node.input):
            if source.startswith("^"):
                continue
            tensor = source if ":" in source else f"{source}:0"
            if tensor in self._frozen.graph.feeds or self._crosses(tensor):
                node.input[index] = self._fed(tensor)
            else:
                sources.append(node_of(tensor))
        controls = [s for s in node.input if s.startswith("^") and self._is_pivot(s[1:])]
        node.input[:] = [s for s in node.input if not s.startswith("^")] + controls
        if node.op == "PlaceholderWithDefault":
            node = v1.NodeDef(name=name, op="Identity", input=list(node.input), attr={"T": node.attr["dtype"]})
        self._kept[name] = node
        return sources + [s[1:] for s in controls]

    def _is_pivot(self, name: str) -> bool:
        """Control edges order effects, of which a frozen graph has none, except in TF1 loops and conditions."""
        node = self._definitions.get(name)
        return node is not None and node.op in PIVOTS and not self._crosses(f"{name}:0")

    def _crosses(self, tensor: str) -> bool:
        owner = self._cut.part_of(tensor)
        return bool(owner) and owner != self._members

    def _fed(self, value: str) -> str:
        """The placeholder that stands for a value."""
        name, graph = node_of(value), self._frozen.graph
        if value not in graph.feeds and self._handle(value):
            message = f"a handle would cross the cut at {list_ops(graph, [name])}; serve the model with TensorFlow"
            raise ScoringError(Kind.PRECONDITION, message, reason="cannot_cut")
        return self._feeds.setdefault(value, f"accelserve_feed/{value.replace(':', '_')}")

    def _handle(self, value: str) -> bool:
        dtype = self._frozen.tensor(value).dtype.base_dtype
        return dtype in (tf.variant, tf.resource)

    def _placeholder(self, value: str, name: str) -> Any:
        tensor = self._frozen.tensor(value)
        node = v1.NodeDef(name=name, op="Placeholder")
        node.attr["dtype"].type = tensor.dtype.base_dtype.as_datatype_enum
        node.attr["shape"].shape.CopyFrom(self._shape(value, tensor).as_proto())
        return node

    def _shape(self, value: str, tensor: Any) -> Any:
        """What graph, signature and exporter know. Raises ScoringError for what a part gives and has no rank."""
        shape = tensor.shape
        for said in (*self._declared(value), *self._noted(value)):
            shape = shape.merge_with(said) if shape.is_compatible_with(said) else shape
        if shape.rank is None and value not in self._frozen.graph.feeds:
            remedy = "give it a shape with tf.ensure_shape, or serve the model with TensorFlow"
            message = f"the number of dimensions of {value}, where the graph is cut, is not known: {remedy}"
            raise ScoringError(Kind.PRECONDITION, message, reason="cannot_cut")
        return shape

    def _declared(self, value: str) -> Iterator[Any]:
        for key, name in self._frozen.inputs.items():
            declared = self._frozen.signature.inputs[key].shape
            if name == value and declared is not None:
                yield tf.TensorShape([None if size < 0 else size for size in declared])

    def _noted(self, value: str) -> Iterator[Any]:
        """Shapes that the exporter wrote down, which shape inference of TF1's loops and set_shape forget."""
        if value in self._frozen.noted:
            yield self._frozen.noted[value]
        node = self._definitions[node_of(value)]
        if node.op == "TensorArrayGatherV3" and not node.attr["element_shape"].shape.unknown_rank:
            yield tf.TensorShape([None]).concatenate(tf.TensorShape(node.attr["element_shape"].shape))


def _with_tables(part: PartGraph, kind: str, read_table: ReadTable) -> PartGraph:
    """Tables become the part's own, filled with what the loaded model's tables hold."""
    init = []
    for node in list(part.definition.node):
        if node.op not in TABLES:
            continue
        types = (node.attr["key_dtype"].type, node.attr["value_dtype"].type)
        keys, values = read_table(node.name, *types)
        node.attr["shared_name"].s = f"{kind}/{node.name}".encode()
        node.attr["use_node_name_sharing"].b = False
        filled = f"accelserve_fill/{node.name}"
        part.definition.node.extend(_fill(filled, node.name, types, keys, values))
        init.append(filled)
    return PartGraph(part.definition, part.feeds, part.fetches, tuple(init))


def _fill(name: str, table: str, types: tuple[int, int], keys: Any, values: Any) -> list[Any]:
    made = [v1.NodeDef(name=f"{name}/{what}", op="Const") for what in ("keys", "values")]
    for node, dtype, content in zip(made, types, (keys, values), strict=True):
        node.attr["dtype"].type = dtype
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(content, tf.as_dtype(dtype)))
    inputs = [table, *(node.name for node in made)]
    fill = v1.NodeDef(name=name, op="LookupTableImportV2", input=inputs)
    fill.attr["Tin"].type, fill.attr["Tout"].type = types
    return [*made, fill]


def table_reader(session: Any) -> ReadTable:
    """Reads tables of a loaded SavedModel."""

    def read(name: str, key_type: Any, value_type: Any) -> tuple[Any, Any]:
        with session.graph.as_default():
            handle = session.graph.get_tensor_by_name(f"{name}:0")
            exported = tf.raw_ops.LookupTableExportV2(
                table_handle=handle, Tkeys=tf.as_dtype(key_type), Tvalues=tf.as_dtype(value_type)
            )
        keys, values = session.run(exported)
        order = sorted(range(len(keys)), key=lambda index: keys[index])  # the same file at each conversion
        return keys[order], values[order]

    return read


def crossing(parts: Mapping[str, PartGraph], frozen: Frozen) -> dict[str, str]:
    """Tensors that go from part to part, with their type and shape."""
    found = {}
    for part in parts.values():
        for node in part.definition.node:
            value = part.feeds.get(f"{node.name}:0")
            if value is not None and value not in frozen.graph.feeds:
                shape = tf.TensorShape(node.attr["shape"].shape)
                found[value] = f"{tf.as_dtype(node.attr['dtype'].type).name}{_listed(shape)}"
    return found


def _listed(shape: Any) -> str:
    return "[" + ",".join("-1" if size is None else str(size) for size in shape.as_list()) + "]"
