"""What a script returns, as JSON: also arrays, numpy's numbers, bytes and numbers that JSON does not have.

The strict form is `json.dumps`, as the original did it.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from accelserve.entry_script.messages import NanPolicy

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class JsonEncoder:
    """nan: "null" writes null for NaN and the infinities, "NaN" the words that Python reads back, "refuse" raises.

    strict: `json.dumps`, which writes the words and knows none of the other types.
    """

    nan: NanPolicy = "null"
    strict: bool = False

    def encode(self, value: Any) -> bytes:
        """Raises TypeError, ValueError or RecursionError for what it has no form for."""
        if self.strict:
            return json.dumps(value).encode()
        return _with_null(value) if self.nan == "null" else _text(value, allow_nan=self.nan == "NaN")


def _with_null(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=plain, option=_OPTIONS)
    except TypeError:  # an int beyond 64 bits, half of a surrogate pair, deep nesting, or what JSON has no form for
        return _text(_without_nan(value), allow_nan=False)


def _text(value: Any, allow_nan: bool) -> bytes:
    text = json.dumps(value, default=plain, allow_nan=allow_nan, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, default=plain, allow_nan=allow_nan, separators=(",", ":")).encode()


def plain(value: Any) -> Any:
    """What a value that JSON does not know stands for, one step. Raises TypeError.

    Arrays and series are lists, a data frame is the list of its rows, bytes are text or {"b64": ...}.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(bytes(value))
    if isinstance(value, tuple):  # a named one
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return value.to_dict(orient="records")
    for method in ("tolist", "numpy", "isoformat"):  # numpy, pandas and torch; TensorFlow; dates and times
        if callable(getattr(value, method, None)) and not isinstance(value, type):
            return getattr(value, method)()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _bytes(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    return _without_nan(plain(value))
