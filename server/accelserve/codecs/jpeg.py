"""JPEG bytes -> pixels on the CPU, and what every JPEG decoder has to do.

simplejpeg decodes a large picture directly at a fraction of its size and refuses what ends early; OpenCV takes a JPEG
whose sampling simplejpeg has no name for. specs/performance.md section 6.
"""

from typing import Protocol

import cv2
import numpy as np
import simplejpeg

from accelserve.codecs.picture_geometry import Pixels, Size
from accelserve.codecs.picture_headers import Buffer, jpeg_frame_size, undecodable
from accelserve.errors import ScoringError


class JpegDecoder(Protocol):
    """Called from several threads at a time."""

    def __call__(self, data: Buffer, channel_order: str, least: Size, fast_dct: bool = False) -> Pixels:
        """uint8 [H,W,C] at the stored size, or smaller but never below `least` (height, width); EXIF is not obeyed.

        fast_dct: as `Preprocessing.fast_dct`, where the decoder is libjpeg; others have a transform of their own.
        Raises ScoringError(UNDECODABLE) for a picture that is broken or ends early.
        """
        ...


# Each scan of a progressive JPEG visits all its pixels again, so thousands of empty ones are a bomb. 500 is what
# libjpeg-turbo's fuzzers allow; what follows the picture (a phone's film) looks like a scan once in 64 KiB by chance.
_MAX_JPEG_SCANS = 500
_BYTES_PER_CHANCE_SCAN = 2**14
_FEW_BYTES = 2**17  # in which half a marker, one byte in 256, rarely occurs as often as a whole one may
_STRANGE_SUBSAMPLING = "subsampling level"  # TurboJPEG's words for ratios it has no name for, and for a cut header
_JPEG_REASONS = (
    ("Premature end", "the JPEG ends early"),
    (_STRANGE_SUBSAMPLING, "the JPEG's header is damaged or cut, or its end is missing"),
)


def jpeg_size(data: Buffer) -> Size:
    """(height, width) from the header, by the library that decodes it. Raises ScoringError(UNDECODABLE)."""
    most = _MAX_JPEG_SCANS + len(data) // _BYTES_PER_CHANCE_SCAN
    if not (len(data) < _FEW_BYTES and _half_marks(data) <= most) and _scan_marks(data) > most:
        raise undecodable(f"the JPEG has more than {most} scans")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return height, width
    except (ValueError, KeyError) as error:  # KeyError: 4:4:1, which simplejpeg 1.9 decodes but has no name for
        size = jpeg_frame_size(data) if isinstance(error, KeyError) or _STRANGE_SUBSAMPLING in str(error) else None
        if size is None:
            raise _jpeg_error(str(error)) from None
        return size


def _half_marks(data: Buffer) -> int:
    """How often DA occurs: no scan is without one. A third of the time that whole markers take."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 0xDA))


def _scan_marks(data: Buffer) -> int:
    """How often the marker of a scan, FF DA, occurs, by chance or not. bytes.count takes up to eight times longer."""
    even, odd = (np.frombuffer(data, "<u2", (len(data) - start) // 2, start) for start in (0, 1))
    return int(np.count_nonzero(even == 0xDAFF) + np.count_nonzero(odd == 0xDAFF))


def decode_jpeg(data: Buffer, channel_order: str, least: Size, fast_dct: bool = False) -> Pixels:
    """uint8 [height, width, channels]; channel_order: RGB, BGR or GRAY.

    At the stored size or, where that is twice `least` or more, scaled in the DCT but never below `least`.
    Raises ScoringError(UNDECODABLE).
    """
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            channel_order,
            fastdct=fast_dct,
            min_height=least[0],
            min_width=least[1],
            min_factor=2,
            strict=True,
        )
    except ValueError as error:
        if _STRANGE_SUBSAMPLING in str(error):
            return decode_by_opencv(data, channel_order, "JPEG")
        raise _jpeg_error(str(error)) from None
    return pixels


def _jpeg_error(said: str) -> ScoringError:
    reason = next((plain for words, plain in _JPEG_REASONS if words in said), None)
    return undecodable(reason or f"the JPEG is damaged ({said})")


def decode_by_opencv(data: Buffer, channel_order: str, name: str) -> Pixels:
    """The same of any format that OpenCV reads, at the stored size. name: the format's, for messages."""
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
