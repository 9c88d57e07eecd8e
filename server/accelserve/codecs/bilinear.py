"""Bilinear resizing as TensorFlow's older operators do it, to the bit of where each pixel is taken.

Pixel i of the result lies at i * in / out ("legacy"), or at i * (in - 1) / (out - 1) with corners on corners,
and is the mean of its four neighbours however far the picture shrinks. Places and weights are computed in float32 as
tensorflow/core/kernels/image/resize_bilinear_op.cc does: at 4000 pixels, float32 is off by enough to be seen.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from accelserve.codecs.picture_geometry import Pixels, Size

_Places = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a resized picture that is wanted: its first row and column, and its size."""

    resized: Size
    offset: Size
    size: Size


def resample(pixels: Pixels, window: Window, *, corners: bool = False) -> NDArray[np.float32]:
    """float32 [*window.size, channels], values from 0 to 255, a new array; the rest of the picture is not computed."""
    rows, columns = (
        _places(there, here, first, count, corners)
        for there, here, first, count in zip(pixels.shape[:2], window.resized, window.offset, window.size, strict=True)
    )
    pixels, rows = _needed(pixels, rows, axis=0)
    pixels, columns = _needed(pixels, columns, axis=1)
    height, width = window.size
    across, down = np.empty(window.size, np.float32), np.empty(window.size, np.float32)
    across[:], down[:] = columns, rows[:, None]
    # OpenCV interpolates floats with the exact weights; of uint8 it would make uint8 again.
    floats, border = pixels.astype(np.float32), cv2.BORDER_REPLICATE
    made: NDArray[np.float32] = cv2.remap(floats, across, down, cv2.INTER_LINEAR, borderMode=border)
    return made.reshape(height, width, pixels.shape[2])  # OpenCV drops an axis of one channel


def _places(there: int, here: int, first: int, count: int, corners: bool) -> _Places:
    """Where `count` pixels of a side of `here`, from `first` on, lie in one of `there`."""
    aligned = corners and here > 1
    step = np.float32(there - aligned) / np.float32(here - aligned)
    # Corners may come to lie a rounding beyond the last pixel.
    places: _Places = np.arange(first, first + count, dtype=np.float32) * step
    return np.minimum(places, np.float32(there - 1)) if corners else places


def _needed(pixels: Pixels, places: _Places, axis: int) -> tuple[Pixels, _Places]:
    """Only the lines that are taken, where they are fewer than half of the picture's; and the places among them.

    Both ways keep the places' fractions to the last bit: the numbers before the point do not grow.
    """
    low = np.floor(places)
    first = low.astype(np.intp)
    begin, end = int(first[0]), int(first[-1]) + 2
    if end - begin <= 2 * len(places) + 2:
        return (pixels[begin:end] if axis == 0 else pixels[:, begin:end]), places - low[0]
    pairs = np.minimum(np.stack([first, first + 1], 1).ravel(), pixels.shape[axis] - 1)
    taken: Pixels = np.take(pixels, pairs, axis)
    return taken, np.arange(0, len(pairs), 2, dtype=np.float32) + (places - low)
