"""Which files an ONNX model's weights are in, read from its bytes without any of the weights.

A walk over protobuf's wire format (onnx.proto3): the file is mapped and not read, and everything that is not on the
way to a tensor is stepped over, so the size of the model does not matter.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from accelserve.errors import Kind, ScoringError

# Message -> number of a field -> message in that field, on all ways from the model to a tensor.
WAYS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
        "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
        "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
        "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
        "NodeProto": {5: "AttributeProto"},
        "AttributeProto": {
            **{5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto"},
            **{22: "SparseTensorProto", 23: "SparseTensorProto"},
        },
        "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    }
)
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1  # TensorProto
_KEY, _VALUE = 1, 2  # StringStringEntryProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Data = bytes | mmap.mmap


def external_files(model: Path) -> tuple[str, ...]:
    """The files beside `model` that hold its weights, by name, sorted.

    Raises ScoringError(PRECONDITION) when the file is no ONNX model, or names a place outside its folder.
    """
    try:
        with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = sorted(set(_locations(data)))
    except (OSError, ValueError, IndexError) as error:  # IndexError: a varint that the end cuts
        raise ScoringError(Kind.PRECONDITION, f"{model} cannot be read as an ONNX model: {error}") from error
    for name in found:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in name:
            message = f"{model}: its external data {name!r} is outside its folder; save the model with relative names"
            raise ScoringError(Kind.PRECONDITION, message)
    return tuple(found)


def _locations(data: Data) -> Iterator[str]:
    pending = [("ModelProto", 0, len(data))]
    while pending:  # no recursion: graphs may be nested as deeply as the file likes
        message, start, end = pending.pop()
        if message == "TensorProto":
            yield from _location(data, start, end)
            continue
        ways = WAYS[message]
        for number, wire, value, stop in _fields(data, start, end):
            if number in ways and wire == _BYTES:
                pending.append((ways[number], value, stop))


def _location(data: Data, start: int, end: int) -> Iterator[str]:
    external, entries = False, {}
    for number, wire, value, stop in _fields(data, start, end):
        if number == _DATA_LOCATION and wire == _VARINT:
            external = value == _EXTERNAL
        elif number == _EXTERNAL_DATA and wire == _BYTES:
            texts = {key: data[at:till] for key, wire, at, till in _fields(data, value, stop) if wire == _BYTES}
            entries[texts.get(_KEY, b"")] = texts.get(_VALUE, b"")
    if external:
        yield entries.get(b"location", b"").decode()


def _fields(data: Data, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, value or where it starts, where it ends) of each field. Raises ValueError, IndexError."""
    while position < end:
        head, position = _varint(data, position)
        wire = head & 7
        value, stop = position, position
        if wire == _VARINT:
            value, stop = _varint(data, position)
        elif wire == _BYTES:
            length, value = _varint(data, position)
            stop = value + length
        elif wire in (_FIXED64, _FIXED32):
            stop = position + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if stop > end:
            raise ValueError(f"field {head >> 3} at byte {position} ends beyond its message")
        yield head >> 3, wire, value, stop
        position = stop


def _varint(data: Data, position: int) -> tuple[int, int]:
    """The number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {position}")
