"""JSON text: bytes to Python values, arrays to bytes.

One `orjson.loads` and one `orjson.dumps` do the work. What JSON has no words for (NaN, Infinity, -Infinity, Inf) costs
extra only where it occurs: TF Serving reads and writes these as bare tokens (specs/tfserving.md 2.2, 2.3).
"""

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import orjson

from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor, dtype_of

SHOWN_CHARACTERS = 256  # of a refused value, in an error text

_TF_WORDS: Mapping[str, str] = MappingProxyType({"float32": "float", "float64": "double", "float16": "half"})
_BOM = b"\xef\xbb\xbf"
# Each match begins where the one before it ended and is short enough to let other threads run; none begins at the end.
# Text and whole strings (also one that never ends, so that a scan stays linear), up to a bare Inf if it comes soon.
_UP_TO_INF = re.compile(r'(?!\Z)(?:[^"I]++|"(?:[^"\\]++|\\.?)*+"?|I(?!nf(?!inity))){0,4096}+(Inf(?!inity))?', re.DOTALL)
# Text in which each half of a surrogate pair has its other half.
_PAIRED = re.compile(r"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F]..){1,4096}+", re.DOTALL)
# The types that orjson writes as we want them, but for null where a float is not finite.
_NATIVE = frozenset(np.dtype(letter) for letter in "fdbhilqBHILQ?")
_N = ord("n")
_BLOCK_ELEMENTS = 2**16  # written at a time, about 5 ms: other threads wait that long
_RUN_ITEMS = 2**12


def type_word(name: str) -> str:
    """TensorFlow's word for a dtype in messages: "float" for "float32"."""
    return _TF_WORDS.get(name, name)


def parse_json(body: bytes) -> Any:
    """The document in `body`; what follows it is ignored, as by TF Serving.

    Raises ScoringError(INVALID) "JSON Parse error: <reason> at offset: <byte>" for anything but one document of UTF-8
    text, nested at most 1024 deep (fewer around non-finite numbers). A byte order mark before it is passed over, and
    not counted.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body.startswith(_BOM):
            return _second_reading(body, error)
    body = body[len(_BOM) :]
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _second_reading(body, error)


def _second_reading(body: bytes, error: orjson.JSONDecodeError) -> Any:
    offset = _offset(error)
    if offset in (0, len(body)) and not body.strip(b" \t\r\n"):
        raise ScoringError(Kind.INVALID, "JSON Parse error: The document is empty")
    if error.msg.startswith("unexpected content after document"):
        return orjson.loads(body[:offset])
    if body[offset : offset + 1] in (b"N", b"I", b"-"):
        return _parse_with_non_finite(body, offset)
    _refuse(error.msg.partition(": line")[0], offset)


def _offset(error: json.JSONDecodeError) -> int:
    """In bytes."""
    return error.pos if error.doc.isascii() else len(error.doc[: error.pos].encode())


def _parse_with_non_finite(body: bytes, offset: int) -> Any:
    """Read by the standard library, which knows NaN and Infinity and is slower.

    offset: where the first such token stands; reported when the text cannot be read at all.
    """
    try:
        text = _with_infinity_spelled_out(body.decode())
        document, end = json.JSONDecoder().raw_decode(text, len(text) - len(text.lstrip(" \t\r\n")))
    except RecursionError:
        _refuse("nested too deeply", offset)
    except json.JSONDecodeError as error:
        _refuse(error.msg, _offset(error))
    except ValueError as error:  # not UTF-8, or an integer of thousands of digits
        _refuse(str(error), offset)
    if not _surrogates_are_paired(text[:end]):
        _refuse("half of a surrogate pair is not text", offset)
    return document


def _with_infinity_spelled_out(text: str) -> str:
    """Each Inf outside of strings made Infinity."""
    if not re.search("Inf(?!inity)", text):
        return text
    matches = iter(_UP_TO_INF.scanner(text).match, None)  # type: ignore[attr-defined]
    return "".join([match[0] + "inity" if match.lastindex else match[0] for match in matches])


def _surrogates_are_paired(text: str) -> bool:
    """Whether every surrogate that a string of this JSON escapes is half of a pair."""
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return True
    ends = [match.end() for match in iter(_PAIRED.scanner(text).match, None)]  # type: ignore[attr-defined]
    return bool(ends) and ends[-1] == len(text)


def _refuse(reason: str, offset: int) -> NoReturn:
    raise ScoringError(Kind.INVALID, f"JSON Parse error: {reason} at offset: {offset}")


def show(value: object) -> str:
    """A JSON value as text for an error message, cut at SHOWN_CHARACTERS."""
    if isinstance(value, float) and not math.isfinite(value):
        return _token(value)
    try:
        text = dumps(_beginning(value, SHOWN_CHARACTERS + 1)[0]).decode()
    except orjson.JSONEncodeError:  # nested too deeply, or an integer over 64 bits
        return json_type(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _beginning(value: object, room: int) -> tuple[object, int]:
    """What of a JSON value makes the first `room` characters of its text, and the room that is left, at most."""
    if type(value) is str:
        return value[: max(room, 0)], room - len(value) - 2
    if type(value) is list:
        items, room = [], room - 1
        for item in value:
            if room <= 0:
                break
            kept, left = _beginning(item, room)
            items.append(kept)
            room = left - 1
        return items, room
    if type(value) is dict:
        fields, room = {}, room - 1
        for key, item in value.items():
            if room <= 0:
                break
            kept, left = _beginning(item, room - len(key) - 3)
            fields[key[:room]] = kept
            room = left - 1
        return fields, room
    return value, room - 1


def json_type(value: object) -> str:
    """RapidJSON's word for the type of a value, as TF Serving's messages have it."""
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    words: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return words.get(type(value), "Number")


def dumps(value: object) -> bytes:
    """Python values, and what `json_value` and `json_rows` gave, as JSON."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_bytes(tensor: Tensor, *, as_b64: bool = False) -> bytes:
    """`dumps(json_value(tensor))`."""
    text = quick_bytes(tensor)
    return text if text is not None else dumps(json_value(tensor, as_b64=as_b64))


def quick_bytes(tensor: Tensor) -> bytes | None:
    """`json_bytes` of most tensors of numbers; None for all others."""
    if tensor.dtype not in _NATIVE or not tensor.ndim or tensor.size > _BLOCK_ELEMENTS:
        return None
    try:
        text = orjson.dumps(tensor, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # not C-contiguous
        return None
    # No null: all are finite. As a number, which `in` finds in 0.04 us instead of 0.2.
    return text if _N not in text else None


def json_value(tensor: Tensor, *, as_b64: bool = False) -> object:
    """What `dumps` writes for a tensor: nested lists of its shape, a bare value for rank 0.

    Floats have the shortest text that their own precision reads back (float16, bfloat16 and float8: that of the equal
    float32), always with "." or "e". Strings are text, or {"b64": ...} where they are not UTF-8 or as_b64 is set.
    Raises ScoringError(INVALID) for complex numbers.
    """
    if tensor.dtype == np.object_:
        return _strings(tensor, as_b64).tolist()
    numbers = _writable(tensor)
    if numbers.size > _BLOCK_ELEMENTS:
        return orjson.Fragment(_text_in_blocks(numbers))
    if not _finite(numbers):
        return orjson.Fragment(_text_with_tokens(numbers))
    return numbers if numbers.ndim else numbers[()]


def json_rows(tensor: Tensor, *, as_b64: bool = False) -> list[object]:
    """`json_value` of each row of a tensor [n, ...]."""
    if tensor.dtype == np.object_:
        rows: list[object] = _strings(tensor, as_b64).tolist()
        return rows
    numbers = _writable(tensor)
    items: list[object] = list(numbers)
    if not _finite(numbers):
        sound = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
        for index in np.flatnonzero(~sound).tolist():
            items[index] = json_value(numbers[index])
    return items


def json_list(items: Iterable[object], run_items: int = _RUN_ITEMS) -> object:
    """What `dumps` writes for a list of these items; written in runs of them, between which other threads come on."""
    left = iter(items)
    first = list(islice(left, run_items))
    if len(first) < run_items:
        return first
    more = iter(lambda: list(islice(left, run_items)), [])
    return orjson.Fragment(b"[" + b",".join([dumps(run)[1:-1] for run in chain([first], more)]) + b"]")


def _writable(tensor: Tensor) -> Tensor:
    """The tensor as orjson takes it: C-contiguous, of a type that JSON has numbers for."""
    dtype = tensor.dtype
    if dtype in _NATIVE:
        return np.ascontiguousarray(tensor) if tensor.ndim else tensor
    known = dtype_of(tensor)
    if dtype.kind == "c":
        message = f"Failed to write JSON value for tensor type: {type_word(known.name)}"
        raise ScoringError(Kind.INVALID, message)
    carrier = np.int8 if known.name.removeprefix("u").startswith("int") else np.float32
    return tensor.astype(carrier, order="C")


def _finite(numbers: Tensor) -> bool:
    return numbers.dtype.kind != "f" or bool(np.isfinite(numbers).all())


def _text_in_blocks(numbers: Tensor) -> bytes:
    """JSON of many numbers, of rank 1 at least."""
    return b"[" + b",".join(_blocks(numbers)) + b"]"


def _blocks(numbers: Tensor) -> Iterator[bytes]:
    """The items along the first axis, joined by commas, as many at a time as make a block."""
    width = numbers[0].size
    if width > _BLOCK_ELEMENTS:
        yield from map(_text_in_blocks, numbers)
        return
    step = _BLOCK_ELEMENTS // width
    for at in range(0, len(numbers), step):
        block = numbers[at : at + step]
        yield (dumps(block) if _finite(block) else _text_with_tokens(block))[1:-1]


def _text_with_tokens(numbers: Tensor) -> bytes:
    """JSON of floats with NaN, Infinity and -Infinity; orjson writes null for exactly these, in order."""
    tokens = [_token(x).encode() for x in numbers[~np.isfinite(numbers)].tolist()]
    pieces = dumps(numbers if numbers.ndim else numbers[()]).split(b"null")
    joined = [part for pair in zip(pieces, tokens, strict=False) for part in pair]
    return b"".join([*joined, pieces[-1]])


def _token(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _strings(tensor: Tensor, as_b64: bool) -> Tensor:
    shown = np.empty(tensor.size, np.object_)
    shown[:] = [_b64(item) if as_b64 else _text(item) for item in tensor.ravel().tolist()]
    return shown.reshape(tensor.shape)


def _text(item: bytes) -> object:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return _b64(item)


def _b64(item: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(item).decode()}
