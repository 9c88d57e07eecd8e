"""TensorFlow's exceptions in the project's words; told by their numbers, so TensorFlow is not imported here."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from accelserve.errors import Kind

# Numbers of tensorflow.error.Code, which are gRPC's.
_KINDS: Mapping[int, Kind] = MappingProxyType(
    {
        3: Kind.INVALID,
        8: Kind.DEVICE_MEMORY,
        9: Kind.PRECONDITION,
        11: Kind.INVALID,  # OUT_OF_RANGE
        12: Kind.UNSUPPORTED,
    }
)
_DECODING = re.compile(
    r"decode_?(?:and_?crop_?)?(?:jpe?g|png|image|gif|bmp|webp)"
    r"|unknown image file format|invalid (?:jpeg|png|gif|bmp|webp)|jpeg::uncompress",
    re.IGNORECASE,
)
_UNCONVERTIBLE = "Unsupported object type"  # an object array with other things than bytes; reported as INTERNAL
_NODE = re.compile(r"\s*\[\[.*", re.DOTALL)
_LONGEST = 400


def kind_of(error: Exception, takes_strings: bool) -> Kind:
    """Whose fault a failed run is. takes_strings: an input is a string tensor, so that an operator may decode it.

    UNDECODABLE when such an operator could not read a picture; ValueError and TypeError are the feed's.
    """
    text = str(error)
    if _UNCONVERTIBLE in text or isinstance(error, (ValueError, TypeError)):
        return Kind.INVALID
    kind = _KINDS.get(getattr(error, "error_code", -1), Kind.INTERNAL)
    if kind is Kind.INVALID and takes_strings and _DECODING.search(text):
        return Kind.UNDECODABLE
    return kind


def one_line(error: Exception) -> str:
    """The reason without the node trace and line breaks, cut to a readable length."""
    text = " ".join(_NODE.sub("", str(getattr(error, "message", None) or error)).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
