"""Nested JSON lists to tensors.

The quick way flattens whole levels in C and packs the leaves with `struct`, which is stricter than numpy: it refuses
strings, null, fractions for integers and integers out of range. It takes true for 1, though, so it looks at the
leaves' types, but only when the caller has seen the words `true` or `false` in the text. What the quick way cannot
take is walked: halved until the part at fault is alone, so that all before it still goes the quick way. A lone value
is looked at as TF Serving does, whose words a refusal has (specs/tfserving.md 2.2), or is odd but right (an integer
too large for a float is infinity).
"""

import base64
import binascii
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from accelserve.codecs.json_text import json_type, show, type_word
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, STRING, DType, Shape, Tensor

MAX_RANK = 64  # numpy's

_BOOL = BY_NAME["bool"]

# struct's letter for each dtype that it packs natively; the others go through the carrier below.
_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "float32": "f",
        "float64": "d",
        "float16": "e",
        "int8": "b",
        "int16": "h",
        "int32": "i",
        "int64": "q",
        "uint8": "B",
        "uint16": "H",
        "uint32": "I",
        "uint64": "Q",
    }
)


def is_b64(value: object) -> TypeGuard[dict[str, str]]:
    """Whether a value is TF Serving's object for bytes: {"b64": "<text>"} and no other key."""
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)


def tensor_of(value: object, dtype: DType, *, has_bools: bool) -> Tensor:
    """A JSON value as a tensor: a bare value gives rank 0, nested lists give their shape.

    has_bools: whether the text may hold true or false; a needless True costs time, a wrong False lets true pass for 1.
    Raises ScoringError: INVALID for ragged lists and values of another type, UNSUPPORTED for complex dtypes.
    """
    found = quick_tensor(value, dtype, has_bools=has_bools)
    return found if found is not None else walk(value, dtype)


def quick_tensor(value: object, dtype: DType, has_bools: bool) -> Tensor | None:
    """The tensor of nested lists of numbers, bools or strings; None where `walk` must look."""
    if type(value) is not list:
        return None
    regular = _flatten(value, dtype is STRING)
    if regular is None:
        return None
    shape, leaves = regular
    if has_bools and dtype is not _BOOL and bool in set(map(type, leaves)):
        return None
    pack_into = _packer(dtype, len(leaves))
    if pack_into is None:
        return _shaped(_pack_otherwise(leaves, dtype), shape)
    packed = np.empty(shape, dtype.numpy)  # in shape: `reshape` would take 0.2 us of a tiny body's 1.5
    try:
        pack_into(packed, 0, *leaves)
    except OverflowError:  # beyond float32 or float16 is infinity
        return _shaped(_pack_by_carrier(leaves, dtype), shape) if dtype.numpy.kind == "f" else None
    except struct.error:
        return None
    return packed


def _shaped(flat: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    return flat.reshape(shape) if flat is not None else None


def _flatten(value: list[object], strings: bool) -> tuple[list[int], list[object]] | None:
    """Shape and leaves of nested lists, None when ragged. A leaf may still turn out to be a list or an object."""
    shape, level = [len(value)], value
    while level and type(level[0]) is list:
        if len(level) == 1 and len(shape) < MAX_RANK:  # nothing to compare its length with
            level = level[0]
            shape.append(len(level))
            continue
        if strings and set(map(type, level)) != {list}:  # which have letters, that would pass for strings
            return None
        try:
            widths = set(map(len, level))  # type: ignore[arg-type]
        except TypeError:
            return None
        if len(widths) != 1 or len(shape) == MAX_RANK:
            return None
        shape.append(widths.pop())
        level = list(chain.from_iterable(level))  # type: ignore[arg-type]
    return shape, level


def _pack_otherwise(leaves: list[object], dtype: DType) -> Tensor | None:
    """Leaves that `struct` does not know, flat."""
    if dtype is STRING:
        return _pack_strings(leaves)
    return _pack_bools(leaves) if dtype is _BOOL else _pack_by_carrier(leaves, dtype)


def _pack_strings(leaves: Sequence[Any]) -> Tensor | None:
    kinds = set(map(type, leaves))
    packed = np.empty(len(leaves), np.object_)
    if kinds <= {str}:
        packed[:] = [leaf.encode() for leaf in leaves]
    elif kinds <= {str, dict}:
        try:
            packed[:] = [_bytes_of(leaf) for leaf in leaves]
        except ScoringError:
            return None
    else:
        return None
    return packed


def _pack_bools(leaves: Sequence[object]) -> Tensor | None:
    return np.array(leaves, np.bool_) if set(map(type, leaves)) <= {bool} else None


@lru_cache(maxsize=1024)  # of so many different counts and types
def _packer(dtype: DType, count: int) -> Callable[..., None] | None:
    """What packs `count` leaves into a buffer; None where `struct` does not know the type."""
    letter = _LETTERS.get(dtype.name)
    return struct.Struct(f"{count}{letter}").pack_into if letter is not None else None


def _pack_by_carrier(leaves: list[object], dtype: DType) -> Tensor | None:
    """Other floats by float64; the 2 and 4 bit integers by int8, their range checked."""
    if _is_complex(dtype):
        return None
    if not _is_small_integer(dtype):
        wide = quick_tensor(leaves, BY_NAME["float64"], has_bools=False)
        with np.errstate(over="ignore"):
            return wide.astype(dtype.numpy) if wide is not None else None
    wide = quick_tensor(leaves, BY_NAME["int8"], has_bools=False)
    limits = ml_dtypes.iinfo(dtype.numpy)
    if wide is None or (wide.size and not limits.min <= wide.min() <= wide.max() <= limits.max):
        return None
    return wide.astype(dtype.numpy)


def walk(value: object, dtype: DType) -> Tensor:
    """The tensor of any JSON value; the first fault raises (see `tensor_of`)."""
    shape: list[int] = []
    first = value
    while type(first) is list and len(shape) <= MAX_RANK:
        shape.append(len(first))
        first = first[0] if first else None
    if len(shape) > MAX_RANK:
        raise _invalid(f"JSON Value: {show(value)} is nested deeper than {MAX_RANK} lists")
    parts = [np.empty(0, dtype.numpy), *_parts(value, 0, tuple(shape), dtype)]
    return np.concatenate(parts).reshape(shape)


def _parts(value: object, level: int, shape: Shape, dtype: DType) -> Iterator[Tensor]:
    """The leaves in row-major order, in flat pieces."""
    rank = len(shape)
    if type(value) is not list:
        if level != rank:
            where = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {rank}"
            raise _invalid(f"JSON Value: {show(value)} {where}")
        yield _leaf(value, dtype)
        return
    if level >= rank:
        raise _invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise _invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    rest = shape[level + 1 :]

    def many(items: Sequence[object]) -> Tensor | None:
        found = quick_tensor(items, dtype, has_bools=True)
        return found.reshape(-1) if found is not None and found.shape[1:] == rest else None

    def one(index: int) -> Iterator[Tensor]:
        return _parts(value[index], level + 1, shape, dtype)

    yield from in_runs(value, many, one)


def in_runs(
    items: Sequence[Any], many: Callable[[Sequence[Any]], Tensor | None], one: Callable[[int], Iterator[Tensor]]
) -> Iterator[Tensor]:
    """Tensors of consecutive items: of as many as `many` can take together, and of each that it cannot by its index.

    For a list that `many` could not take as a whole. Costs what `many` costs on about three times the items.
    """
    at, step = 0, max(1, len(items) // 2)
    while at < len(items):
        found = many(items[at : at + step]) if len(items) > 1 else None
        if found is not None:
            yield found
            at, step = at + step, step * 2
        elif step > 1:
            step //= 2
        else:
            yield from one(at)
            at += 1


def _leaf(value: object, dtype: DType) -> Tensor:
    """Flat; floats beyond the dtype's range become infinity."""
    leaf = np.empty(1, dtype.numpy)
    with np.errstate(over="ignore"):
        leaf[0] = _converter(dtype)(value)
    return leaf


def _converter(dtype: DType) -> Callable[[object], object]:
    """Checks one leaf and gives what an array of `dtype` takes."""
    if dtype.is_string:
        return _bytes_of
    if _is_complex(dtype):
        return lambda value: _unsupported(value, dtype)
    if dtype.name == "bool":
        return lambda value: value if type(value) is bool else _mismatch(value, dtype)
    if dtype.numpy.kind in "iu" or _is_small_integer(dtype):
        return lambda value: value if type(value) is int and _fits(value, dtype) else _mismatch(value, dtype)
    return lambda value: _float(value) if type(value) in (int, float) else _mismatch(value, dtype)


def _fits(value: int, dtype: DType) -> bool:
    limits = ml_dtypes.iinfo(dtype.numpy)
    return bool(limits.min <= value <= limits.max)


def _float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")  # type: ignore[operator]


def _bytes_of(value: object) -> bytes:
    """The bytes of text, or of the object for bytes."""
    if type(value) is str:
        return value.encode()
    if type(value) is not dict:
        _mismatch(value, BY_NAME["string"])
    if not is_b64(value):
        raise _invalid(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    return _b64_decoded(value["b64"])


def _b64_decoded(text: str) -> bytes:
    """Standard alphabet; white space and missing or surplus padding are forgiven, as by absl."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    bare = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def _mismatch(value: object, dtype: DType) -> object:
    expected = f"is not of expected type: {type_word(dtype.name)}"
    raise _invalid(f"JSON Value: {show(value)} Type: {json_type(value)} {expected}")


def _unsupported(value: object, dtype: DType) -> object:
    raise ScoringError(Kind.UNSUPPORTED, f"Conversion of JSON Value: {show(value)} to type: {type_word(dtype.name)}")


def _is_complex(dtype: DType) -> bool:
    return dtype.numpy.kind == "c"


def _is_small_integer(dtype: DType) -> bool:
    return dtype.name in ("int4", "uint4", "int2", "uint2")


def _invalid(message: str) -> ScoringError:
    return ScoringError(Kind.INVALID, message)
