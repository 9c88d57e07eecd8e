"""What tf2onnx does not know, or translates wrongly, in operators that it knows."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import onnx
import tensorflow as tf
from tf2onnx.onnx_opset.math import FloorDiv, FloorMod

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def in_known_ops(definition: Any) -> Any:
    """The graph with Erfc(x), which Keras's gelu is made of and tf2onnx does not know, as 1 - Erf(x)."""
    if not any(node.op == "Erfc" for node in definition.node):
        return definition
    known = type(definition)()
    known.CopyFrom(definition)
    for node in list(known.node):
        if node.op == "Erfc":
            dtype = node.attr["T"].type
            one, erf = (
                known.node.add(name=f"{node.name}/one", op="Const"),
                known.node.add(name=f"{node.name}/erf", op="Erf"),
            )
            one.attr["dtype"].type = erf.attr["T"].type = dtype
            one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, tf.as_dtype(dtype)))
            erf.input[:] = node.input
            node.op = "Sub"
            node.input[:] = [one.name, erf.name]
    return known


def _floor_mod(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Of integers: ONNX's Mod has the divisor's sign, as FloorMod has."""
    if ctx.get_dtype(node.input[0]) in _FLOATS:
        FloorMod.version_7(ctx, node)
    else:
        node.type = "Mod"


def _floor_div(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Of integers: (x - Mod(x, y)) / y, since ONNX's Div rounds to zero."""
    if ctx.get_dtype(node.input[0]) in _FLOATS:
        FloorDiv.version_6(ctx, node)
        return
    x, y = node.input
    rest = ctx.make_node("Mod", [x, y], dtypes=node.output_dtypes)
    even = ctx.make_node("Sub", [x, rest.output[0]], dtypes=node.output_dtypes)
    node.type = "Div"
    ctx.replace_inputs(node, [even.output[0], y])


# tf2onnx's own divide integers as if they were rounded down, and ONNX's Div rounds to zero: -5 // 3 became -1.
ROUNDED_DOWN: Mapping[str, tuple[Callable[..., None], list[Any]]] = MappingProxyType(
    {"FloorMod": (_floor_mod, []), "FloorDiv": (_floor_div, [])}
)
