"""Protobuf's wire format, as far as we write it by hand: varints and length-delimited fields.

Numeric tensors are written from the array's own memory; protobuf's `extend` costs 3.7 ms for 150,528 floats and its
`SerializeToString` 0.8 ms more (specs/tfserving.md, fact 6).
"""

import numpy as np
from numpy.typing import NDArray

from accelserve.tensors import Tensor

Part = bytes | memoryview  # a memoryview is of unsigned bytes, so that len() counts bytes

_BLOCK = 65_536  # values packed at once; bounds the scratch memory at 5 MB
_FEW = 32  # values that are packed sooner one by one
_SMALL_BYTES = 4096  # copying so few is cheaper than making views of them
_SEPTETS = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """`value` in base 128, low septet first; a negative one as its two's complement in 64 bits (10 bytes)."""
    if 0 <= value < 0x80:
        return _SEPTETS[value]
    value &= 2**64 - 1
    septets = bytearray()
    while value > 0x7F:
        septets.append(value & 0x7F | 0x80)
        value >>= 7
    septets.append(value)
    return bytes(septets)


def field_head(number: int, length: int) -> bytes:
    """What stands before `length` bytes of a string, message or packed field."""
    return varint(number << 3 | 2) + varint(length)


def field(number: int, payload: bytes) -> bytes:
    """A whole string, message or packed field."""
    return field_head(number, len(payload)) + payload


def packed_varints(values: Tensor) -> bytes:
    """Integers of any type and shape as one run of varints; negative ones take 10 bytes each."""
    flat = values.reshape(-1)
    if flat.size <= _FEW and flat.dtype.kind in "iu":
        return b"".join(map(varint, flat.tolist()))
    # int64 first: that is what gives a negative value its sign in all 64 bits.
    wide = flat if flat.dtype == np.uint64 else flat.astype(np.int64)
    unsigned = wide.view(np.uint64)
    return b"".join(_pack_block(unsigned[i : i + _BLOCK]) for i in range(0, unsigned.size, _BLOCK))


def _pack_block(values: NDArray[np.uint64]) -> bytes:
    """values: [n], n > 0. All septets as a table [n, width], then without those above a value's highest."""
    width = max(1, -(-int(values.max()).bit_length() // 7))
    if width == 1:
        return values.astype(np.uint8).tobytes()
    rest = values[:, None] >> np.arange(0, 7 * width, 7, dtype=np.uint64)
    kept = rest != 0
    kept[:, 0] = True  # zero still takes one byte
    septets = (rest & np.uint64(0x7F)).astype(np.uint8)
    septets[:, :-1] |= kept[:, 1:].astype(np.uint8) << 7  # "one more follows"
    packed: bytes = septets[kept].tobytes()
    return packed


def memory_of(tensor: Tensor) -> Part:
    """The elements' bytes in row order, many without a copy when they lie so; the tensor must not change meanwhile."""
    if tensor.nbytes <= _SMALL_BYTES:
        return tensor.tobytes()
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
