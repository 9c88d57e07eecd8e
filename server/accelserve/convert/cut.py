"""Where a frozen graph is cut: decided on plain values, without TensorFlow.

The network begins where the model's weights are used. What touches strings before that is the *host part*, with all
that it is computed from; what touches strings after it is the *tail*, with all that is computed from it; the rest is
*dense*. So JPEG decoding and id lookups are host, `lookup(argmax(scores))` is tail, and no pattern has to be known.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from accelserve.convert.ops import CONTROL_FLOW, PASSING, WEIGHTED, is_loop_handle
from accelserve.errors import Kind, ScoringError

_NAMED = 8  # operators that a message lists

PLAIN, TEXT, HANDLE = "plain", "text", "handle"  # a tensor of numbers; of strings; a variant or resource


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. inputs: tensors, "name:port". outputs: the sort of each output tensor.

    texts: touches strings in its types or attributes, or in the body of a function that it calls.
    frame: of a TF1 while loop, empty outside of one.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = (PLAIN,)
    texts: bool = False
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """Names of nodes; nodes that depend on no input belong to nobody and are copied to where they are used."""

    host: frozenset[str] = frozenset()
    dense: frozenset[str] = frozenset()
    tail: frozenset[str] = frozenset()

    def part_of(self, tensor: str) -> frozenset[str]:
        return next((part for part in (self.host, self.dense, self.tail) if node_of(tensor) in part), frozenset())


def node_of(tensor: str) -> str:
    return tensor.partition(":")[0]


def port_of(tensor: str) -> int:
    return int(tensor.partition(":")[2] or 0)


@dataclass(frozen=True, slots=True)
class Graph:
    """nodes: by name. feeds: tensors that the signature's inputs replace. weights: nodes that were variables."""

    nodes: Mapping[str, Node]
    feeds: frozenset[str]
    weights: frozenset[str] = frozenset()
    forced: frozenset[str] = field(default=frozenset())  # nodes that have to stay with TensorFlow for another reason

    def inputs(self, name: str) -> Iterator[Node]:
        """The nodes that compute a node's inputs, as far as they are not fed."""
        return (self.nodes[node_of(t)] for t in self.nodes[name].inputs if t not in self.feeds)

    def ancestors(self, names: Iterable[str]) -> set[str]:
        """The nodes and all that they are computed from."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(node.name for node in self.inputs(name))
        return found

    def descendants(self, start: Iterable[str], within: Collection[str]) -> set[str]:
        """The nodes of `within` that are computed from `start`, and those of `start` that are in it."""
        users: dict[str, list[str]] = {}
        for name in within:
            for node in self.inputs(name):
                users.setdefault(node.name, []).append(name)
        found: set[str] = set()
        waiting = [name for name in start if name in within]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(users.get(name, ()))
        return found


def find_cut(graph: Graph, outputs: Iterable[str]) -> Cut:
    """Cut a graph that computes the tensors `outputs`.

    Raises ScoringError(PRECONDITION) naming the operators when nothing dense is left, or when the network goes on
    after operators that only TensorFlow has.
    """
    needed = graph.ancestors(node_of(t) for t in outputs if t not in graph.feeds)
    fed = [name for name in needed if any(t in graph.feeds for t in graph.nodes[name].inputs)]
    live = graph.descendants(fed, needed)
    marked = _marked(graph, needed)
    weighted = _weighted(graph, needed, live)
    after_weights = graph.descendants(weighted, needed)

    late = {name for name in marked if any(n.name in after_weights for n in graph.inputs(name))}
    tail = graph.descendants(late, needed)
    if again := tail & weighted:
        where = f"after {list_ops(graph, late)}, which only TensorFlow has, the network goes on with"
        raise _refusal(where, graph, again)
    host = _host(graph, (marked & live) - tail, live - tail, after_weights) & live
    dense = live - host - tail
    host |= (graph.ancestors(dense) & marked) - live  # strings without an input, made into numbers the network takes
    if not any(graph.nodes[name].op not in PASSING for name in dense):
        raise _nothing_dense(graph, marked)
    return Cut(frozenset(host), frozenset(dense), frozenset(tail))


def _marked(graph: Graph, needed: Collection[str]) -> set[str]:
    """Nodes that only TensorFlow can run. A TF1 loop with one of them is marked as a whole."""
    marked = {name for name in needed if graph.nodes[name].texts or name in graph.forced}
    frames = {graph.nodes[name].frame for name in marked} - {""}
    return marked | {name for name in needed if graph.nodes[name].frame in frames}


def _weighted(graph: Graph, needed: Collection[str], live: Collection[str]) -> set[str]:
    """Nodes in which something that was asked for meets something that was learned."""
    learned = graph.descendants(graph.weights, needed) - set(live)

    def uses_weights(name: str) -> bool:
        node = graph.nodes[name]
        return node.op in WEIGHTED or any(source.name in learned for source in graph.inputs(name))

    return {name for name in live if uses_weights(name) and not graph.nodes[name].texts}


def _host(graph: Graph, marked: set[str], candidates: set[str], after_weights: set[str]) -> set[str]:
    """All that the marked nodes are computed from; and, since a handle cannot cross, who takes one from them."""
    host = graph.ancestors(marked)
    while True:
        takers = {name for name in candidates - host if _takes_handle(graph, name, host)}
        if not takers:
            return host
        if takers & after_weights:
            raise _refusal("the network takes handles (variants, resources) of", graph, takers & after_weights)
        host |= graph.ancestors(takers)


def _takes_handle(graph: Graph, name: str, part: Collection[str]) -> bool:
    tensors = (t for t in graph.nodes[name].inputs if t not in graph.feeds and node_of(t) in part)
    return any(graph.nodes[node_of(t)].outputs[port_of(t)] != PLAIN for t in tensors)


def _nothing_dense(graph: Graph, marked: set[str]) -> ScoringError:
    why = f"it is all strings, tables or decoding ({list_ops(graph, marked)})" if marked else "it computes nothing"
    return ScoringError(Kind.PRECONDITION, f"nothing is left for the accelerator: {why}; {REMEDY}", reason="cannot_cut")


def _refusal(where: str, graph: Graph, names: Collection[str]) -> ScoringError:
    message = f"{where} {list_ops(graph, names)}: that would need two cuts; {REMEDY}"
    return ScoringError(Kind.PRECONDITION, message, reason="cannot_cut")


REMEDY = "serve it with TensorFlow on the CPU (--device cpu), or export the dense part as a signature of its own"


def list_ops(graph: Graph, names: Iterable[str]) -> str:
    return listed((graph.nodes[name].op, name) for name in names)


def listed(ops: Iterable[tuple[str, str]]) -> str:
    """`DecodeJpeg "map/decode", ...`: operators with their nodes, each operator once."""
    first: dict[str, str] = {}
    for op, name in sorted(ops):
        first.setdefault(op, name)
    shown = [f'{op} "{name}"' for op, name in first.items()]
    return ", ".join(shown[:_NAMED]) + (f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else "")


def is_marked_type(op: str, sorts: Collection[str]) -> bool:
    """Whether types alone keep a node with TensorFlow: strings do, and handles other than those of loops."""
    return TEXT in sorts or (HANDLE in sorts and not is_loop_handle(op) and op not in CONTROL_FLOW)
