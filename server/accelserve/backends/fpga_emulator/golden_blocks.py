"""Blocks whose values in a format are known from whole numbers alone: ties, carries, powers of two, zeros, extremes.

A block's values are whole multiples k of a unit, an eighth of the finest grid step; what k becomes is division with a
remainder. No float is rounded here, so that this shares no arithmetic with the rewrite.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.fpga_emulator.formats import BlockFloat, MxFloat

_EIGHTH = 3  # bits below the finest step
_FEW = 24  # blocks for each exponent
_EXPONENTS = {8: (0, -90, 90), 5: (0, -14, 15, -15, -40, 16, 40)}


@dataclass(frozen=True, slots=True)
class GoldenBlocks:
    """given, wanted: float32 [values of a block, blocks]."""

    given: NDArray[np.float32]
    wanted: NDArray[np.float32]


def golden_blocks(format: BlockFloat | MxFloat, unsigned: bool = False) -> GoldenBlocks:
    """The largest value of every block lies between 2^t and 2^(t+1), for several t. unsigned: none is below zero."""
    if isinstance(format, MxFloat):
        digits = _mx_digits(format)
        exponents: tuple[int, ...] = (0, -60, 60)
    else:
        digits, exponents = format.mantissa - 1 + _EIGHTH, _EXPONENTS[format.exponent]
    blocks = [[abs(k) if unsigned else k for k in block] for block in _blocks(digits, format)]
    given = [np.ldexp(np.array(block, np.float64), t - digits) for t in exponents for block in blocks]
    wanted = [_wanted(block, t, digits, format) for t in exponents for block in blocks]
    return GoldenBlocks(np.array(given, np.float32).T, np.array(wanted, np.float32).T)


def _blocks(digits: int, format: BlockFloat | MxFloat) -> Iterator[list[int]]:
    """Whole numbers, the first from 2^digits and all below 2^(digits + 1); at last a block of zeros."""
    one = 1 << digits
    leaders: tuple[int, ...] = (one, 2 * one - 1, 2 * one - 4, one + one // 2, -one, 4 - 2 * one)
    if isinstance(format, MxFloat):
        leaders = (one, 2 * one - (one >> 6), one + one // 2, -one, (one >> 4) - 2 * one)
        followers = list(_steps_of_floats(digits, format))
    else:
        followers = [sign * k for code in range(1 << min(format.mantissa, 5)) for k, sign in _around(8 * code)]
        followers += [sign * (2 * one - k) for k in (1, 3, 4, 5, 12) for sign in (1, -1)]
    rest = cycle(followers)
    for leader in islice(cycle(leaders), _FEW):
        yield [leader, *islice(rest, format.block - 1)]
    yield [0] * format.block


def _around(k: int) -> tuple[tuple[int, int], ...]:
    """A step, just below the tie after it, the tie, just above; with signs."""
    return (k, 1), (k + 3, -1), (k + 4, 1), (k + 4, -1), (k + 5, 1)


def _steps_of_floats(digits: int, format: MxFloat) -> Iterator[int]:
    """Ties of normal and subnormal elements, in every other binade."""
    for shift in range(0, digits - format.element.mantissa - _EIGHTH, 2):
        for code in range(2 << format.element.mantissa):
            yield from (sign * (k << shift) for k, sign in _around(8 * code) if k << shift < 1 << digits)


def _mx_digits(format: MxFloat) -> int:
    """Of the largest binade above the unit: the elements' own exponents take part."""
    element = format.element
    return element.emax - element.emin + element.mantissa + _EIGHTH


def _wanted(block: Sequence[int], t: int, digits: int, format: BlockFloat | MxFloat) -> list[float]:
    if isinstance(format, MxFloat):
        return [_times_power(_mx_units(k, digits, format), t - digits) for k in block]
    exponent = t
    carried = _code(max(map(abs, block)), 8, format.rounding) > format.top
    if carried and format.on_carry == "bump":
        exponent += 1
    least, most = format.exponent_range
    if exponent < least:
        return [0.0] * len(block)
    exponent = min(exponent, most)
    codes = [_signed(k, t - exponent, format) for k in block]
    return [_times_power(code, exponent - (format.mantissa - 1)) for code in codes]


def _signed(k: int, above: int, format: BlockFloat) -> int:
    """The code of k * 2^above eighths of a step; above is -1 after a bump."""
    code = _code(abs(k) << (above + 1), 16, format.rounding)
    if k < 0:
        return -min(code, format.top + (format.codes == "twos-complement"))
    return min(code, format.top)


def _code(k: int, step: int, rounding: str) -> int:
    code, rest = divmod(k, step)
    if rounding == "floor":
        return code
    tie = code % 2 == 1 or rounding == "away"
    return code + (2 * rest > step or (2 * rest == step and tie))


def _mx_units(k: int, digits: int, format: MxFloat) -> int:
    """The element nearest to k, in units."""
    element = format.element
    own = max(abs(k).bit_length() - 1, element.mantissa + _EIGHTH)
    step = 1 << (own - element.mantissa)
    largest = int(element.largest * 2**4) << (digits - element.emax) >> 4
    nearest = min(_code(abs(k), step, "even") * step, largest)
    return -nearest if k < 0 else nearest


def _times_power(whole: int, exponent: int) -> float:
    return whole * 2.0**exponent
