"""Where a picture's pixels go: turned by its EXIF orientation, sized by policy, centred in the model's input. Pure."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]  # [height, width, channels]
Values = Pixels | NDArray[np.float32]  # or where a resize has left fractions
Size = tuple[int, int]  # height, width

_CROP_MARGIN = 256 / 224  # fit-crop resizes to this much more than it keeps


def is_turned(orientation: int) -> bool:
    """Whether an EXIF orientation exchanges height and width."""
    return orientation >= 5


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """The picture as its EXIF orientation (1 to 8) wants it seen; contiguous, the same array for 1."""
    if is_turned(orientation):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def resized_size(prep: Preprocessing, picture: Size, max_pixels: int) -> Size:
    """The size that `picture` is resized to before crop or padding.

    fit-crop and azure-accel follow azureml-accel-models' preprocess_array: single precision, truncated, so that 300x400
    becomes 256x341 for an input of 224x224; unlike there, the width wanted is the width, and more than 256 is allowed.
    Raises ScoringError(TOO_LARGE) when the sides are so unequal that this alone would exceed max_pixels; azure-accel
    computes only what it keeps.
    """
    if prep.resize == "stretch":
        return prep.size
    if prep.resize == "letterbox":
        scale = min(want / got for want, got in zip(prep.size, picture, strict=True))
        return _pair(max(1, min(want, round(got * scale))) for want, got in zip(prep.size, picture, strict=True))
    margins = [int(want * _CROP_MARGIN) for want in prep.size]
    factor = max(np.float32(want / got) for want, got in zip(margins, picture, strict=True))
    size = _pair(max(want, int(np.float32(got) * factor)) for want, got in zip(prep.size, picture, strict=True))
    if prep.resize == "fit-crop" and math.prod(size) > max_pixels:
        grown = f"{size[1]} x {size[0]} pixels before the crop"
        raise ScoringError(
            Kind.TOO_LARGE,
            f"the picture of {picture[1]} x {picture[0]} pixels is too narrow for fit-crop: it would become {grown},"
            f" the limit is {max_pixels} pixels",
        )
    return size


def crop_centre(pixels: Values, size: Size) -> Values:
    """The middle of `pixels`, at most `size`; a view. Offsets are truncated."""
    top, left = offsets(pixels.shape[:2], size)
    return pixels[top : top + size[0], left : left + size[1]]


def centre_slices(inner: Size, outer: Size) -> tuple[slice, slice]:
    """Rows and columns that `inner` takes in the middle of `outer`."""
    top, left = offsets(outer, inner)
    return slice(top, top + inner[0]), slice(left, left + inner[1])


def offsets(outer: Size, inner: Size) -> Size:
    """First row and column of the middle; truncated."""
    return _pair(max(0, a - b) // 2 for a, b in zip(outer, inner, strict=True))


def _pair(numbers: Iterable[int]) -> Size:
    height, width = numbers
    return height, width
