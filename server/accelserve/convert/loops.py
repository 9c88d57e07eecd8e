"""What a `map_fn` does to one row: a tensor followed back to what it is computed from, through loops of both forms.

Of a loop only this much is taken: it counts the rows of the fed tensor from 0, reads the row of its number, and writes
what it makes of it under the same number. Everything else is `Unknown`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from accelserve.convert.cut import node_of, port_of

_PASSED_ON = ("Identity", "PreventGradient", "StopGradient", "Snapshot")
_IN_CONDITIONS = {"Less", "LogicalAnd", "Identity", "Const", "LoopCond"}


class Unknown(Exception):
    """The graph is not of a form that is known; says at what."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The nodes of a graph, or of the body of a loop (`loop`, a node of `outer`) whose arguments are `arguments`."""

    nodes: Mapping[str, Any]
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    outer: "Scope | None" = None
    loop: Any = None

    def origin(self, tensor: str) -> str:
        """The tensor behind nodes that pass it on."""
        while (node := self.nodes.get(node_of(tensor))) is not None and node.op in _PASSED_ON:
            tensor = node.input[0]
        return tensor

    def source(self, tensor: str) -> Any:
        """The node that computes a tensor, behind nodes that pass it on. Raises Unknown for an argument."""
        name = node_of(self.origin(tensor))
        if name not in self.nodes:
            raise Unknown(f"{name}, which the loop is given, where something computed is wanted")
        return self.nodes[name]

    def argument(self, tensor: str) -> int | None:
        """Which argument a tensor is, None when it is computed."""
        name = node_of(self.origin(tensor))
        return self.arguments.index(name) if name in self.arguments else None

    def constant(self, tensor: str) -> Any:
        """Its value. Raises Unknown when it is not constant."""
        if (argument := self.argument(tensor)) is not None:
            scope, given = self.given(argument)
            return scope.constant(given)
        node = self.source(tensor)
        if node.op == "Const":
            return tf.make_ndarray(node.attr["value"].tensor)
        if node.op == "Enter":
            return self.constant(node.input[0])
        if node.op == "Cast":
            return self.constant(node.input[0]).astype(tf.as_dtype(node.attr["DstT"].type).as_numpy_dtype)
        if node.op == "Pack":
            return np.stack([self.constant(source) for source in node.input], node.attr["axis"].i)
        raise Unknown(f"{node.op} {node.name} is not constant")

    def is_constant(self, tensor: str) -> bool:
        try:
            self.constant(tensor)
        except Unknown:
            return False
        return True

    def given(self, argument: int) -> tuple["Scope", str]:
        """The tensor outside that an argument stands for, which the loop must leave as it is."""
        if self.outer is None or self.loop is None or self.argument(self.results[argument]) != argument:
            raise Unknown("a value that the loop changes")
        return self.outer, self.loop.input[argument]


@dataclass(frozen=True, slots=True)
class Written:
    """A loop's result: what is written in each turn, in which scope; counter: what counts the turns."""

    scope: Scope
    tensor: str
    counter: object


def functions_of(definition: Any) -> dict[str, Any]:
    return {function.signature.name: function for function in definition.library.function}


def enter_loop(scope: Scope, stack: Any, functions: Mapping[str, Any], feed: str) -> Written:
    """stack: the node that joins the rows that a loop wrote. Raises Unknown for a loop of another form."""
    if stack.op == "TensorListStack":
        return _functional(scope, stack, functions, feed)
    return _with_frames(scope, stack, feed)


def leave_loop(written: Written, read: Any) -> tuple[Scope, str]:
    """read: the node that takes a row in the loop. The tensor that it is a row of, and its scope."""
    scope = written.scope
    if read.op == "TensorListGetItem":
        _want(scope.argument(read.input[1]) == written.counter, "a row of another number is read")
        outer, rows = scope.given(_argument(scope, read.input[0]))
        source = outer.source(rows)
        _want(source.op == "TensorListFromTensor", f"{source.op} where a loop's rows come from")
        return outer, source.input[0]
    _want(_merge(scope, read.input[1]) == written.counter, "a row of another number is read")
    scatter = _behind_enter(scope, read.input[2])
    _want(scatter.op == "TensorArrayScatterV3", f"{scatter.op} where a loop's rows come from")
    _check_range(scope, scatter.input[1], scatter.input[2])
    return scope, scatter.input[2]


def _functional(scope: Scope, stack: Any, functions: Mapping[str, Any], feed: str) -> Written:
    """A While with a body of its own: TensorFlow 2's."""
    loop = scope.source(stack.input[0])
    _want(loop.op in ("While", "StatelessWhile"), "rows that no loop wrote")
    result = port_of(scope.origin(stack.input[0]))
    body = _body(scope, loop, functions[loop.attr["body"].func.name])
    write = body.source(body.results[result])
    _want(write.op == "TensorListSetItem", "a loop that does not write rows")
    _want(body.argument(write.input[0]) == result, "a loop that writes into another list")
    counter = _argument(body, write.input[1])
    step = body.source(body.results[counter])
    _check_step(body, step)
    _want(body.argument(step.input[0]) == counter, "a loop that counts otherwise")
    _want(scope.constant(loop.input[counter]) == 0, "a loop that does not begin with row 0")
    condition = _body(scope, loop, functions[loop.attr["cond"].func.name])
    _check_condition(condition.nodes.values())
    for less in (node for node in condition.nodes.values() if node.op == "Less"):
        _check_rows(scope, loop.input[_argument(condition, less.input[1])], feed)
    return Written(body, write.input[2], counter)


def _body(outer: Scope, loop: Any, function: Any) -> Scope:
    arguments = tuple(argument.name for argument in function.signature.input_arg)
    results = tuple(function.ret[result.name] for result in function.signature.output_arg)
    return Scope({node.name: node for node in function.node_def}, arguments, results, outer, loop)


def _with_frames(scope: Scope, gather: Any, feed: str) -> Written:
    """Enter, Merge, Switch, NextIteration, Exit: TensorFlow 1's."""
    _check_range(scope, gather.input[1], feed)
    leave = scope.source(gather.input[2])
    _want(leave.op == "Exit", "rows that no loop wrote")
    merge = _merge(scope, leave.input[0])
    write = scope.source(_next(scope, merge))
    _want(write.op == "TensorArrayWriteV3", "a loop that does not write rows")
    counter = _merge(scope, write.input[1])
    start, step = scope.nodes[node_of(counter)], scope.source(_next(scope, counter))
    _check_step(scope, step)
    _want(_merge(scope, step.input[0]) == counter, "a loop that counts otherwise")
    _want(scope.constant(start.input[0]) == 0, "a loop that does not begin with row 0")
    switch = scope.source(write.input[1])
    _want(switch.op == "Switch", "a loop of another form")
    condition = list(_ancestors(scope, switch.input[1]))
    _check_condition(condition)
    for less in (node for node in condition if node.op == "Less"):
        _check_rows(scope, _behind_enter_name(scope, less.input[1]), feed)
    return Written(scope, write.input[2], counter)


def _ancestors(scope: Scope, tensor: str) -> list[Any]:
    """What a loop's condition is computed from, as far as the loop's own variables."""
    node = scope.source(tensor)
    if node.op in ("Merge", "Enter"):
        return []
    return [node, *(found for source in node.input if source[0] != "^" for found in _ancestors(scope, source))]


def _merge(scope: Scope, tensor: str) -> str:
    """The name of the Merge that a loop's variable begins a turn with."""
    node = scope.source(tensor)
    if node.op == "Switch":
        node = scope.source(node.input[0])
    _want(node.op == "Merge", f"{node.op} where a loop's variable is wanted")
    name: str = node.name
    return name


def _next(scope: Scope, merge: str) -> str:
    """What the variable becomes for the next turn."""
    again = scope.source(scope.nodes[merge].input[1])
    _want(again.op == "NextIteration", "a loop of another form")
    name: str = again.input[0]
    return name


def _behind_enter_name(scope: Scope, tensor: str) -> str:
    node = scope.source(tensor)
    _want(node.op == "Enter", f"{node.op} where a loop takes a value")
    name: str = node.input[0]
    return name


def _behind_enter(scope: Scope, tensor: str) -> Any:
    return scope.source(_behind_enter_name(scope, tensor))


def _argument(scope: Scope, tensor: str) -> int:
    number = scope.argument(tensor)
    if number is None:
        raise Unknown("a value that is no variable of the loop")
    return number


def _check_step(scope: Scope, step: Any) -> None:
    _want(step.op in ("Add", "AddV2") and scope.constant(step.input[1]) == 1, "a loop that does not go from row to row")


def _check_condition(nodes: Any) -> None:
    if other := sorted({node.op for node in nodes} - _IN_CONDITIONS):
        raise Unknown(f"{other[0]} in a loop's condition")


def _check_range(scope: Scope, indices: str, rows: str) -> None:
    node = scope.source(indices)
    _want(node.op == "Range", f"{node.op} where rows are numbered")
    ends = (scope.constant(node.input[0]), scope.constant(node.input[2]))
    _want(ends == (0, 1), "rows that are not numbered from 0")
    _check_rows(scope, node.input[1], rows)


def _check_rows(scope: Scope, count: str, feed: str) -> None:
    """count: must be the number of rows of `feed`."""
    node = scope.source(count)
    if node.op in ("TensorArraySizeV3", "TensorListLength"):
        return
    _want(node.op == "StridedSlice" and node.attr["shrink_axis_mask"].i == 1, f"{node.op} counts the rows")
    _want(list(scope.constant(node.input[1])) == [0], "a loop over another axis")
    shape = scope.source(node.input[0])
    _want(shape.op == "Shape" and node_of(shape.input[0]) == node_of(feed), "a loop over other rows")


def _want(found: bool, otherwise: str) -> None:
    if not found:
        raise Unknown(otherwise)
