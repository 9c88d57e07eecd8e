"""Whether a host part only decodes pictures, and how: then the server's own decoder may stand in for it.

The usual pipeline is known: strings -> map_fn -> decode -> cast -> resize -> arithmetic by constants -> one tensor.
A resize is linear and its weights add up to 1, so it does not matter on which side of it the arithmetic stands.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from accelserve.backends.saved_model_onnx.cut_model import Pictures
from accelserve.convert.cut import node_of
from accelserve.convert.loops import Scope, Unknown, Written, enter_loop, functions_of, leave_loop
from accelserve.convert.parts import PartGraph

_STACKS = ("TensorListStack", "TensorArrayGatherV3")
_READS = ("TensorListGetItem", "TensorArrayReadV3")
_AT_THE_CUT = ("uint8", "float32", "float64", "float16", "bfloat16")
_HALF_PIXEL, _LEGACY, _CORNERS = "half_pixel", "legacy", "align_corners"


def recognise(host: PartGraph) -> tuple[Pictures | None, str]:
    """How a host part makes pictures of strings; None, and at what it is not known, for all that it may be besides."""
    try:
        return _recognise(host), ""
    except Unknown as unknown:
        return None, str(unknown)


def _recognise(host: PartGraph) -> Pictures:
    if len(host.feeds) != 1 or len(host.fetches) != 1 or host.init:
        raise Unknown("it is more than one tensor made of one input")
    (feed,), (fetch,) = host.feeds, host.fetches
    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(host.definition)  # to ask a node for an attribute that it lacks gives it an empty one
    steps = _chain(definition, feed, fetch)
    state = _decoded(steps[0].node)
    for step in steps[1:]:
        state = _applied(state, step)
    if not state.stacked or state.size is None or state.dtype not in _AT_THE_CUT:
        raise Unknown(f"its pixels have no constant size, or are of {state.dtype}")
    if not np.all(state.factor):
        raise Unknown("its pixels are multiplied by 0")
    mean, scale = -state.offset / state.factor, state.factor
    return Pictures(
        state.size, state.channels, _numbers(mean), _numbers(scale), state.dtype, state.grid, state.fast_dct
    )


def _numbers(values: Any) -> tuple[float, ...]:
    """One where all channels have the same, without the sign of a zero."""
    flat = [float(value) + 0.0 for value in np.ravel(values)]
    return tuple(flat[:1] if len(set(flat)) == 1 else flat)


@dataclass(frozen=True, slots=True)
class _Step:
    """One node on the way from the strings to the cut. data: which of its inputs the way comes by."""

    node: Any
    scope: Scope
    data: int = 0

    def constant(self, index: int) -> Any:
        return self.scope.constant(self.node.input[index])


def _chain(definition: Any, feed: str, fetch: str) -> list[_Step]:
    """From the decoder to the cut. Raises Unknown where the way forks or an operator is not known."""
    functions = functions_of(definition)
    scope = Scope({node.name: node for node in definition.node})
    tensor, steps = fetch, list[_Step]()
    written: Written | None = None
    while True:
        node = scope.source(tensor)
        if node.op == "Placeholder":
            break
        if node.op in _READS and written is not None:
            scope, tensor = leave_loop(written, node)
            if node_of(tensor) != node_of(feed):
                raise Unknown("a loop over something that is not the input")
            continue
        step = _Step(node, scope, _data_input(node, scope))
        steps.append(step)
        if node.op in _STACKS and written is None:
            written = enter_loop(scope, node, functions, feed)
            scope, tensor = written.scope, written.tensor
        else:
            tensor = node.input[step.data]
    if node_of(tensor) != node_of(feed) or not steps or written is None:
        raise Unknown("no picture is decoded row by row")
    return steps[::-1]


def _data_input(node: Any, scope: Scope) -> int:
    if node.op not in _KNOWN and node.op not in _DECODERS:
        raise Unknown(f"{node.op} {node.name}")
    return 1 if node.op in _ARITHMETIC and scope.is_constant(node.input[0]) else 0


@dataclass(frozen=True, slots=True)
class _State:
    """A picture on its way: value = factor * pixel + offset, each one number or one per channel.

    rank: of the tensor; stacked: its first axis is that of the rows. size: None before the resize.
    """

    channels: int
    dtype: str = "uint8"
    factor: Any = 1.0
    offset: Any = 0.0
    rank: int = 3
    stacked: bool = False
    size: tuple[int, int] | None = None
    grid: str = ""
    fast_dct: bool = True

    @property
    def plain(self) -> bool:
        """Whether values are pixels, 0 to 255."""
        return bool(np.all(np.equal(self.factor, 1.0)) and not np.any(self.offset))


def _decoded(node: Any) -> _State:
    if node.op not in _DECODERS:
        raise Unknown(f"{node.op} {node.name} where a picture is decoded")
    channels = node.attr["channels"].i
    if channels not in (1, 3):
        raise Unknown(f"{node.op} with channels={channels}")
    if node.op == "DecodeJpeg" and (node.attr["ratio"].i != 1 or node.attr["try_recover_truncated"].b):
        raise Unknown("DecodeJpeg of a fraction, or of pictures that end early")
    if node.op == "DecodeImage" and node.attr["expand_animations"].b:
        raise Unknown("DecodeImage with expand_animations")
    dtype = "uint8" if node.op == "DecodeJpeg" else tf.as_dtype(node.attr["dtype"].type).name
    if dtype == "float32":
        return _State(channels, dtype, factor=1 / 255)
    if dtype != "uint8":
        raise Unknown(f"{node.op} to {dtype}")
    # What is not said is TensorFlow's default, the fast one, also where PNG and image operators are given a JPEG.
    return _State(channels, fast_dct=node.attr["dct_method"].s != b"INTEGER_ACCURATE")


def _applied(state: _State, step: _Step) -> _State:
    if step.node.op in _DECODERS:
        raise Unknown(f"{step.node.op} {step.node.name} twice")
    return _KNOWN[step.node.op](state, step)


def _cast(state: _State, step: _Step) -> _State:
    to = tf.as_dtype(step.node.attr["DstT"].type).name
    if to not in _AT_THE_CUT or (to == "uint8" and not state.plain):
        raise Unknown(f"Cast {step.node.name} to {to}")
    if state.dtype not in ("uint8", "float32"):
        raise Unknown(f"Cast {step.node.name} from {state.dtype}")
    return replace(state, dtype=to)


def _stack(state: _State, step: _Step) -> _State:
    if state.rank != 3 or state.stacked:
        raise Unknown(f"rows of rank {state.rank}")
    return replace(state, rank=4, stacked=True)


def _expand(state: _State, step: _Step) -> _State:
    return _with_axis(state, step, axis_is_first=int(step.constant(1)) in (0, -4))


def _with_axis(state: _State, step: _Step, axis_is_first: bool) -> _State:
    if state.rank != 3 or not axis_is_first:
        raise Unknown(f"{step.node.op} {step.node.name}")
    return replace(state, rank=4)


def _without_axis(state: _State, step: _Step, axis_is_first: bool) -> _State:
    if state.rank != 4 or state.stacked or not axis_is_first:
        raise Unknown(f"{step.node.op} {step.node.name}")
    return replace(state, rank=3)


def _squeeze(state: _State, step: _Step) -> _State:
    return _without_axis(state, step, axis_is_first=list(step.node.attr["squeeze_dims"].list.i) == [0])


def _slice(state: _State, step: _Step) -> _State:
    """`picture[None]` and `pictures[0]`; all other slices crop."""
    masks = {name: step.node.attr[f"{name}_mask"].i for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    begin = step.constant(1).tolist()
    first = len(begin) == 1 and masks["ellipsis"] == 0
    if masks["new_axis"]:
        return _with_axis(state, step, axis_is_first=first and masks["new_axis"] == 1)
    return _without_axis(state, step, axis_is_first=first and begin == [0] and masks["shrink_axis"] == 1)


def _same_shape(state: _State, step: _Step) -> _State:
    """Reshape or EnsureShape to the shape that the pictures have."""
    if step.node.op == "Reshape":
        shape = step.constant(1).tolist()
    else:
        shape = tf.TensorShape(step.node.attr["shape"].shape).as_list()
    inner = [*(state.size or (None, None)), state.channels]
    expected = [-1 if state.stacked else 1, *inner] if state.rank == 4 else inner
    free = step.node.op == "EnsureShape"
    same = len(shape) == len(expected) and all(
        got == want or (free and got is None) for got, want in zip(shape, expected, strict=True)
    )
    if not same:
        raise Unknown(f"{step.node.op} {step.node.name}")
    return state


def _bilinear(state: _State, step: _Step) -> _State:
    attributes = step.node.attr
    if attributes["align_corners"].b:
        return _resized(state, step, _CORNERS)
    return _resized(state, step, _HALF_PIXEL if attributes["half_pixel_centers"].b else _LEGACY)


def _area(state: _State, step: _Step) -> _State:
    if step.node.attr["align_corners"].b:
        raise Unknown(f"ResizeArea {step.node.name} with align_corners")
    return _resized(state, step, "area")


def _antialiased(state: _State, step: _Step) -> _State:
    """tf.image.resize(antialias=True), as it is written: the scale is the size over the picture's own."""
    node, scope = step.node, step.scope
    size = step.constant(1)
    scale = scope.source(node.input[2])
    known = node.attr["kernel_type"].s == b"triangle" and node.attr["antialias"].b and not np.any(step.constant(3))
    if not known or scale.op != "RealDiv" or not np.array_equal(scope.constant(scale.input[0]), size):
        raise Unknown(f"{node.op} {node.name}")
    cast = scope.source(scale.input[1])
    sides = scope.source(cast.input[0])
    shape = scope.source(sides.input[0])
    if (cast.op, sides.op, shape.op) != ("Cast", "StridedSlice", "Shape"):
        raise Unknown(f"{node.op} {node.name}")
    of_itself = node_of(shape.input[0]) == node_of(node.input[0])
    if not of_itself or [scope.constant(sides.input[at]).tolist() for at in (1, 2, 3)] != [[1], [3], [1]]:
        raise Unknown(f"{node.op} {node.name}")
    return _resized(state, step, "half_pixel_antialias")


def _resized(state: _State, step: _Step, grid: str) -> _State:
    if state.size is not None or state.rank != 4 or state.dtype not in ("uint8", "float32"):
        raise Unknown(f"{step.node.op} {step.node.name}: a second one, or of {state.dtype}")
    height, width = (int(side) for side in step.constant(1))
    if min(height, width) < 1:
        raise Unknown(f"{step.node.op} {step.node.name} to {height}x{width}")
    return replace(state, size=(height, width), grid=grid, dtype="float32")


def _round(state: _State, step: _Step) -> _State:
    if not state.plain:
        raise Unknown(f"Round {step.node.name} of values that are no pixels")
    return state


def _arithmetic(state: _State, step: _Step) -> _State:
    if state.dtype != "float32":
        raise Unknown(f"{step.node.op} {step.node.name} in {state.dtype}")
    number = _per_channel(state, step, np.asarray(step.constant(1 - step.data), np.float64))
    return _ARITHMETIC[step.node.op](state, number, step)


def _per_channel(state: _State, step: _Step, value: Any) -> Any:
    if value.ndim > state.rank or value.size not in (1, state.channels) or (value.size > 1 and value.shape[-1] == 1):
        raise Unknown(f"{step.node.op} {step.node.name} by an array of {list(value.shape)}")
    return value.reshape(-1) if value.size > 1 else float(value.item())


def _add(state: _State, number: Any, step: _Step) -> _State:
    return replace(state, offset=state.offset + number)


def _subtract(state: _State, number: Any, step: _Step) -> _State:
    if step.data == 1:
        return replace(state, factor=-1.0 * state.factor, offset=number - state.offset)
    return replace(state, offset=state.offset - number)


def _multiply(state: _State, number: Any, step: _Step) -> _State:
    return replace(state, factor=state.factor * number, offset=state.offset * number)


def _divide(state: _State, number: Any, step: _Step) -> _State:
    if step.data == 1 or not np.all(number):
        raise Unknown(f"{step.node.op} {step.node.name} divides by the picture or by 0")
    return replace(state, factor=state.factor / number, offset=state.offset / number)


_DECODERS = ("DecodeJpeg", "DecodePng", "DecodeImage")
_ARITHMETIC: Mapping[str, Callable[[_State, Any, _Step], _State]] = {
    "Add": _add,
    "AddV2": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "RealDiv": _divide,
    "Div": _divide,
}
_KNOWN: Mapping[str, Callable[[_State, _Step], _State]] = {
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(_STACKS, _stack),
    "Cast": _cast,
    "ExpandDims": _expand,
    "Squeeze": _squeeze,
    "StridedSlice": _slice,
    "Reshape": _same_shape,
    "EnsureShape": _same_shape,
    "ResizeBilinear": _bilinear,
    "ResizeArea": _area,
    "ScaleAndTranslate": _antialiased,
    "Round": _round,
}
