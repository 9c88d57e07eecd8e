"""JPEG and PNG bytes -> the tensor that a dense image model wants: one row, ready for the queue.

Decoders release the GIL, so a pool of threads scales. JPEG goes through `jpeg.py` or a decoder of the same interface,
PNG through OpenCV. specs/performance.md section 6.
"""

from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from accelserve.codecs import picture_geometry as geometry
from accelserve.codecs.bilinear import Window, resample
from accelserve.codecs.jpeg import JpegDecoder, decode_by_opencv, decode_jpeg, jpeg_size
from accelserve.codecs.picture_geometry import Pixels, Size, Values
from accelserve.codecs.picture_headers import (
    Buffer,
    check_png,
    describe_bytes,
    exif_orientation,
    picture_format,
    undecodable,
)
from accelserve.errors import Kind, ScoringError
from accelserve.image_signature import holds_pixels
from accelserve.preprocessing import DEFAULT_MAX_PIXELS, Preprocessing
from accelserve.tensors import DType, Tensor

__all__ = ["decode_picture", "picture_format"]

Number = TypeVar("Number", np.uint8, np.float32)

_STRONG_SHRINK = 2  # from here on bilinear interpolation skips pixels, and the mean over an area is taken


def decode_picture(
    data: Buffer,
    prep: Preprocessing,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    *,
    dtype: DType,
    decode_jpeg: JpegDecoder = decode_jpeg,
) -> Tensor:
    """One picture as one row without batch axis: [H,W,C] or [C,H,W] as `prep.layout` says, C-contiguous.

    data: a JPEG (grey, colour, CMYK; bytes after its end are ignored) or a PNG (any kind; 16 bits are cut to 8, and
    transparency is dropped, not blended: the colours under it show).
    dtype: uint8, the pixels as they are, or a float: (x - mean) * scale computed in float32. Letterbox's bars are 0 in
    both, which for floats is the mean.
    decode_jpeg: where the pixels of a JPEG come from; PNGs are decoded on the CPU always.
    Raises ScoringError: UNSUPPORTED_MEDIA for what is neither, TOO_LARGE before decoding more than max_pixels,
    UNDECODABLE for a picture that is broken or ends early, INVALID for any other dtype.
    """
    if not holds_pixels(dtype):
        raise ScoringError(Kind.INVALID, f"a picture becomes uint8 or a float tensor, not {dtype}")
    _one_thread_each()
    pixels = _decode_resized(data, prep, max_pixels, decode_jpeg)
    if prep.resize == "fit-crop":
        pixels = geometry.crop_centre(pixels, prep.size)
    if dtype.name == "uint8":
        return _centred(_laid_out(_whole(pixels), prep.layout), prep)
    return _centred(_normalised(pixels, prep), prep).astype(dtype.numpy, copy=False)


@cache
def _one_thread_each() -> None:
    """The server decodes pictures side by side; OpenCV's own threads would only get in the way. Once per process."""
    cv2.setNumThreads(1)


def _decode_resized(data: Buffer, prep: Preprocessing, max_pixels: int, decode_jpeg: JpegDecoder) -> Values:
    """Of azure-accel the middle only."""
    found = picture_format(data)
    if found is None:
        if not len(data):
            raise undecodable("there are no bytes")
        raise ScoringError(Kind.UNSUPPORTED_MEDIA, f"want a JPEG or PNG picture, got {describe_bytes(data)}")
    stored = jpeg_size(data) if found == "jpeg" else check_png(data)
    _check_pixels(stored, max_pixels)
    orientation = exif_orientation(data) if prep.exif else 1
    turned = geometry.is_turned(orientation)
    wanted = geometry.resized_size(prep, stored[::-1] if turned else stored, max_pixels)
    if found == "jpeg":
        # A decoder that shrinks on the way averages; where that is not wanted it is asked for all there is.
        least = (wanted[::-1] if turned else wanted) if prep.grid == "server" else stored
        pixels = decode_jpeg(data, prep.channel_order, least, fast_dct=prep.coarse_dct)
    else:
        pixels = decode_by_opencv(data, prep.channel_order, "PNG")
    pixels = geometry.turn(pixels, orientation)
    if prep.resize == "azure-accel":
        return resample(pixels, Window(wanted, geometry.offsets(wanted, prep.size), prep.size))
    return _resized(pixels, wanted, prep.grid)


def _check_pixels(size: Size, max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        got = f"{width} x {height} = {width * height} pixels"
        raise ScoringError(Kind.TOO_LARGE, f"the picture has {got}, the limit is {max_pixels}")


def _resized(pixels: Pixels, size: Size, resampling: str) -> Values:
    """Pixels at `size`, as `Preprocessing.resampling` says.

    Where one side shrinks and the other grows, the shrinking goes first: OpenCV has no area mean for both.
    """
    (height, width), (to_height, to_width) = pixels.shape[:2], size
    if (height, width) == size:
        return pixels
    if resampling in ("legacy", "align_corners"):
        return resample(pixels, Window(size, (0, 0), size), corners=resampling == "align_corners")
    shrinks = height / to_height, width / to_width
    if resampling == "half_pixel" or (resampling == "server" and max(shrinks) <= _STRONG_SHRINK):
        return _resize(pixels, size, cv2.INTER_LINEAR)
    if min(shrinks) >= 1:
        return _resize(pixels, size, cv2.INTER_AREA)
    shrunk = _resize(pixels, (min(height, to_height), min(width, to_width)), cv2.INTER_AREA)
    return _resize(shrunk, size, cv2.INTER_AREA if resampling == "area" else cv2.INTER_LINEAR)


def _resize(pixels: Pixels, size: Size, interpolation: int) -> Pixels:
    resized: Pixels = cv2.resize(pixels, (size[1], size[0]), interpolation=interpolation)
    return resized.reshape(*size, pixels.shape[2])  # OpenCV drops an axis of one channel


def _whole(pixels: Values) -> Pixels:
    """Pixels that are whole already are left alone: numpy rounds uint8 by way of float16, at 7 times the decoding."""
    return np.asarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels), np.uint8)


def _laid_out(pixels: Pixels, layout: str) -> Tensor:
    return np.ascontiguousarray(pixels) if layout == "NHWC" else _planes(pixels, np.uint8)


def _planes(pixels: Values, dtype: type[Number]) -> NDArray[Number]:
    """[C,H,W] of [H,W,C], C-contiguous."""
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), dtype)
    for plane, channel in zip(planes, _split(pixels), strict=True):
        plane[...] = channel
    return planes


def _split(pixels: Values) -> list[Values]:
    """The channels of [H,W,C], each [H,W].

    OpenCV writes channels that begin at the same place of a vector past the cache, and whoever reads them next waits
    for the memory (of 224 x 224: 61 instead of 20 us to split and make floats). An odd distance keeps them apart.
    """
    height, width, channels = pixels.shape
    size = height * width
    distance = size | 1
    memory = np.empty(channels * distance, pixels.dtype)
    split = [memory[at : at + size].reshape(height, width) for at in range(0, channels * distance, distance)]
    cv2.split(pixels, split)
    return split


def _normalised(pixels: Values, prep: Preprocessing) -> Tensor:
    """(pixels - mean) * scale in float32, laid out; C-contiguous. Float pixels are overwritten."""
    mean, scale = np.asarray(prep.mean, np.float32), np.asarray(prep.scale, np.float32)
    if prep.layout == "NHWC":
        height, width, channels = pixels.shape
        lines = pixels.astype(np.float32, copy=False).reshape(height, width * channels)
        # Numbers per channel go along a whole line: numpy is five times slower with a last axis of 3.
        _scale_in_place(lines, _along_line(mean, width), _along_line(scale, width))
        return lines.reshape(height, width, channels)
    planes = _planes(pixels, np.float32)
    _scale_in_place(planes, mean.reshape(-1, 1, 1), scale.reshape(-1, 1, 1))
    return planes


def _along_line(numbers: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.tile(numbers, width) if numbers.size > 1 else numbers


def _scale_in_place(pixels: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]) -> None:
    if mean.any():
        pixels -= mean
    pixels *= scale


def _centred(tensor: Tensor, prep: Preprocessing) -> Tensor:
    """The tensor itself, or in the middle of zeros where letterbox left it smaller than the model's input."""
    rows = 0 if prep.layout == "NHWC" else 1
    inner = tensor.shape[rows : rows + 2]
    if inner == prep.size:
        return tensor
    shape = (*prep.size, prep.channels) if prep.layout == "NHWC" else (prep.channels, *prep.size)
    canvas = np.zeros(shape, tensor.dtype)
    canvas[(slice(None),) * rows + geometry.centre_slices(inner, prep.size)] = tensor
    return canvas
