"""What a picture says about itself before its pixels are read: format, soundness of a PNG, EXIF orientation.

Plain byte reading, no decoder. Sources: JPEG ITU T.81 annex B, PNG third edition (W3C), EXIF 2.32 / TIFF 6.0.
"""

import struct
import zlib
from collections.abc import Iterator

from accelserve.errors import Kind, ScoringError

Buffer = bytes | memoryview

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_SHORT = 3
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, less DHT, JPG and DAC
_MAX_CHUNKS = 2**16  # of a PNG; one of 64 MiB with libpng's 8 KiB chunks has 8192
_MAX_SEGMENTS = 1024  # of a JPEG, searched for EXIF, which comes first
_KNOWN_STRANGERS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x93NUMPY", "a .npy file"),
)


def picture_format(data: Buffer) -> str | None:
    """ "jpeg" or "png" by the first bytes, None for anything else; says nothing about the rest."""
    head = bytes(data[:4])
    if head[:2] == b"\xff\xd8":
        return "jpeg"
    return "png" if head == PNG_SIGNATURE[:4] else None


def describe_bytes(data: Buffer) -> str:
    """What bytes that are no picture look like, for an error message: "a GIF", else their first bytes in hex."""
    head = bytes(data[:16])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP"
    if head[4:12] in (b"ftypavif", b"ftypheic"):
        return f"an {head[8:12].decode().upper()}"
    known = next((name for magic, name in _KNOWN_STRANGERS if head.startswith(magic)), None)
    return known or f"{len(data)} bytes that begin with {head[:8].hex(' ')}"


def undecodable(reason: str) -> ScoringError:
    return ScoringError(Kind.UNDECODABLE, f"the picture cannot be decoded: {reason}")


def check_png(data: Buffer) -> tuple[int, int]:
    """(height, width) of a PNG whose chunks are whole: lengths, IEND, and the checksums of IHDR, PLTE and IDAT.

    Decoders fill what is missing with grey; so this looks first. Bytes after IEND are nobody's concern.
    Raises ScoringError(UNDECODABLE).
    """
    size: tuple[int, int] | None = None
    has_pixels = False
    for name, body, crc in png_chunks(data):
        if name in (b"IHDR", b"PLTE", b"IDAT") and zlib.crc32(body, zlib.crc32(name)) != crc:
            raise undecodable(f"the PNG's {name.decode()} chunk has a wrong checksum")
        if (size is None) != (name == b"IHDR"):
            raise undecodable("the PNG must have one IHDR chunk, and have it first")
        if name == b"IHDR":
            size = _png_size(body)
        has_pixels = has_pixels or name == b"IDAT"
    if size is None or not has_pixels:
        raise undecodable("the PNG holds no pixels")
    return size


def png_chunks(data: Buffer) -> Iterator[tuple[bytes, memoryview, int]]:
    """(name, body, checksum as written) of each chunk before IEND. Raises ScoringError(UNDECODABLE) without IEND."""
    if data[:8] != PNG_SIGNATURE:
        raise undecodable("the PNG's signature is damaged or cut")
    view, at = memoryview(data), 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(view):
            raise undecodable("the PNG ends early")
        length, name = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if end > len(view):
            raise undecodable("the PNG ends early")
        if name == b"IEND":
            return
        yield name, view[at + 8 : end - 4], int.from_bytes(view[end - 4 : end])
        at = end
    raise undecodable(f"the PNG has more than {_MAX_CHUNKS} chunks")


def _png_size(header: memoryview) -> tuple[int, int]:
    if len(header) != 13:
        raise undecodable("the PNG's IHDR chunk must have 13 bytes")
    width, height = struct.unpack_from(">II", header)
    if not (width and height):
        raise undecodable(f"the PNG says that it is {width} x {height} pixels")
    return height, width


def exif_orientation(data: Buffer) -> int:
    """EXIF orientation, 1 to 8, of a JPEG or a sound PNG; 1 (as stored) where there is none or it cannot be read."""
    tiff = _jpeg_exif(memoryview(data)) if picture_format(data) == "jpeg" else _png_exif(data)
    return _tiff_orientation(tiff) if tiff is not None else 1


def jpeg_frame_size(data: Buffer) -> tuple[int, int] | None:
    """(height, width) of a JPEG by its frame header; None if it has none, no area, or no end after it.

    For the rare one whose header the decoder does not understand. Only an end that is there shows that nothing is
    missing: inside the pixels its two bytes cannot occur.
    """
    for marker, body in _jpeg_segments(memoryview(data)):
        if marker in _FRAME_MARKERS and len(body) >= 6:
            height, width = struct.unpack_from(">HH", body, 1)
            ended = bytes(data).rfind(b"\xff\xd9") > bytes(data).find(b"\xff\xda") > 0
            return (height, width) if height and width and ended else None
    return None


def _jpeg_exif(data: memoryview) -> memoryview | None:
    segments = _jpeg_segments(data)
    return next((body[6:] for marker, body in segments if marker == 0xE1 and body[:6] == _EXIF_PREFIX), None)


def _jpeg_segments(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(marker, body) of a JPEG's header up to its pixels; stops where anything is unusual, so that no decoder could
    have read on and found another frame."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or end < at + 4:  # no segment, or the pixels
            return
        yield marker, data[at + 4 : end]
        at = end


def _png_exif(data: Buffer) -> memoryview | None:
    return next((body for name, body, _ in png_chunks(data) if name == b"eXIf"), None)


def _tiff_orientation(tiff: memoryview) -> int:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    except struct.error:  # points outside of itself
        pass
    return 1
