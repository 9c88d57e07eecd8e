"""A SavedModel's signature as one graph without variables: loaded, checked, inlined, frozen."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.grappler import tf_optimizer

from accelserve.backends.base import SessionOptions
from accelserve.backends.tf_session.backend import load_saved_model, quiet, session_config
from accelserve.backends.tf_session.errors import one_line
from accelserve.backends.tf_session.signatures import read_signatures
from accelserve.convert.cut import Graph, Node, listed, node_of
from accelserve.convert.ops import CHECKS, PLACEHOLDERS, VARIABLES, why_not_frozen
from accelserve.convert.reading import read_nodes
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature

v1 = tf.compat.v1
_MOST_BYTES = 2**31 - 1  # of one protobuf message, which a frozen graph is


@dataclass(frozen=True, slots=True)
class Frozen:
    """definition: a GraphDef without variables and pass-through nodes; tensors: the same graph, imported.

    inputs, outputs: signature key -> tensor. graph: for `find_cut`.
    checks: operations that only check or print, which no part keeps.
    noted: shapes that the exporter wrote down, by tensor; shape inference may know less.
    """

    signature: Signature
    definition: Any
    tensors: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    graph: Graph
    noted: Mapping[str, Any]
    checks: tuple[str, ...] = ()

    def tensor(self, name: str) -> Any:
        return self.tensors.get_tensor_by_name(name)


class LoadedSavedModel:
    """A SavedModel in a V1 session, TF1's and TF2's alike: what TF1 writes does not load otherwise.

    signatures: those that have only plain tensors; `refused`: the others, with the reason.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.session = v1.Session(graph=tf.Graph(), config=session_config(tf, SessionOptions()))
        try:
            self._meta_graph = load_saved_model(tf, name, self.session, path)
        except BaseException:
            self.session.close()
            raise
        self.refused: dict[str, str] = {}
        self.signatures: Mapping[str, Signature] = {}

    def __enter__(self) -> "LoadedSavedModel":
        try:
            definitions = self._meta_graph.signature_def
            self.signatures = read_signatures(self.name, definitions, tf.make_ndarray, self.refused)
        except BaseException:
            self.session.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def freeze(self, name: str) -> Frozen:
        """Raises ScoringError(PRECONDITION) naming the operators that cannot be frozen."""
        try:
            return self._freeze(name)
        except ScoringError:
            raise
        except Exception as error:
            reason = f"TensorFlow cannot freeze it: {type(error).__name__}: {one_line(error)}"
            raise ScoringError(Kind.PRECONDITION, reason) from error

    def _freeze(self, name: str) -> Frozen:
        signature = self.signatures[name]
        feeds = {key: _full(spec.tensor_name) for key, spec in signature.inputs.items()}
        fetches = {key: _full(spec.tensor_name) for key, spec in signature.outputs.items()}
        definition = self.session.graph.as_graph_def()
        if not feeds:
            raise ScoringError(Kind.PRECONDITION, f'signature "{name}" has no input: there is nothing to accelerate')
        with quiet(tf.get_logger()):
            definition = sub_graph(definition, _nodes(fetches.values()))
            _refuse_what_cannot_freeze(definition, set(feeds.values()))
            definition = _inlined(definition, [*feeds.values(), *fetches.values()])
            weights = frozenset(node.name for node in definition.node if node.op in VARIABLES)
            self._check_size(definition)
            self._add_reads(weights)
            definition = v1.graph_util.convert_variables_to_constants(
                self.session, definition, _nodes(fetches.values())
            )
        definition, forwarded = _without_pass_through(definition, set(feeds.values()))
        outputs = {key: forwarded(tensor) for key, tensor in fetches.items()}
        noted = _take_noted_shapes(definition)
        tensors = _imported(definition)
        nodes = read_nodes(definition, tensors)
        _refuse_unfed(nodes, feeds.values(), outputs.values())
        graph = Graph(nodes, frozenset(feeds.values()), weights & nodes.keys())
        needed = graph.ancestors(node_of(t) for t in outputs.values() if t not in graph.feeds)
        checks = tuple(sorted(n.name for n in nodes.values() if n.op in CHECKS and n.name not in needed))
        return Frozen(signature, definition, tensors, feeds, outputs, graph, noted, checks)

    @staticmethod
    def _check_size(definition: Any) -> None:
        sizes = 0
        for node in definition.node:
            if node.op in VARIABLES:
                shape = tf.TensorShape(node.attr["shape"].shape)
                sizes += (shape.num_elements() or 0) * tf.as_dtype(node.attr["dtype"].type).size
        if sizes > _MOST_BYTES:
            message = f"its weights take {sizes / 2**30:.1f} GiB and a frozen graph holds 2: serve it with TensorFlow"
            raise ScoringError(Kind.PRECONDITION, message)

    def _add_reads(self, weights: Iterable[str]) -> None:
        """The node that `convert_variables_to_constants` reads a variable by, where the SavedModel has none."""
        graph = self.session.graph
        with graph.as_default():
            for name in weights:
                handle = graph.get_operation_by_name(name)
                if handle.type == "VarHandleOp" and f"{name}/Read/ReadVariableOp" not in graph._nodes_by_name:
                    dtype = handle.get_attr("dtype")
                    tf.raw_ops.ReadVariableOp(
                        resource=handle.outputs[0], dtype=dtype, name=f"{name}/Read/ReadVariableOp"
                    )


def sub_graph(definition: Any, names: Iterable[str]) -> Any:
    """What the nodes need, and of the functions only those that are called (TensorFlow's own keeps all)."""
    with quiet(tf.get_logger()):
        found = v1.graph_util.extract_sub_graph(definition, sorted(names))
    functions = {function.signature.name: function for function in found.library.function}
    called: set[str] = set()
    waiting = [found.node]
    while waiting:
        for node in waiting.pop():
            names_in = set(_called_by(node)) & functions.keys() - called
            called |= names_in
            waiting.extend(functions[name].node_def for name in names_in)
    kept = [function for function in found.library.function if function.signature.name in called]
    del found.library.function[:]
    found.library.function.extend(kept)
    return found


def _called_by(node: Any) -> Iterator[str]:
    yield node.op  # a call by the function's own name
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _nodes(tensors: Iterable[str]) -> list[str]:
    return sorted({node_of(tensor) for tensor in tensors})


def _refuse_what_cannot_freeze(definition: Any, feeds: set[str]) -> None:
    found: dict[str, list[tuple[str, str]]] = {}
    for node in _all_nodes(definition):
        if (why := why_not_frozen(node.op)) and f"{node.name}:0" not in feeds:
            found.setdefault(why, []).append((node.op, node.name))
    if found:
        reasons = "; ".join(f"{listed(ops)}: {why}" for why, ops in found.items())
        raise ScoringError(Kind.PRECONDITION, f"the graph cannot be frozen: {reasons}", reason="cannot_cut")


def _all_nodes(definition: Any) -> Iterator[Any]:
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def _inlined(definition: Any, kept: Iterable[str]) -> Any:
    """Function calls replaced by their bodies; loops and conditions stay as they are. kept: tensors that must stay."""
    for function in definition.library.function:
        if "api_implements" in function.attr:  # a layer with a GPU variant is not inlined otherwise
            del function.attr["api_implements"]
    for node in _all_nodes(definition):
        if "_lower_using_switch_merge" in node.attr:
            node.attr["_lower_using_switch_merge"].b = False
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=definition)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _without_pass_through(definition: Any, feeds: set[str]) -> tuple[Any, Callable[[str], str]]:
    """Consumers of Identity and IdentityN take what these pass on, which may be of different parts.

    Not inside TF1 loops and conditions, where an Identity is what control edges hang from.
    """
    sources: dict[str, str] = {}
    structured = any(node.op in ("Switch", "Enter") for node in definition.node)
    for node in definition.node:
        if node.op == "IdentityN" or (node.op == "Identity" and not structured):
            data = [name for name in node.input if not name.startswith("^")]
            sources |= {f"{node.name}:{port}": _full(source) for port, source in enumerate(data)}

    def forwarded(tensor: str) -> str:
        while tensor in sources and tensor not in feeds:
            tensor = sources[tensor]
        return tensor

    for node in definition.node:
        inputs = [name if name.startswith("^") else _short(forwarded(_full(name))) for name in node.input]
        node.input[:] = inputs
    return definition, forwarded


def _take_noted_shapes(definition: Any) -> dict[str, Any]:
    """The exporter's shapes, taken out of the graph: those of loops are wrong once variables are constants."""
    noted = {}
    for node in definition.node:
        for port, shape in enumerate(node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()):
            noted[f"{node.name}:{port}"] = tf.TensorShape(shape)
    for node in _all_nodes(definition):
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]
    return noted


def _short(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _imported(definition: Any) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    return graph


def _refuse_unfed(nodes: Mapping[str, Node], feeds: Iterable[str], outputs: Iterable[str]) -> None:
    fed = frozenset(feeds)
    needed = Graph(nodes, fed).ancestors(node_of(t) for t in outputs if t not in fed)
    unfed = [
        (nodes[name].op, name)
        for name in needed
        if nodes[name].op in PLACEHOLDERS - {"PlaceholderWithDefault"} and f"{name}:0" not in fed
    ]
    if unfed:
        raise ScoringError(Kind.PRECONDITION, f"the signature does not feed {listed(unfed)}, which its outputs need")
