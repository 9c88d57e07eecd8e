"""What each operator between the strings and the cut does to a picture: one table of those that are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from accelserve.convert.cut import node_of
from accelserve.convert.loops import Scope, Unknown

STACKS = ("TensorListStack", "TensorArrayGatherV3")
AT_THE_CUT = ("uint8", "float32", "float64", "float16", "bfloat16")
_HALF_PIXEL, _LEGACY, _CORNERS = "half_pixel", "legacy", "align_corners"


@dataclass(frozen=True, slots=True)
class Step:
    """One node on the way from the strings to the cut. data: which of its inputs the way comes by."""

    node: Any
    scope: Scope
    data: int = 0

    def constant(self, index: int) -> Any:
        return self.scope.constant(self.node.input[index])


def data_input(node: Any, scope: Scope) -> int:
    """Which input of a node the picture comes by. Raises Unknown for an operator that is not in the table."""
    if node.op not in _KNOWN and node.op not in _DECODERS:
        raise Unknown(f"{node.op} {node.name}")
    return 1 if node.op in _ARITHMETIC and scope.is_constant(node.input[0]) else 0


@dataclass(frozen=True, slots=True)
class State:
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


def decoded(node: Any) -> State:
    """The picture that a decoder gives. Raises Unknown for what our decoder does otherwise."""
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
        return State(channels, dtype, factor=1 / 255)
    if dtype != "uint8":
        raise Unknown(f"{node.op} to {dtype}")
    # What is not said is TensorFlow's default, the fast one, also where PNG and image operators are given a JPEG.
    return State(channels, fast_dct=node.attr["dct_method"].s != b"INTEGER_ACCURATE")


def applied(state: State, step: Step) -> State:
    """The picture after a step. Raises Unknown for what cannot be said as factor, offset and size."""
    if step.node.op in _DECODERS:
        raise Unknown(f"{step.node.op} {step.node.name} twice")
    return _KNOWN[step.node.op](state, step)


def _cast(state: State, step: Step) -> State:
    to = tf.as_dtype(step.node.attr["DstT"].type).name
    if to not in AT_THE_CUT or (to == "uint8" and not state.plain):
        raise Unknown(f"Cast {step.node.name} to {to}")
    if state.dtype not in ("uint8", "float32"):
        raise Unknown(f"Cast {step.node.name} from {state.dtype}")
    return replace(state, dtype=to)


def _stack(state: State, step: Step) -> State:
    if state.rank != 3 or state.stacked:
        raise Unknown(f"rows of rank {state.rank}")
    return replace(state, rank=4, stacked=True)


def _expand(state: State, step: Step) -> State:
    return _with_axis(state, step, axis_is_first=int(step.constant(1)) in (0, -4))


def _with_axis(state: State, step: Step, axis_is_first: bool) -> State:
    if state.rank != 3 or not axis_is_first:
        raise Unknown(f"{step.node.op} {step.node.name}")
    return replace(state, rank=4)


def _without_axis(state: State, step: Step, axis_is_first: bool) -> State:
    if state.rank != 4 or state.stacked or not axis_is_first:
        raise Unknown(f"{step.node.op} {step.node.name}")
    return replace(state, rank=3)


def _squeeze(state: State, step: Step) -> State:
    return _without_axis(state, step, axis_is_first=list(step.node.attr["squeeze_dims"].list.i) == [0])


def _slice(state: State, step: Step) -> State:
    """`picture[None]` and `pictures[0]`; all other slices crop."""
    masks = {name: step.node.attr[f"{name}_mask"].i for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    begin = step.constant(1).tolist()
    first = len(begin) == 1 and masks["ellipsis"] == 0
    if masks["new_axis"]:
        return _with_axis(state, step, axis_is_first=first and masks["new_axis"] == 1)
    return _without_axis(state, step, axis_is_first=first and begin == [0] and masks["shrink_axis"] == 1)


def _same_shape(state: State, step: Step) -> State:
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


def _bilinear(state: State, step: Step) -> State:
    attributes = step.node.attr
    if attributes["align_corners"].b:
        return _resized(state, step, _CORNERS)
    return _resized(state, step, _HALF_PIXEL if attributes["half_pixel_centers"].b else _LEGACY)


def _area(state: State, step: Step) -> State:
    if step.node.attr["align_corners"].b:
        raise Unknown(f"ResizeArea {step.node.name} with align_corners")
    return _resized(state, step, "area")


def _antialiased(state: State, step: Step) -> State:
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


def _resized(state: State, step: Step, grid: str) -> State:
    if state.size is not None or state.rank != 4 or state.dtype not in ("uint8", "float32"):
        raise Unknown(f"{step.node.op} {step.node.name}: a second one, or of {state.dtype}")
    height, width = (int(side) for side in step.constant(1))
    if min(height, width) < 1:
        raise Unknown(f"{step.node.op} {step.node.name} to {height}x{width}")
    return replace(state, size=(height, width), grid=grid, dtype="float32")


def _round(state: State, step: Step) -> State:
    if not state.plain:
        raise Unknown(f"Round {step.node.name} of values that are no pixels")
    return state


def _arithmetic(state: State, step: Step) -> State:
    if state.dtype != "float32":
        raise Unknown(f"{step.node.op} {step.node.name} in {state.dtype}")
    number = _per_channel(state, step, np.asarray(step.constant(1 - step.data), np.float64))
    return _ARITHMETIC[step.node.op](state, number, step)


def _per_channel(state: State, step: Step, value: Any) -> Any:
    if value.ndim > state.rank or value.size not in (1, state.channels) or (value.size > 1 and value.shape[-1] == 1):
        raise Unknown(f"{step.node.op} {step.node.name} by an array of {list(value.shape)}")
    return value.reshape(-1) if value.size > 1 else float(value.item())


def _add(state: State, number: Any, step: Step) -> State:
    return replace(state, offset=state.offset + number)


def _subtract(state: State, number: Any, step: Step) -> State:
    if step.data == 1:
        return replace(state, factor=-1.0 * state.factor, offset=number - state.offset)
    return replace(state, offset=state.offset - number)


def _multiply(state: State, number: Any, step: Step) -> State:
    return replace(state, factor=state.factor * number, offset=state.offset * number)


def _divide(state: State, number: Any, step: Step) -> State:
    if step.data == 1 or not np.all(number):
        raise Unknown(f"{step.node.op} {step.node.name} divides by the picture or by 0")
    return replace(state, factor=state.factor / number, offset=state.offset / number)


_DECODERS = ("DecodeJpeg", "DecodePng", "DecodeImage")
_ARITHMETIC: Mapping[str, Callable[[State, Any, Step], State]] = {
    "Add": _add,
    "AddV2": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "RealDiv": _divide,
    "Div": _divide,
}
_KNOWN: Mapping[str, Callable[[State, Step], State]] = {
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(STACKS, _stack),
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
