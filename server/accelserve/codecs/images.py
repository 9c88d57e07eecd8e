"""JPEG and PNG bytes -> the tensor that a dense image model wants: one row, ready for the queue.

Decoders release the GIL, so a pool of threads scales. JPEG goes through simplejpeg, which decodes a large picture
directly at a fraction of its size and refuses what ends early; PNG, and a JPEG whose sampling simplejpeg has no name
for, through OpenCV. specs/performance.md section 6.
"""

from functools import cache

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from accelserve.codecs import picture_geometry as geometry
from accelserve.codecs.picture_geometry import Pixels, Size
from accelserve.codecs.picture_headers import (
    Buffer,
    check_png,
    describe_bytes,
    exif_orientation,
    jpeg_frame_size,
    picture_format,
    undecodable,
)
from accelserve.errors import Kind, ScoringError
from accelserve.image_signature import holds_pixels
from accelserve.preprocessing import DEFAULT_MAX_PIXELS, Preprocessing
from accelserve.tensors import DType, Tensor

__all__ = ["decode_picture", "picture_format"]

# Each scan of a progressive JPEG visits all its pixels again, so thousands of empty ones are a bomb. 500 is what
# libjpeg-turbo's fuzzers allow; what follows the picture (a phone's film) looks like a scan once in 64 KiB by chance.
_MAX_JPEG_SCANS = 500
_BYTES_PER_CHANCE_SCAN = 2**14
_STRONG_SHRINK = 2  # from here on bilinear interpolation skips pixels, and the mean over an area is taken
_STRANGE_SUBSAMPLING = "subsampling level"  # TurboJPEG's words for ratios it has no name for, and for a cut header
_JPEG_REASONS = (
    ("Premature end", "the JPEG ends early"),
    (_STRANGE_SUBSAMPLING, "the JPEG's header is damaged or cut, or its end is missing"),
)


def decode_picture(data: Buffer, prep: Preprocessing, max_pixels: int = DEFAULT_MAX_PIXELS, *, dtype: DType) -> Tensor:
    """One picture as one row without batch axis: [H,W,C] or [C,H,W] as `prep.layout` says, C-contiguous.

    data: a JPEG (grey, colour, CMYK; bytes after its end are ignored) or a PNG (any kind; 16 bits are cut to 8, and
    transparency is dropped, not blended: the colours under it show).
    dtype: uint8, the pixels as they are, or a float: (x - mean) * scale computed in float32. Letterbox's bars are 0 in
    both, which for floats is the mean.
    Raises ScoringError: UNSUPPORTED_MEDIA for what is neither, TOO_LARGE before decoding more than max_pixels,
    UNDECODABLE for a picture that is broken or ends early, INVALID for any other dtype.
    """
    if not holds_pixels(dtype):
        raise ScoringError(Kind.INVALID, f"a picture becomes uint8 or a float tensor, not {dtype}")
    _one_thread_each()
    pixels = _decode_resized(data, prep, max_pixels)
    if prep.resize == "fit-crop":
        pixels = geometry.crop_centre(pixels, prep.size)
    if dtype.name == "uint8":
        return _centred(_laid_out(pixels, prep.layout), prep)
    return _centred(_normalised(pixels, prep), prep).astype(dtype.numpy, copy=False)


@cache
def _one_thread_each() -> None:
    """The server decodes pictures side by side; OpenCV's own threads would only get in the way. Once per process."""
    cv2.setNumThreads(1)


def _decode_resized(data: Buffer, prep: Preprocessing, max_pixels: int) -> Pixels:
    found = picture_format(data)
    if found is None:
        if not len(data):
            raise undecodable("there are no bytes")
        raise ScoringError(Kind.UNSUPPORTED_MEDIA, f"want a JPEG or PNG picture, got {describe_bytes(data)}")
    stored = _jpeg_size(data) if found == "jpeg" else check_png(data)
    _check_pixels(stored, max_pixels)
    orientation = exif_orientation(data) if prep.exif else 1
    turned = geometry.is_turned(orientation)
    wanted = geometry.resized_size(prep, stored[::-1] if turned else stored, max_pixels)
    if found == "jpeg":
        pixels = _decode_jpeg(data, prep.channel_order, wanted[::-1] if turned else wanted)
    else:
        pixels = _decode_by_opencv(data, prep.channel_order, "PNG")
    return _resized(geometry.turn(pixels, orientation), wanted)


def _check_pixels(size: Size, max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        got = f"{width} x {height} = {width * height} pixels"
        raise ScoringError(Kind.TOO_LARGE, f"the picture has {got}, the limit is {max_pixels}")


def _jpeg_size(data: Buffer) -> Size:
    """From the header, by the library that decodes it."""
    most = _MAX_JPEG_SCANS + len(data) // _BYTES_PER_CHANCE_SCAN
    if _scan_marks(data) > most:
        raise undecodable(f"the JPEG has more than {most} scans")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return height, width
    except (ValueError, KeyError) as error:  # KeyError: 4:4:1, which simplejpeg 1.9 decodes but has no name for
        size = jpeg_frame_size(data) if isinstance(error, KeyError) or _STRANGE_SUBSAMPLING in str(error) else None
        if size is None:
            raise _jpeg_error(str(error)) from None
        return size


def _scan_marks(data: Buffer) -> int:
    """How often the marker of a scan, FF DA, occurs, by chance or not. bytes.count takes up to eight times longer."""
    even, odd = (np.frombuffer(data, "<u2", (len(data) - start) // 2, start) for start in (0, 1))
    return int(np.count_nonzero(even == 0xDAFF) + np.count_nonzero(odd == 0xDAFF))


def _decode_jpeg(data: Buffer, channel_order: str, least: Size) -> Pixels:
    """Pixels at the stored size or, where that is twice `least` or more, scaled in the DCT but never below `least`."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, channel_order, min_height=least[0], min_width=least[1], min_factor=2, strict=True
        )
    except ValueError as error:
        if _STRANGE_SUBSAMPLING in str(error):
            return _decode_by_opencv(data, channel_order, "JPEG")
        raise _jpeg_error(str(error)) from None
    return pixels


def _jpeg_error(said: str) -> ScoringError:
    reason = next((plain for words, plain in _JPEG_REASONS if words in said), None)
    return undecodable(reason or f"the JPEG is damaged ({said})")


def _decode_by_opencv(data: Buffer, channel_order: str, name: str) -> Pixels:
    grey = channel_order == "GRAY"
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise undecodable(f"the {name} is damaged ({error.err})") from None
    if pixels is None:
        raise undecodable(f"the {name} is damaged")
    if channel_order == "RGB":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    decoded: Pixels = pixels.reshape(*pixels.shape[:2], 1 if grey else 3)
    return decoded


def _resized(pixels: Pixels, size: Size) -> Pixels:
    """Pixels at `size`: bilinear (half-pixel centres), or the mean over the area where it shrinks by more than 2.

    Where one side shrinks that much and the other grows, the shrinking goes first: OpenCV has no area mean for both.
    """
    (height, width), (to_height, to_width) = pixels.shape[:2], size
    if (height, width) == size:
        return pixels
    shrinks = height / to_height, width / to_width
    if max(shrinks) <= _STRONG_SHRINK:
        return _resize(pixels, size, cv2.INTER_LINEAR)
    if min(shrinks) >= 1:
        return _resize(pixels, size, cv2.INTER_AREA)
    shrunk = _resize(pixels, (min(height, to_height), min(width, to_width)), cv2.INTER_AREA)
    return _resize(shrunk, size, cv2.INTER_LINEAR)


def _resize(pixels: Pixels, size: Size, interpolation: int) -> Pixels:
    resized: Pixels = cv2.resize(pixels, (size[1], size[0]), interpolation=interpolation)
    return resized.reshape(*size, pixels.shape[2])  # OpenCV drops an axis of one channel


def _laid_out(pixels: Pixels, layout: str) -> Tensor:
    return np.ascontiguousarray(pixels) if layout == "NHWC" else _planes(pixels)


def _planes(pixels: Pixels) -> Pixels:
    """[C,H,W] of [H,W,C]; a third of the time of numpy's transposed copy, because OpenCV writes each plane in place."""
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(planes))
    return planes


def _normalised(pixels: Pixels, prep: Preprocessing) -> Tensor:
    """(pixels - mean) * scale in float32, laid out; C-contiguous."""
    mean, scale = np.asarray(prep.mean, np.float32), np.asarray(prep.scale, np.float32)
    if prep.layout == "NHWC":
        height, width, channels = pixels.shape
        lines = pixels.astype(np.float32).reshape(height, width * channels)
        # Numbers per channel go along a whole line: numpy is five times slower with a last axis of 3.
        _scale_in_place(lines, _along_line(mean, width), _along_line(scale, width))
        return lines.reshape(height, width, channels)
    planes = _planes(pixels).astype(np.float32)
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
