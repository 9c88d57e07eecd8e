"""Block floating point and the OCP MX formats, slowly and in integers: the definition that the emulator is held to.

Written from the formats' definition (docs/fpga_numerics.md, whose rule numbers are cited below) and from nothing else:
every number is a whole mantissa times a power of two, cut out of the bit pattern of an fp32. No logarithm, no division,
no rounding is left to floating point.

    x = significand * 2**lsb                  any finite fp32; significand is whole, below 2**24
    block = mantissas * 2**step               whole mantissas, one step for the block
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
SIGNIFICAND_BITS = 24  # of an fp32, the hidden one counted
SMALLEST_NORMAL = 2.0**-126
NEVER = -(2**20)  # a shift far beyond all bits


@dataclass(frozen=True, slots=True)
class Bfp:
    """Sign and `mantissa` bits for each value, one exponent of `exponent` bits for `block` values.

    rounding: "even", "away" (both to nearest; ties to even, or away from zero), "floor" (of the magnitude).
    on_carry: what becomes of a largest value that rounds up to a power of two: "saturate" or "bump" the exponent.
    has_lowest_code: mantissas go down to -2**mantissa, as two's complement has it (MXINT8's -2.0).
    """

    mantissa: int
    exponent: int
    block: int
    rounding: Literal["even", "away", "floor"] = "even"
    on_carry: Literal["saturate", "bump"] = "saturate"
    has_lowest_code: bool = False

    @property
    def largest(self) -> int:
        return 2**self.mantissa - 1

    @property
    def lowest(self) -> int:
        return -self.largest - (1 if self.has_lowest_code else 0)

    @property
    def exponents(self) -> tuple[int, int]:
        """The shared exponents that can be stored, lowest and highest (rule 7): 8 bits -126..127, 5 bits -14..15."""
        return 2 - 2 ** (self.exponent - 1), 2 ** (self.exponent - 1) - 1


@dataclass(frozen=True, slots=True)
class Mx:
    """Floats of `fraction` bits behind a scale 2**X, -127 <= X <= 127, that `block` values share (OCP MX v1.0).

    smallest, emax: the exponents of the smallest and the largest normal element. largest: the largest element.
    """

    fraction: int
    smallest: int
    emax: int
    largest: float
    block: int = 32


FORMATS: dict[str, Bfp | Mx] = {  # the brainwave ones are what is public, filled up by assumption
    "msfp11": Bfp(2, 8, 16),
    "msfp12": Bfp(3, 8, 16),
    "msfp13": Bfp(4, 8, 16),
    "msfp14": Bfp(5, 8, 16),
    "msfp15": Bfp(6, 8, 16),
    "msfp16": Bfp(7, 8, 16),
    "brainwave-a10": Bfp(5, 5, 128),
    "brainwave-s10": Bfp(2, 5, 400),
    "mxint8": Bfp(7, 8, 32),  # scale 2**E, elements of 1/64: the same grid; -2.0 unused, as in microxcaling
    "mxfp8_e4m3": Mx(fraction=3, smallest=-6, emax=8, largest=448),
    "mxfp8_e5m2": Mx(fraction=2, smallest=-14, emax=15, largest=57344),
    "mxfp6_e3m2": Mx(fraction=2, smallest=-2, emax=4, largest=28),
    "mxfp6_e2m3": Mx(fraction=3, smallest=0, emax=2, largest=7.5),
    "mxfp4_e2m1": Mx(fraction=1, smallest=0, emax=2, largest=6),
}
MXINT8_WITH_LOWEST_CODE = Bfp(7, 8, 32, has_lowest_code=True)


@dataclass(frozen=True, slots=True)
class Blocks:
    """mantissas: int64 [..., blocks, block]; steps: int64 [..., blocks]; undefined: bool [..., blocks], NaN all over.

    The value of an element is mantissa * 2**step. length: of the last axis before it was cut into blocks.
    """

    mantissas: Integers
    steps: Integers
    undefined: NDArray[np.bool_]
    length: int

    def values(self) -> Floats:
        """float32 [..., length]. Exact; but MXINT8's -2.0 at the largest scale, -2**128, is fp32's minus infinity."""
        wide = np.ldexp(self.mantissas.astype(np.float64), self.steps[..., None])
        wide[self.undefined] = np.nan
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32)
        assert np.all((narrow == wide) | ~np.isfinite(narrow)), "a value of the format that fp32 does not have"
        return narrow.reshape(*self.steps.shape[:-1], -1)[..., : self.length]


def quantize(values: Floats, form: Bfp | Mx) -> Blocks:
    """Cut the last axis into blocks and round them. A short tail is a smaller block, which is one filled with zeros.

    Rule 8: subnormals count as zero; a block that holds a NaN or an infinity is undefined as a whole.
    """
    width = min(form.block, values.shape[-1])
    missing = -values.shape[-1] % width
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    blocks = padded.reshape(*values.shape[:-1], -1, width)
    finite = np.isfinite(blocks).all(axis=-1)
    counted = finite[..., None] & (np.abs(blocks) >= SMALLEST_NORMAL)
    blocks = np.where(counted, blocks, np.float32(0))
    rounded = _quantize_bfp(blocks, form) if isinstance(form, Bfp) else _quantize_mx(blocks, form)
    mantissas, steps, representable = rounded
    return Blocks(mantissas, steps, ~(finite & representable), values.shape[-1])


def quantize_axis(values: Floats, form: Bfp | Mx, axis: int) -> Floats:
    """The values of `quantize` along any axis."""
    turned = np.moveaxis(values, axis, -1)
    return np.moveaxis(quantize(turned, form).values(), -1, axis)


def fields(values: Floats) -> tuple[Integers, Integers, Integers]:
    """An fp32's bits: sign 1 or -1, whole significand, exponent of its last bit: sign * significand * 2**lsb."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.int64)
    sign = 1 - 2 * (bits >> 31)
    field = bits >> 23 & 0xFF
    fraction = bits & 0x7FFFFF
    significand = np.where(field == 0, fraction, fraction + 2**23)
    lsb = np.maximum(field, 1) - 150
    return sign, significand, lsb


def floor_log2(significand: Integers, lsb: Integers) -> Integers:
    """floor(log2(significand * 2**lsb)); of a zero as low as that of nothing else."""
    length = sum((significand >> bit > 0).astype(np.int64) for bit in range(SIGNIFICAND_BITS))
    return np.where(length == 0, NEVER, length - 1 + lsb)


def shift_and_round(significand: Integers, places: Integers, rounding: str) -> Integers:
    """significand * 2**-places, rounded to whole numbers. Where places < 0 it is multiplied, by at most 2**38."""
    right = np.clip(places, 0, 62)
    whole = significand >> right << np.clip(-places, 0, 38)
    rest = significand - (significand >> right << right)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 1)  # where nothing is shifted out, rest is 0
    if rounding == "even":
        up = (rest > half) | ((rest == half) & (whole % 2 == 1))
    elif rounding == "away":
        up = rest >= half
    else:
        up = np.zeros_like(rest, bool)
    return whole + up


def _quantize_bfp(blocks: Floats, form: Bfp) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Rules 3 to 8. Returns mantissas, steps, and whether the exponent could be stored."""
    sign, significand, lsb = fields(blocks)
    shared = floor_log2(significand, lsb).max(axis=-1)  # rule 3: floor(log2(max|x|))
    if form.on_carry == "bump":  # rule 5, the variant: the largest would not fit after rounding
        shared = shared + (_rounded(significand, lsb, shared, form).max(axis=-1) > form.largest)
    lowest, highest = form.exponents
    flushed = shared < lowest  # rules 7 and 8: below 2**-14 (5 bits), zero blocks
    storable = shared <= highest
    if form.exponent < 8:  # rule 7: larger blocks saturate
        shared, storable = np.minimum(shared, highest), np.ones_like(storable)
    shared = np.where(flushed, 0, shared)
    mantissas = np.clip(sign * _rounded(significand, lsb, shared, form), form.lowest, form.largest)  # rule 5
    mantissas[flushed] = 0
    return mantissas, shared - (form.mantissa - 1), storable


def _rounded(significand: Integers, lsb: Integers, shared: Integers, form: Bfp) -> Integers:
    """Rule 4: |x| in steps of 2**(E - (m - 1)), so that the largest value uses all m bits."""
    step = shared - (form.mantissa - 1)
    return shift_and_round(significand, step[..., None] - lsb, form.rounding)


def _quantize_mx(blocks: Floats, form: Mx) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """OCP MX v1.0, 6.3: scale 2**(floor(log2(max|x|)) - emax); elements to nearest even, saturated, with subnormals.

    The mantissas count the finest step of the element format, so that one step serves the block.
    """
    sign, significand, lsb = fields(blocks)
    exponent = floor_log2(significand, lsb)
    scale = np.clip(exponent.max(axis=-1) - form.emax, -127, 127)
    element_exponent = np.maximum(exponent - scale[..., None], form.smallest)  # subnormals keep the smallest's step
    element_step = element_exponent - form.fraction
    whole = shift_and_round(significand, element_step + scale[..., None] - lsb, "even")
    finest = form.smallest - form.fraction
    magnitude = whole << np.clip(element_step - finest, 0, 34)
    largest = int(form.largest * 2.0**-finest)
    mantissas = sign * np.minimum(magnitude, largest)
    return mantissas, scale + finest, np.ones(scale.shape, bool)
