"""Weights in the emulated card's formats: vectorised, offline, in float64 where every step but the rounding is exact.

The rules are those of `formats`; the values stay what they mean, float32 numbers on a coarse grid.
"""

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.fpga_emulator.formats import BlockFloat, Format, Fp32, MxFloat
from accelserve.backends.fpga_emulator.mx_formats import MxElement

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_PIECE = 1 << 16  # values at once: in float64 they stay in a core's own cache, which is five times as fast
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
    """[rows, blocks, values]; every array of that size is worked on in place."""
    magnitudes = np.abs(blocks)
    largest = magnitudes.max(axis=-1, keepdims=True)
    finite = np.isfinite(largest)
    x = (blocks if finite.all() else np.where(finite, blocks, 0)).astype(np.float64)
    x[magnitudes < np.finfo(np.float32).tiny] = 0
    largest = np.where(finite & (largest >= np.finfo(np.float32).tiny), largest, 0).astype(np.float64)
    if isinstance(format, BlockFloat):
        _block_float(x, largest, format)
    else:
        _mx(x, np.frexp(largest)[1] - 1, format.element)
    x += 0.0  # no -0
    quantized = x.astype(np.float32)
    quantized[~finite[..., 0]] = np.nan
    return quantized


def _block_float(x: Doubles, largest: Doubles, format: BlockFloat) -> None:
    """largest: of each block, [..., 1]."""
    top, bits = format.top, format.mantissa - 1
    exponent = np.frexp(largest)[1] - 1
    if format.on_carry == "bump":
        code = np.ldexp(largest, bits - exponent)
        _round(code, format)
        exponent = exponent + (code > top)
    least, most = format.exponent_range
    kept = np.clip(exponent, least, most)
    x *= np.ldexp(1.0, bits - kept)
    _round(x, format)
    np.clip(x, -top - (format.codes == "twos-complement"), top, out=x)
    out_of_range = (0.0, exponent < least) if format.exponent == 5 else (np.nan, exponent > most)
    x *= np.where(out_of_range[1], out_of_range[0], np.ldexp(1.0, kept - bits))


def _round(codes: Doubles, format: BlockFloat) -> None:
    if format.rounding == "even":
        np.rint(codes, out=codes)
    elif format.rounding == "floor":
        np.trunc(codes, out=codes)
    else:
        codes += np.copysign(0.5, codes)
        np.trunc(codes, out=codes)


def _mx(x: Doubles, exponent: NDArray[np.int32], element: MxElement) -> None:
    """exponent: of the largest magnitude of each block, [..., 1]."""
    scale = np.maximum(exponent - element.emax, _LEAST_SCALE)
    x *= np.ldexp(1.0, -scale)
    step = np.ldexp(1.0, np.maximum(np.frexp(x)[1] - 1, element.emin) - element.mantissa)
    x /= step
    np.rint(x, out=x)
    x *= step
    np.clip(x, -element.largest, element.largest, out=x)
    x *= np.ldexp(1.0, scale)
