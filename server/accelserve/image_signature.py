"""Whether an input is a picture, and what a picture must become to fit it. Pure; reads signatures, not pixels."""

from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DType, TensorSpec, describe

FREE_SIDE = 224  # height or width where the signature leaves it free: what image classifiers are trained on

_CHANNEL_ORDER = {1: "GRAY", 3: "RGB"}
_FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})


def holds_pixels(dtype: DType) -> bool:
    """Whether a decoded picture can be of this type: uint8, or a float of 16 bits and more."""
    return dtype.name == "uint8" or dtype.name in _FLOATS


def guess_preprocessing(spec: TensorSpec) -> Preprocessing | None:
    """What an image input wants, read from its signature alone; None when it is not one.

    An image input has rank 4, one or three channels, and uint8 or float elements. Where both layouts would do
    ([-1,3,224,3]) it is NHWC. A free height or width becomes 224. Floats get x/255; uint8 is left alone.
    """
    if spec.shape is None or len(spec.shape) != 4 or not holds_pixels(spec.dtype):
        return None
    layout = _layout(spec.shape[1], spec.shape[3])
    if layout is None:
        return None
    channels, *sides = _channels_and_sides(spec.shape, layout)
    if 0 in sides:
        return None
    height, width = (FREE_SIDE if side == -1 else side for side in sides)
    scale = (1.0,) if spec.dtype.name == "uint8" else (1 / 255,)
    order = _CHANNEL_ORDER[channels]
    return Preprocessing((height, width), channel_order=order, layout=layout, scale=scale, guessed=True)


def check_fits(prep: Preprocessing, spec: TensorSpec) -> None:
    """Hold a configured preprocessing against the input that it is for.

    Raises ScoringError(INVALID) when size, layout, channels or type contradict the signature; an input of unknown rank
    takes anything that is a picture.
    """
    made = (-1, *prep.size, prep.channels) if prep.layout == "NHWC" else (-1, prep.channels, *prep.size)
    if not holds_pixels(spec.dtype):
        raise ScoringError(Kind.INVALID, f'"{spec.name}" is {spec}: preprocessing makes uint8 or float pixels')
    if spec.shape is None:
        return
    # The batch axis is not preprocessing's business, so the signature's own stands in for it.
    if len(spec.shape) != 4 or not spec.accepts_shape((spec.shape[0], *made[1:])):
        makes = f"{describe(spec.dtype, made)} ({prep.layout}, {prep.channel_order})"
        raise ScoringError(Kind.INVALID, f'"{spec.name}": want {spec}, but preprocessing makes {makes}')


def _layout(second: int, last: int) -> str | None:
    if last in _CHANNEL_ORDER:
        return "NHWC"
    return "NCHW" if second in _CHANNEL_ORDER else None


def _channels_and_sides(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    _, first, second, third = shape
    return (third, first, second) if layout == "NHWC" else (first, second, third)
