"""Weights in the emulated card's formats: vectorised, offline, in float64 where every step but the rounding is exact.

The rules are those of `formats`; the values stay what they mean, float32 numbers on a coarse grid.
"""

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.fpga_emulator.formats import BlockFloat, Format, Fp32, MxFloat
from accelserve.backends.fpga_emulator.mx_formats import MxElement

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_PIECE = 1 << 20  # values at once: eight times a piece in float64 still fits what a small machine has
_LEAST_SCALE = -127  # of E8M0


def quantize(values: Floats, format: Format, axis: int) -> Floats:
    """`values` of any shape with blocks along `axis`; the last block of a run may be shorter. A new array.

    Zeros come out as +0; a block with an infinity or a NaN as NaN.
    """
    if isinstance(format, Fp32) or not values.size:
        return np.array(values, np.float32)
    rows = np.moveaxis(np.asarray(values, np.float32), axis, -1)
    length = rows.shape[-1]
    flat = rows.reshape(-1, length)
    done = np.empty_like(flat)
    step = max(1, _PIECE // length)
    for start in range(0, len(flat), step):
        done[start : start + step] = _rows(flat[start : start + step], format)
    return np.ascontiguousarray(np.moveaxis(done.reshape(rows.shape), -1, axis))


def _rows(rows: Floats, format: BlockFloat | MxFloat) -> Floats:
    """[rows, length], blocks along the last axis: whole blocks at once, then the short one."""
    length = rows.shape[1]
    whole = length - length % format.block
    parts = [rows[:, :whole].reshape(len(rows), -1, format.block), rows[:, None, whole:]]
    return np.concatenate([_blocks(part, format).reshape(len(rows), -1) for part in parts if part.size], axis=1)


def _blocks(blocks: Floats, format: BlockFloat | MxFloat) -> Floats:
    """[rows, blocks, values]"""
    finite = np.isfinite(blocks).all(axis=-1, keepdims=True)
    x = np.where(finite & (np.abs(blocks) >= np.finfo(np.float32).tiny), blocks, 0).astype(np.float64)
    largest = np.abs(x).max(axis=-1, keepdims=True)
    exponent = np.frexp(largest)[1] - 1
    quantized = (
        _block_float(x, exponent, format) if isinstance(format, BlockFloat) else _mx(x, exponent, format.element)
    )
    quantized = np.where(largest == 0, 0.0, quantized) + 0.0  # no -0
    return np.where(finite, quantized, np.nan).astype(np.float32)


def _block_float(x: Doubles, exponent: NDArray[np.int32], format: BlockFloat) -> Doubles:
    """exponent: of the block's largest magnitude, [..., 1]."""
    top = format.top
    bits = format.mantissa - 1
    if format.on_carry == "bump":
        largest = np.abs(x).max(axis=-1, keepdims=True)
        exponent = exponent + (_round(np.ldexp(largest, bits - exponent), format) > top)
    least, most = format.exponent_range
    kept = np.clip(exponent, least, most)
    codes = _round(np.ldexp(x, bits - kept), format)
    codes = np.clip(codes, -top - (format.codes == "twos-complement"), top)
    values = np.ldexp(codes, kept - bits)
    if format.exponent == 5:
        return np.where(exponent < least, 0.0, values)
    return np.where(exponent > most, np.nan, values)


def _round(codes: Doubles, format: BlockFloat) -> Doubles:
    if format.rounding == "even":
        return np.rint(codes)
    if format.rounding == "floor":
        return np.trunc(codes)
    away: Doubles = np.copysign(np.floor(np.abs(codes) + 0.5), codes)
    return away


def _mx(x: Doubles, exponent: NDArray[np.int32], element: MxElement) -> Doubles:
    scale = np.maximum(exponent - element.emax, _LEAST_SCALE)
    scaled = np.ldexp(x, -scale)
    own = np.maximum(np.frexp(scaled)[1] - 1, element.emin)
    rounded = np.ldexp(np.rint(np.ldexp(scaled, element.mantissa - own)), own - element.mantissa)
    values: Doubles = np.ldexp(np.clip(rounded, -element.largest, element.largest), scale)
    return values
