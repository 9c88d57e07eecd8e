"""A TensorFlow graph as the plain nodes that `cut` decides on."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from accelserve.convert.cut import HANDLE, PLAIN, TEXT, Node, is_marked_type

_SORTS = {tf.string: TEXT, tf.variant: HANDLE, tf.resource: HANDLE}


def read_nodes(definition: Any, tensors: Any) -> dict[str, Node]:
    """The nodes by name. tensors: the same graph, imported."""
    functions = {function.signature.name: function for function in definition.library.function}
    texts_in = _TextFunctions(functions)
    loops = _loops(tensors)
    nodes = {}
    for node in definition.node:
        operation = tensors.get_operation_by_name(node.name)
        inputs = tuple(tensor.name for tensor in operation.inputs)
        outputs = tuple(_SORTS.get(tensor.dtype.base_dtype, PLAIN) for tensor in operation.outputs)
        sorts = {*outputs, *(_SORTS.get(tensor.dtype.base_dtype, PLAIN) for tensor in operation.inputs)}
        texts = is_marked_type(node.op, sorts) or texts_in.node(node)
        nodes[node.name] = Node(node.name, node.op, inputs, outputs, texts, loops.get(node.name, ""))
    return nodes


class _TextFunctions:
    """Which function bodies touch strings, directly or through functions that they call."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions
        self._known: dict[str, bool] = {}

    def node(self, node: Any) -> bool:
        """Strings among the types in a node's attributes, or in a function that it names."""
        return any(self._attribute(value) for value in node.attr.values())

    def _attribute(self, value: Any) -> bool:
        kind = value.WhichOneof("value")
        if kind == "type":
            return bool(value.type == tf.string.as_datatype_enum)
        if kind == "func":
            return self._function(value.func.name)
        if kind == "list":
            types = tf.string.as_datatype_enum in value.list.type
            return types or any(self._function(function.name) for function in value.list.func)
        return False

    def _function(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = False  # for a function that calls itself
            body = self._functions[name].node_def if name in self._functions else ()
            self._known[name] = any(self.node(node) or self._takes_handles(node) for node in body)
        return self._known[name]

    def _takes_handles(self, node: Any) -> bool:
        """Table look-ups and decoders say nothing of strings in their attributes."""
        definition = op_def_registry.get(node.op)
        if definition is None:
            return False
        sorts = {
            _SORTS.get(tf.as_dtype(a.type), PLAIN) for a in (*definition.input_arg, *definition.output_arg) if a.type
        }
        return is_marked_type(node.op, sorts)


def _loops(tensors: Any) -> dict[str, str]:
    """The TF1 while loop that each operation is in, inner ones counted to the outer; its Exits belong to it."""
    loops: list[tuple[str, set[str]]] = []
    for operation in tensors.get_operations():
        if operation.type == "Enter":
            name, members = operation.name, _until_exit(operation)
            overlapping = [loop for loop in loops if loop[1] & members]
            loops = [loop for loop in loops if not loop[1] & members]
            loops.append(
                (overlapping[0][0] if overlapping else name, members.union(*(loop[1] for loop in overlapping)))
            )
    return {member: name for name, members in loops for member in members}


def _until_exit(enter: Any) -> set[str]:
    found: set[str] = set()
    waiting = [enter]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            if operation.type != "Exit":
                waiting.extend(user for tensor in operation.outputs for user in tensor.consumers())
    return found
