"""The number formats of the emulated card: blocks of values that share an exponent, written as one short text.

`bfp(m=3,e=8,b=16)`: one sign and m bits of magnitude for each value, e bits of exponent for b values. The rules, for a
block with the largest magnitude M, 2^E <= M < 2^(E+1), on the grid s = 2^(E-(m-1)):

- q = round(x / s), clamped to -(2^m - 1) .. 2^m - 1; the block's values are q * s, zeros are +0.
- rounding: `even` (ties to even), `away` (ties away from zero), `floor` (of the magnitude, as microxcaling has it).
- on_carry, for M that rounds up to 2^m: `saturate` clamps it, `bump` takes E + 1 for the whole block.
- e=8: E from -127 to 127, a block above is NaN. e=5: E from -14 to 15, a block below is zero, one above takes
  E = 15 and is clamped; that rule is our guess, see `BlockFloat.remark`. Both after a bump.
- codes: `symmetric`, or `twos-complement`, which has -2^m too (MXINT8's -2.0).
- float32 subnormals count as zero. A block that holds an infinity or a NaN becomes NaN.

Blocks lie along the axis that is summed over. A convolution's: `channel`, the input channels of each tap by
themselves; `im2col`, all that one output sums in one row, channels fastest ([kh, kw, C] flattened). With groups each
group's channels by themselves. The last block may be shorter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from accelserve.backends.fpga_emulator.mx_formats import ELEMENTS, MX_BLOCK, MxElement
from accelserve.errors import Kind, ScoringError

Rounding = Literal["even", "away", "floor"]
OnCarry = Literal["saturate", "bump"]
Axis = Literal["channel", "im2col"]
Codes = Literal["symmetric", "twos-complement"]
Elementwise = Literal["fp32", "fp16", "bf16"]
Overflow = Literal["ieee", "saturate"]

EXPONENT_BITS = (5, 8)
LARGEST_MANTISSA = 15  # with the sign 16 bits; float32 arithmetic emulates up to 22
LARGEST_BLOCK = 1 << 16
_NOT_PUBLIC = (
    "Brainwave-like: the rounding and the exponent range of the original's 5-bit exponents are not public; assumed are "
    "a bias of 15, blocks below 2^-14 flushed to zero, and blocks above 2^15 saturated"
)


@dataclass(frozen=True, slots=True)
class Fp32:
    """Nothing is quantized."""

    axis: Axis = "channel"

    def __str__(self) -> str:
        return "fp32"

    @property
    def remark(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class BlockFloat:
    """mantissa: bits of magnitude, without the sign. exponent: bits of the shared one. block: how many share it."""

    mantissa: int
    exponent: int = 8
    block: int = 16
    rounding: Rounding = "even"
    on_carry: OnCarry = "saturate"
    axis: Axis = "channel"
    codes: Codes = "symmetric"

    def __post_init__(self) -> None:
        """Raises ScoringError(INVALID) naming the field, what is wanted and what was given."""
        _within("mantissa (m)", self.mantissa, 1, LARGEST_MANTISSA)
        if self.exponent not in EXPONENT_BITS:
            raise _refused("exponent (e)", "5 or 8 bits", self.exponent)
        _within("block (b)", self.block, 1, LARGEST_BLOCK)
        for field, choices in _CHOICES.items():
            _one_of(field, getattr(self, field), choices)

    def __str__(self) -> str:
        return f"bfp(m={self.mantissa},e={self.exponent},b={self.block}{_differing(self, _CHOICES)})"

    def packed_bits(self, run: int) -> int:
        """Of so many values in a row, the last block shorter."""
        return run * (1 + self.mantissa) + -(-run // self.block) * self.exponent

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.mantissa) - 1

    @property
    def exponent_range(self) -> tuple[int, int]:
        """(least, most) of E."""
        return (-127, 127) if self.exponent == 8 else (-14, 15)

    @property
    def remark(self) -> str:
        """What whoever trusts the numbers should know, "" when the format's rules are public."""
        return _NOT_PUBLIC if self.exponent == 5 else ""


@dataclass(frozen=True, slots=True)
class MxFloat:
    """An OCP Microscaling format of floats: 32 values share a power of two (E8M0), each a small float of its own.

    The scale is 2^(E - emax), from 2^-127; elements are rounded to nearest even and saturated (OCP MX 1.0, 5 and 6.3).
    """

    element: MxElement
    axis: Axis = "channel"

    def __post_init__(self) -> None:
        _one_of("axis", self.axis, _CHOICES["axis"])

    def __str__(self) -> str:
        differing = _differing(self, {"axis": _CHOICES["axis"]})
        return f"{self.element.name}({differing[1:]})" if differing else self.element.name

    @property
    def block(self) -> int:
        return MX_BLOCK

    def packed_bits(self, run: int) -> int:
        """Of so many values in a row, the last block shorter."""
        return run * (1 + self.element.exponent + self.element.mantissa) + -(-run // MX_BLOCK) * 8

    @property
    def remark(self) -> str:
        return ""


Format = Fp32 | BlockFloat | MxFloat


@dataclass(frozen=True, slots=True)
class Numerics:
    """How the emulated card computes.

    elementwise: every result of an element-wise unit (convolution with bias, sums, activations) is rounded to this.
    fp16_overflow: what is beyond 65504 becomes an infinity (`ieee`) or 65504 (`saturate`).
    """

    format: Format
    elementwise: Elementwise = "fp32"
    fp16_overflow: Overflow = "ieee"

    def __post_init__(self) -> None:
        _one_of("elementwise", self.elementwise, get_args(Elementwise))
        _one_of("fp16_overflow", self.fp16_overflow, get_args(Overflow))

    def __str__(self) -> str:
        """The label that answers carry: `bfp(m=3,e=8,b=16)`, `bfp(m=3,e=8,b=16)+fp16`."""
        saturated = "-saturate" if (self.elementwise, self.fp16_overflow) == ("fp16", "saturate") else ""
        return str(self.format) if self.elementwise == "fp32" else f"{self.format}+{self.elementwise}{saturated}"


_CHOICES: Mapping[str, tuple[str, ...]] = {  # the first is the default
    "rounding": get_args(Rounding),
    "on_carry": get_args(OnCarry),
    "axis": get_args(Axis),
    "codes": get_args(Codes),
}


def _block_float(text: str, given: dict[str, str]) -> BlockFloat:
    _known("bfp", given, (*_BITS, *_CHOICES))
    if missing := [f"{field} ({key})" for key, field in _BITS.items() if key not in given]:
        raise _refused("format", f"{', '.join(missing)} too, as in bfp(m=3,e=8,b=16)", text)
    numbers = {field: _number(f"{field} ({key})", given[key]) for key, field in _BITS.items()}
    return BlockFloat(**numbers, **{key: word for key, word in given.items() if key in _CHOICES})  # type: ignore[arg-type]


def _fields(text: str, inside: str) -> dict[str, str]:
    """`m=3, e=8` -> {"m": "3", "e": "8"}"""
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in inside.split(","))):
        key, equals, word = (piece.strip() for piece in part.partition("="))
        if not (key and equals and word):
            raise _refused("format", "fields of the form key=value, divided by commas", text)
        if key in given:
            raise _refused(key, "one value", f"two in {text}")
        given[key] = word
    return given


def _known(name: str, given: Mapping[str, str], known: tuple[str, ...]) -> None:
    if unknown := [key for key in given if key not in known]:
        wanted = f"a field of {name}: {', '.join(known)}" if known else f"no field, {name} has none"
        raise _refused(unknown[0], wanted, f"{unknown[0]}={given[unknown[0]]}")


def _number(field: str, word: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", word):
        raise _refused(field, "a whole number", word)
    return int(word)


def _within(field: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise _refused(field, f"a whole number from {least} to {most}", value)


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _refused(field, " or ".join(choices), value)


def _refused(field: str, wanted: str, got: object) -> ScoringError:
    return ScoringError(Kind.INVALID, f"number format: {field}: want {wanted}, got {got}")


def _differing(value: object, choices: Mapping[str, tuple[str, ...]]) -> str:
    """`,rounding=away` for what is not the default."""
    words = {field: getattr(value, field) for field in choices}
    return "".join(f",{field}={word}" for field, word in words.items() if word != choices[field][0])


_BITS = {"m": "mantissa", "e": "exponent", "b": "block"}
PRESETS: Mapping[str, Format] = {
    "fp32": Fp32(),
    **{f"msfp{bits}": BlockFloat(mantissa=bits - 9) for bits in range(11, 17)},
    "brainwave-a10": BlockFloat(mantissa=5, exponent=5, block=128),
    "brainwave-s10": BlockFloat(mantissa=2, exponent=5, block=400),
    "mxint8": BlockFloat(mantissa=7, exponent=8, block=MX_BLOCK),
    **{name: MxFloat(element) for name, element in ELEMENTS.items()},
}


def parse_format(text: str) -> Format:
    """`bfp(m=3,e=8,b=16)`, a preset, or a preset with options: `msfp12(rounding=away)`; `str` of a format is its text.

    Raises ScoringError(INVALID) naming the field, what is wanted and what was given.
    """
    if not isinstance(text, str) or not (parts := re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)):
        raise _refused("format", f"bfp(m=3,e=8,b=16) or one of {', '.join(PRESETS)}", text)
    name, inside = parts[1].lower(), parts[2]
    given = _fields(text, inside or "")
    if name == "bfp":
        return _block_float(text, given)
    if name not in PRESETS:
        raise _refused("format", f"bfp(m=3,e=8,b=16) or one of {', '.join(PRESETS)}", text)
    preset = PRESETS[name]
    options = {BlockFloat: tuple(_CHOICES), MxFloat: ("axis",), Fp32: ()}[type(preset)]
    _known(name, given, options)
    return replace(preset, **given)  # type: ignore[arg-type]
