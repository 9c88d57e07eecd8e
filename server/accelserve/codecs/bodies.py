"""Raw HTTP bodies: what they are by their bytes, .npy files, bare tensors, gzip and deflate, a form with one file.

Content-Type is not believed (clients label a JPEG application/json); only a form's boundary is read from it.
"""

import ast
import math
import re
import zlib
from collections.abc import Iterator

import numpy as np

from accelserve.codecs.picture_headers import picture_format
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor, TensorSpec, dtype_of

_NPY_MAGIC = b"\x93NUMPY"
_MAX_NPY_HEADER_BYTES = 10_000  # numpy's own limit
_NPY_DTYPE = re.compile(r"[<>|=][biufc][0-9]{1,2}")
_MAX_AXES = 32
_GZIP_CHUNK_BYTES = 2**16
_MAX_GZIP_MEMBERS = 4096  # each costs a fresh decompressor; real files have one, bgzip's one for each 64 KiB
_MAX_FORM_PARTS = 64
_MAX_PART_HEADER_BYTES = 8192
_MAX_PADDING_BYTES = 256  # spaces after a boundary
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^\s";,]{1,200}))', re.IGNORECASE)
_FILE_NAME = re.compile(rb"^content-disposition:[^\r\n]*;[ \t]*filename\*?=", re.IGNORECASE | re.MULTILINE)
_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]{0,65536}+[{\[]")
_WINDOW_BYTES = 2**20  # searched at a time: other threads come on in between
_PACKED = frozenset({"int4", "uint4", "int2", "uint2", "float4_e2m1fn"})  # several to a byte on every wire


def body_format(data: bytes) -> str:
    """ "jpeg", "png", "npy", "gzip", "json" (its first byte that is no space is { or [), or "other".

    More than 64 KiB of space before it are not JSON.
    """
    picture = picture_format(data)
    if picture is not None:
        return picture
    if data.startswith(_NPY_MAGIC):
        return "npy"
    if data.startswith(b"\x1f\x8b"):
        return "gzip"
    return "json" if _JSON_START.match(data) else "other"


def decode_npy(data: bytes, max_bytes: int) -> Tensor:
    """The array of a .npy file, version 1 to 3, in native byte order and C order.

    Shares `data`'s memory where order, alignment and type allow, and is then read-only. Bytes after it are an error.
    Raises ScoringError: TOO_LARGE for more than max_bytes of elements, INVALID for anything else that is wrong, object
    arrays among them. The header is parsed here because numpy's parser answers a strange one with warnings.
    """
    header, at = _npy_header(data)
    dtype, shape, fortran = _npy_fields(header)
    # An axis of 0 counts as 1 here: numpy refuses the other axes' product even where there are no elements.
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > max_bytes:
        claim = f"{dtype.name}{list(shape)}"[:80]
        raise ScoringError(Kind.TOO_LARGE, f"the .npy file claims {claim}, the limit is {max_bytes} bytes")
    want = math.prod(shape) * dtype.itemsize
    if len(data) - at != want:
        got = f"{len(data) - at} bytes follow its header"
        raise ScoringError(Kind.INVALID, f".npy file: {dtype.name}{list(shape)} takes {want} bytes, but {got}")
    flat = np.frombuffer(data, dtype, offset=at)
    tensor = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    native = np.require(tensor, dtype.newbyteorder("="), ("C", "A"))
    dtype_of(native)  # numpy has types that no model has
    return _sound_bools(native)


def _npy_header(data: bytes) -> tuple[str, int]:
    """Header text and where the elements begin."""
    version = data[6:8]
    if not data.startswith(_NPY_MAGIC) or version not in (b"\1\0", b"\2\0", b"\3\0"):
        raise _bad_npy("it must begin with \\x93NUMPY and version 1.0, 2.0 or 3.0")
    start = 10 if version == b"\1\0" else 12
    length = int.from_bytes(data[8:start], "little")
    if length > _MAX_NPY_HEADER_BYTES or start + length > len(data):
        raise _bad_npy(f"its header claims {length} bytes")
    return data[start : start + length].decode("latin-1"), start + length


def _npy_fields(header: str) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    try:
        fields = ast.literal_eval(header.strip())
        descr, shape, fortran = fields["descr"], fields["shape"], fields["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise _bad_npy("its header cannot be read") from None
    if not isinstance(descr, str) or not _NPY_DTYPE.fullmatch(descr):
        raise _bad_npy(f"its type {str(descr)[:40]!r} is not a plain number")
    if not isinstance(shape, tuple) or len(shape) > _MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise _bad_npy(f"its shape {str(shape)[:40]} is not a shape of up to {_MAX_AXES} axes")
    try:
        return np.dtype(descr), shape, bool(fortran)
    except TypeError:
        raise _bad_npy(f"there is no type {descr!r}") from None


def _bad_npy(why: str) -> ScoringError:
    return ScoringError(Kind.INVALID, f"not a .npy file that can be scored: {why}")


def decode_octets(data: bytes, spec: TensorSpec) -> Tensor:
    """Bare little-endian elements in C order for one dense tensor; shares `data`'s memory and is read-only.

    The first axis, where free, is as long as the bytes say; all others must be fixed.
    Raises ScoringError(INVALID) for strings, types packed below a byte, free inner axes, and bytes that do not fit.
    """
    rest = _octet_row_shape(spec)
    dtype = spec.dtype.numpy
    row_bytes = math.prod(rest) * dtype.itemsize
    fits = len(data) > 0 and row_bytes > 0 and len(data) % row_bytes == 0
    if not fits or (not spec.has_batch_axis and len(data) != row_bytes):
        want = f"a multiple of {row_bytes}" if spec.has_batch_axis else f"{row_bytes}"
        raise ScoringError(Kind.INVALID, f'"{spec.name}": want {want} bytes ({spec}), got {len(data)}')
    shape = (len(data) // row_bytes, *rest) if spec.has_batch_axis else rest
    return _sound_bools(np.frombuffer(data, dtype).reshape(shape))


def _octet_row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The fixed axes: all after a free first one, or all. Raises ScoringError(INVALID) if there is no telling."""
    if spec.dtype.is_string or spec.dtype.name in _PACKED:
        raise ScoringError(Kind.INVALID, f'"{spec.name}" is {spec}: bare bytes cannot stand for {spec.dtype} elements')
    if spec.shape is None:
        raise ScoringError(Kind.INVALID, f'"{spec.name}" is {spec}: bare bytes need a known rank')
    rest = spec.shape[1:] if spec.has_batch_axis else spec.shape
    if -1 in rest:
        free = "only the first axis may be free when bare bytes are sent; a .npy file or JSON carries its shape"
        raise ScoringError(Kind.INVALID, f'"{spec.name}" is {spec}: {free}')
    return rest


def _sound_bools(tensor: Tensor) -> Tensor:
    """Any byte can come in as a bool, but only 0 and 1 are ones."""
    return tensor.view(np.uint8) != 0 if tensor.dtype == np.bool_ else tensor


def gunzip(data: bytes, limit_bytes: int) -> bytes:
    """Unpack gzip, one member or several; never holds much more than limit_bytes of output.

    Zero bytes after the last member are padding, as gzip itself has it.
    Raises ScoringError: TOO_LARGE over the limit, INVALID if corrupt, cut or followed by something else.
    """
    view, at, parts, left = memoryview(data), 0, list[bytes](), limit_bytes
    for _ in range(_MAX_GZIP_MEMBERS):
        at, member = _gunzip_member(view, at, left)
        parts += member
        left -= sum(map(len, member))
        if left < 0:
            raise ScoringError(Kind.TOO_LARGE, f"the gzip body unpacks to more than {limit_bytes} bytes")
        if data[at : at + 1] in (b"", b"\0") and not data[at:].strip(b"\0"):
            return b"".join(parts)
    raise ScoringError(Kind.INVALID, f"the gzip body has more than {_MAX_GZIP_MEMBERS} members")


def _gunzip_member(view: memoryview, at: int, left: int) -> tuple[int, list[bytes]]:
    """Where the member that begins at `at` ends, and its parts; stops as soon as they exceed `left` bytes."""
    member = zlib.decompressobj(31)
    parts: list[bytes] = []
    try:
        while not member.eof:
            # In chunks, or each of many members would copy all that follows it into `unused_data`.
            chunk = view[at : at + _GZIP_CHUNK_BYTES]
            if not len(chunk):
                raise ScoringError(Kind.INVALID, "the gzip body ends early")
            at += len(chunk)
            parts.append(member.decompress(chunk, left + 1))
            left -= len(parts[-1])
            if left < 0:
                break
    except zlib.error as error:
        raise ScoringError(Kind.INVALID, f"the gzip body is corrupt ({error})") from None
    return at - len(member.unused_data), parts


def inflate(data: bytes, limit_bytes: int) -> bytes:
    """Unpack "deflate": zlib's format, as RFC 9110 means it, or the bare one that some clients send.

    Raises ScoringError: TOO_LARGE over the limit, INVALID if corrupt, cut or followed by something else.
    """
    is_zlib = len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    unpacking = zlib.decompressobj(15 if is_zlib else -15)
    try:
        unpacked = unpacking.decompress(data, limit_bytes + 1)
    except zlib.error as error:
        raise ScoringError(Kind.INVALID, f"the deflate body is corrupt ({error})") from None
    if len(unpacked) > limit_bytes:
        raise ScoringError(Kind.TOO_LARGE, f"the deflate body unpacks to more than {limit_bytes} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise ScoringError(Kind.INVALID, "the deflate body ends early or goes on behind its end")
    return unpacked


def single_file(body: bytes, content_type: str) -> bytes:
    """The one file of a multipart/form-data form; fields that are no files are passed over.

    Raises ScoringError(INVALID) for a broken form, and for one with no file or several.
    """
    files = [part for headers, part in form_parts(body, content_type) if _FILE_NAME.search(headers)]
    if len(files) != 1:
        raise ScoringError(Kind.INVALID, f"want a form with exactly one file, got {len(files)} files")
    return files[0]


def form_parts(body: bytes, content_type: str) -> Iterator[tuple[bytes, bytes]]:
    """(headers, content) of each part of a multipart/form-data form. Raises ScoringError(INVALID)."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise ScoringError(Kind.INVALID, "a multipart form needs a boundary in its Content-Type")
    delimiter = b"--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    return _form_parts(body, delimiter)


def _form_parts(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(headers, content) of each part, RFC 2046 section 5.1.1. Raises ScoringError(INVALID)."""
    at = 0 if body.startswith(delimiter) else _after(body, b"\r\n" + delimiter, 0) - len(delimiter)
    for _ in range(_MAX_FORM_PARTS):
        at += len(delimiter)
        if body.startswith(b"--", at):
            return
        line_end = _after(body, b"\r\n", at, at + _MAX_PADDING_BYTES)
        if body[at:line_end].strip(b" \t\r\n"):
            raise _bad_form("its boundary appears inside a part")
        # From the line's end itself: a part may have no headers at all.
        start = _after(body, b"\r\n\r\n", line_end - 2, line_end + _MAX_PART_HEADER_BYTES)
        at = _after(body, b"\r\n" + delimiter, start - 2) - len(delimiter)
        yield body[line_end:start], body[start : at - 2]
    raise _bad_form(f"it has more than {_MAX_FORM_PARTS} parts")


def _after(body: bytes, mark: bytes, start: int, limit: int | None = None) -> int:
    """Where the next `mark` before `limit` ends. Raises ScoringError(INVALID) if there is none."""
    end = len(body) if limit is None else min(limit, len(body))
    for at in range(start, end, _WINDOW_BYTES):
        found = body.find(mark, at, min(at + _WINDOW_BYTES + len(mark) - 1, end))
        if found >= 0:
            return found + len(mark)
    raise _bad_form("it ends early or lacks its boundary")


def _bad_form(why: str) -> ScoringError:
    return ScoringError(Kind.INVALID, f"the multipart form is broken: {why}")
