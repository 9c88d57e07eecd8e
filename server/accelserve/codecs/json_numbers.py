"""Large JSON arrays of numbers, by simdjson: no Python object for each number, and half the time.

simdjson flattens what it is given, so the text itself is asked for the shape: without its digits and spaces a regular
array is one pattern of brackets and commas. Only plain bodies go this way: one array of numbers, bare or under one of
our keys, with at most a signature's name beside it; bodies that came together, of one flat row each, are read straight
into their batch. Whatever is refused or unusual here is read the general way, so that answers and refusals are always
that way's; what simdjson takes, it reads as orjson does (the tests compare them).
"""

import re
from collections.abc import Mapping, Sequence
from contextvars import Context
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import simdjson

from accelserve.codecs.json_text import parse_json
from accelserve.tensors import DType, Shape, Tensor

MIN_BYTES = 4096  # smaller bodies are as fast by orjson, or faster
_FEW_BYTES = 256  # so many bytes for each array: it is quicker to look at the arrays than at the text
_LARGE_BYTES = 2**24  # where memory counts for more than time
_MAX_WIDTH = 2**24 - 2  # simdjson tells no greater length of an array
# What pysimdjson's error handler raises (its util.cpp).
_REFUSALS = (LookupError, TypeError, ValueError, RuntimeError, MemoryError)

_HEAD = re.compile(
    rb"[ \t\r\n]*+(?:\{[ \t\r\n]*+"
    rb'(?:"signature_name"[ \t\r\n]*+:[ \t\r\n]*+"[^"\\\[]{0,256}+"[ \t\r\n]*+,[ \t\r\n]*+)?'
    rb'"(instances|inputs|data)"[ \t\r\n]*+:[ \t\r\n]*+)?'
    rb"(\[[\[ \t\r\n]*+)[-0-9]"
)
_NO_STRUCTURE = b"0123456789+-.eE \t\r\n"

_Carrier: TypeAlias = tuple[Any, "np.dtype[np.generic]"]  # what simdjson reads numbers as, and that as numpy's
# The types that are read this way.
_CARRIERS: Mapping[str, _Carrier] = MappingProxyType(
    {
        **dict.fromkeys(("float16", "float32", "float64"), ("d", np.dtype(np.float64))),
        **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"), ("i", np.dtype(np.int64))),
        "uint64": ("u", np.dtype(np.uint64)),
    }
)
_OVERFLOWING = Context()  # in which numpy says nothing of floats that become infinity
_OVERFLOWING.run(np.seterr, over="ignore")


class NumberArray:
    """A regular JSON array of one number at least, which simdjson holds until its dtype is known."""

    __slots__ = ("_array", "_shape")

    def __init__(self, array: simdjson.Array, shape: Shape) -> None:
        self._array: simdjson.Array | Tensor = array
        self._shape = shape

    def tensor(self, dtype: DType) -> Tensor | None:
        """`json_tensors.tensor_of` of the array; None where that has to look, or would refuse it. To be asked once."""
        carrier = _CARRIERS.get(dtype.name)
        if carrier is None or isinstance(self._array, np.ndarray):
            return None
        try:
            # Refused if too short: an empty list has the structure of a list of one number.
            wide = np.ndarray(self._shape, carrier[1], self._array.as_buffer(of_type=carrier[0]))
        except _REFUSALS:
            return None
        self._array = wide  # simdjson's document takes twice as much memory, and goes before more is taken
        return _narrowed(wide, dtype)

    def lists(self) -> list[Any]:
        """What `json_text.parse_json` makes of the array."""
        values: list[Any] = self._array.tolist() if isinstance(self._array, np.ndarray) else self._array.as_list()
        return values


def _narrowed(wide: Tensor, dtype: DType) -> Tensor | None:
    """None where an integer is out of range; floats beyond it become infinity."""
    if wide.dtype == dtype.numpy:
        return wide
    if wide.dtype == np.float64:
        # As within np.errstate, which would take 0.9 us. A copy, since threads cannot share a context.
        return _OVERFLOWING.copy().run(wide.astype, dtype.numpy)
    narrow = wide.astype(dtype.numpy)
    return narrow if (narrow == wide).all() else None


def parse_large(body: bytes) -> Any:
    """`json_text.parse_json`, but with a NumberArray for the array of numbers of a plain body.

    A plain object has one of the keys "instances", "inputs" and "data", and at most "signature_name" beside it. The
    array may turn out to hold something else than numbers: `NumberArray.tensor` has no answer then.
    """
    document = _numbers_in(body)
    return document if document is not None else parse_json(body)


def rows_together(bodies: Sequence[bytes], dtype: DType) -> tuple[Tensor, list[int]] | None:
    """The rows of several bodies, each {"instances": rows of numbers}, as one tensor, and how many rows each has.

    None where a body is anything else or has to be looked at, or rows differ in shape.
    """
    rows = _single_rows(bodies, dtype)
    if rows is not None:
        return rows, [1] * len(bodies)
    parts: list[Tensor] = []
    for body in bodies:
        document = _numbers_in(body)
        numbers = document.get("instances") if type(document) is dict and len(document) == 1 else None
        part = numbers.tensor(dtype) if numbers is not None else None
        if part is None or (parts and part.shape[1:] != parts[0].shape[1:]):
            return None
        parts.append(part)
    return np.concatenate(parts), list(map(len, parts))


def _single_rows(bodies: Sequence[bytes], dtype: DType) -> Tensor | None:
    """`rows_together` of bodies that begin alike and have one flat row each, else None. Takes 4 µs less for each."""
    carrier, head = _CARRIERS.get(dtype.name), _HEAD.match(bodies[0])
    if carrier is None or head is None or head[1] != b"instances" or head[2].count(b"[") != 2:
        return None
    width = _count(bodies[0], ",") + 1
    rows = np.empty((len(bodies), width), dtype.numpy if carrier[0] == "d" else carrier[1])
    try:
        _OVERFLOWING.copy().run(_fill, rows, bodies, head[0][:-1], carrier)
    except _REFUSALS:
        return None
    return _narrowed(rows, dtype)


def _fill(rows: Tensor, bodies: Sequence[bytes], opening: bytes, carrier: _Carrier) -> None:
    """Each row while it is in the cache: a fifth less than all at the end. Raises an exception if one is irregular.

    opening: what each body begins with, up to its first number: an object, "instances" and two brackets.
    """
    parser, width = simdjson.Parser(), rows.shape[1]
    for at, body in enumerate(bodies):
        row = _flat_row(parser, body, opening, carrier)
        if len(row) != width:
            raise ValueError("irregular")
        rows[at] = row


def _flat_row(parser: simdjson.Parser, body: bytes, opening: bytes, carrier: _Carrier) -> Tensor:
    """In a function of its own, as the parser must not be used again while its document lives."""
    if not body.startswith(opening) or body.rfind(b"[") >= len(opening):
        raise ValueError("arrays elsewhere")
    document: Any = parser.parse(body)
    rows = document["instances"]
    if len(document) != 1 or len(rows) != 1:
        raise ValueError("more than one row")
    return np.frombuffer(rows.as_buffer(of_type=carrier[0]), carrier[1])


def _numbers_in(body: bytes) -> dict[str, Any] | NumberArray | None:
    """The document of a plain body, None for others."""
    head = _HEAD.match(body)
    if head is None:
        return None
    key, opening = head.groups()
    rank = opening.count(b"[")
    # Lists of one, but for the innermost, are found out at once.
    brackets = rank if body.rfind(b"[") < head.end() else _count(body, "[")
    try:
        few = brackets * _FEW_BYTES <= len(body)
        if few and len(body) > _LARGE_BYTES and body.count(b",") * 9 > len(body) * 2:
            return (
                None  # integers of up to three digits, which are objects that exist already: orjson takes less memory
            )
        shape = None if few else _shape_of_structure(body.translate(None, _NO_STRUCTURE), rank)
        document: Any = simdjson.Parser().parse(body)  # a fresh one: it must not be used again while arrays live
        array = document[key.decode()] if key else document
        numbers = NumberArray(array, shape or _shape_of_arrays(array, rank, brackets))
        return _with_name(document, key.decode(), numbers) if key else numbers
    except _REFUSALS:
        return None


def _count(body: bytes, character: str) -> int:
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(character)))  # a third of what `bytes.count` takes


def _with_name(document: Any, key: str, numbers: NumberArray) -> dict[str, Any]:
    if len(document) == 1:
        return {key: numbers}
    name = document["signature_name"]
    if len(document) != 2 or type(name) is not str:
        raise ValueError("more than the array and a name")
    return {"signature_name": name, key: numbers}


def _shape_of_arrays(array: Any, rank: int, brackets: int) -> Shape:
    """Shape of an array, level by level. Raises an exception if it is irregular, or not the only array."""
    shape: list[int] = []
    while len(shape) < rank - 1 and len(array) == 1:  # which is usual, and quicker than what follows
        shape.append(1)
        array = array[0]
    level, arrays = [array], len(shape) + 1
    while len(shape) < rank - 1:
        shape.append(_width(level))
        level = list(chain.from_iterable(level))
        arrays += len(level)
    shape.append(_width(level))
    if arrays != brackets:
        raise ValueError("irregular")
    return tuple(shape)


def _width(arrays: list[Any]) -> int:
    """The length that all have."""
    width = len(arrays[0])
    if width > _MAX_WIDTH or (len(arrays) > 1 and set(map(len, arrays)) != {width}):
        raise ValueError("irregular")
    return width


def _shape_of_structure(structure: bytes, rank: int) -> Shape:
    """Shape of the array that a text's structure holds, from its first bracket on. Raises ValueError if irregular.

    structure: JSON without digits, signs, spaces and "e": "[[,],[,],[,]]" is the structure of [3, 2].
    """
    start = structure.find(b"[")
    width = structure.find(b"]", start) - start - rank + 1
    shape, unit = [width], b"[" + b"," * (width - 1) + b"]"
    for level in range(1, rank):
        end = structure.find(b"]" * (level + 1), start)  # where so many lists end at once, this level's first one does
        count, rest = divmod(end + level + 1 - (start + rank - level - 1) - 1, len(unit) + 1)
        if end < 0 or rest:
            raise ValueError("irregular")
        shape.append(count)
        unit = b"[" + (unit + b",") * (count - 1) + unit + b"]"
    if not structure.startswith(unit, start) or structure.find(b"[", start + len(unit)) >= 0:
        raise ValueError("irregular")
    return tuple(reversed(shape))
