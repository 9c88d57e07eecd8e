"""Large JSON arrays of numbers, by simdjson: no Python object for each number, and half the time.

simdjson flattens what it is given, so the text itself is asked for the shape: without its digits and spaces a regular
array is one pattern of brackets and commas. Only plain bodies go this way: one array of numbers, bare or under one of
our keys, with at most a signature's name beside it. Whatever is refused or unusual here is read the general way, so
that answers and refusals are always that way's; what simdjson takes, it reads as orjson does (the tests compare them).
"""

import re
from collections.abc import Mapping
from contextvars import Context
from itertools import chain
from types import MappingProxyType
from typing import Any

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

# The types that are read this way: what simdjson reads them as, and that as numpy's.
_CARRIERS: Mapping[str, tuple[Any, "np.dtype[np.generic]"]] = MappingProxyType(
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


def _numbers_in(body: bytes) -> dict[str, Any] | NumberArray | None:
    """The document of a plain body, None for others."""
    head = _HEAD.match(body)
    if head is None:
        return None
    key, opening = head.groups()
    rank = opening.count(b"[")
    # Lists of one, but for the innermost, are found out at once.
    brackets = rank if body.rfind(b"[") < head.end() else _brackets(body)
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


def _brackets(body: bytes) -> int:
    """How many arrays begin, in a text whose strings have no brackets."""
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")))  # `bytes.count` takes three times as long


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
