import pytest

from accelserve.convert.cut import HANDLE, PLAIN, TEXT, Graph, Node, find_cut, is_marked_type
from accelserve.errors import Kind, ScoringError


def node(name: str, op: str, *inputs: str, texts: bool = False, sort: str = PLAIN, frame: str = "") -> Node:
    tensors = tuple(source if ":" in source else f"{source}:0" for source in inputs)
    return Node(name, op, tensors, (sort,), texts or sort == TEXT, frame)


def graph(*nodes: Node, feeds: tuple[str, ...] = ("in:0",), weights: tuple[str, ...] = ("w",), **options) -> Graph:
    placeholders = [node(feed.partition(":")[0], "Placeholder") for feed in feeds]
    constants = [node(name, "Const") for name in weights]
    every = [*placeholders, *constants, *nodes]
    return Graph({n.name: n for n in every}, frozenset(feeds), frozenset(weights), **options)


def test_a_network_without_strings_is_dense_as_a_whole():
    cut = find_cut(graph(node("mul", "MatMul", "in", "w"), node("soft", "Softmax", "mul")), ["soft:0"])
    assert (cut.host, cut.dense, cut.tail) == (frozenset(), {"mul", "soft"}, frozenset())


def test_decoding_is_host_and_what_follows_it_is_dense():
    decoded = node("decode", "DecodeJpeg", "in", texts=True)
    cut = find_cut(graph(decoded, node("cast", "Cast", "decode"), node("conv", "Conv2D", "cast", "w")), ["conv:0"])
    assert cut.host == {"decode"}
    assert cut.dense == {"cast", "conv"}


def test_what_a_string_operator_is_computed_from_is_host_too():
    nodes = [
        node("round", "Round", "in"),
        node("text", "AsString", "round", sort=TEXT),
        node("hash", "StringToHashBucketFast", "text", texts=True),
        node("embedded", "GatherV2", "w", "hash"),
    ]
    cut = find_cut(graph(*nodes), ["embedded:0"])
    assert cut.host == {"round", "text", "hash"}
    assert cut.dense == {"embedded"}


def test_a_table_of_labels_after_the_network_is_tail():
    nodes = [
        node("table", "HashTableV2", sort=HANDLE, texts=True),
        node("scores", "MatMul", "in", "w"),
        node("best", "ArgMax", "scores"),
        node("label", "LookupTableFindV2", "table", "best", sort=TEXT),
    ]
    cut = find_cut(graph(*nodes), ["scores:0", "label:0"])
    assert (cut.dense, cut.tail) == ({"scores", "best"}, {"label"})
    assert not cut.host


def test_a_string_input_that_goes_to_the_tail_alone_makes_no_host_part():
    nodes = [
        node("scores", "MatMul", "in", "w"),
        node("text", "AsString", "scores", sort=TEXT),
        node("joined", "StringJoin", "name", "text", sort=TEXT),
    ]
    cut = find_cut(graph(*nodes, feeds=("in:0", "name:0")), ["joined:0"])
    assert (cut.host, cut.tail) == (frozenset(), {"text", "joined"})


def test_a_handle_does_not_cross_so_its_taker_is_host():
    nodes = [
        node("list", "TensorListFromTensor", "in", texts=True, sort=HANDLE),
        node("loop", "StatelessWhile", "list", texts=True, sort=HANDLE),
        node("stack", "TensorListStack", "loop"),
        node("conv", "Conv2D", "stack", "w"),
    ]
    cut = find_cut(graph(*nodes), ["conv:0"])
    assert cut.host == {"list", "loop", "stack"}
    assert cut.dense == {"conv"}


def test_a_loop_over_numbers_stays_dense():
    nodes = [
        node("list", "TensorListFromTensor", "in", sort=HANDLE),
        node("loop", "StatelessWhile", "list", "w", sort=HANDLE),
        node("stack", "TensorListStack", "loop"),
    ]
    assert find_cut(graph(*nodes), ["stack:0"]).dense == {"list", "loop", "stack"}


def test_a_tf1_loop_is_host_as_a_whole():
    nodes = [
        node("enter", "Enter", "in", frame="while"),
        node("merge", "Merge", "enter", "next", frame="while"),
        node("decode", "DecodeJpeg", "merge", texts=True, frame="while"),
        node("write", "TensorArrayWriteV3", "decode", frame="while"),
        node("next", "NextIteration", "write", frame="while"),
        node("exit", "Exit", "write", frame="while"),
        node("conv", "Conv2D", "exit", "w"),
    ]
    cut = find_cut(graph(*nodes), ["conv:0"])
    assert cut.host == {"enter", "merge", "decode", "write", "next", "exit"}
    assert cut.dense == {"conv"}


def test_a_fed_tensor_in_the_middle_of_the_graph_is_where_it_begins():
    nodes = [node("parse", "ParseExample", "in", texts=True), node("mul", "Mul", "parse", "w")]
    assert find_cut(graph(*nodes, feeds=("parse:0",)), ["mul:0"]).dense == {"mul"}


def test_an_operator_that_is_forced_before_the_weights_is_host():
    nodes = [node("odd", "Betainc", "in"), node("mul", "MatMul", "odd", "w")]
    assert find_cut(graph(*nodes, forced=frozenset({"odd"})), ["mul:0"]).host == {"odd"}


def test_a_network_may_be_all_inside_a_loop_but_not_all_passed_on():
    assert find_cut(graph(node("loop", "StatelessWhile", "in", "w")), ["loop:0"]).dense == {"loop"}
    with pytest.raises(ScoringError, match="it computes nothing"):
        find_cut(graph(node("same", "Identity", "in")), ["same:0"])


def test_a_graph_of_strings_alone_is_refused_by_name():
    with pytest.raises(ScoringError, match=r'nothing is left for the accelerator.*StringUpper "up"') as refusal:
        find_cut(graph(node("up", "StringUpper", "in", sort=TEXT)), ["up:0"])
    assert refusal.value.kind is Kind.PRECONDITION
    assert refusal.value.reason == "cannot_cut"


def test_a_network_that_goes_on_after_strings_is_refused_by_name():
    nodes = [
        node("first", "MatMul", "in", "w"),
        node("text", "AsString", "first", sort=TEXT),
        node("hash", "StringToHashBucketFast", "text", texts=True),
        node("second", "GatherV2", "w", "hash"),
    ]
    with pytest.raises(ScoringError, match=r'after AsString "text".*goes on with GatherV2 "second"'):
        find_cut(graph(*nodes), ["second:0"])


def test_types_mark_strings_and_handles_but_not_those_of_loops():
    assert is_marked_type("DecodeJpeg", {TEXT, PLAIN})
    assert is_marked_type("LookupTableFindV2", {HANDLE, PLAIN})
    assert not is_marked_type("TensorListStack", {HANDLE, PLAIN})
    assert not is_marked_type("While", {HANDLE, PLAIN})
    assert not is_marked_type("MatMul", {PLAIN})
