"""Activations in the emulated card's formats, in standard operators: arithmetic whose rounding does the work.

For blocks along axis 2 of x, M the largest magnitude of each, all in float32 with round-to-nearest-even:

- the unit in the first place (Rump, Ogita, Oishi 2008), scaled so that it can neither overflow nor miss the smallest
  normal number: q = M * (1 + 2^-23), U = q - q * (1 - 2^-24) is 2^(E-23) for 2^E <= M < 2^(E+1), 0 for a subnormal M;
  Tried for every float32: the two largest give NaN, all others what they should;
- (x + C) - C with C = 1.5 * 2^(24-m) * 2^E rounds x to even on the grid 2^(E-(m-1)), since the sum's last bit is that.

A block whose U is 0 is clamped to 0. M from 2^(104+m) on has no finite C: with 8 bits of exponent such blocks become
NaN, which is loud where a wrong number would not be. Subnormal values beside normal ones are flushed only where the
grid is coarser than they are: always but in blocks whose M is below 2^(m-126).
"""

from dataclasses import dataclass

from accelserve.backends.fpga_emulator.formats import BlockFloat, MxFloat
from accelserve.backends.fpga_emulator.rewrite_graph import Graph

_UNIT = 2.0**23  # 2^E / U
_SUM, _DIFFERENCE = 1 + 2.0**-23, 1 - 2.0**-24


@dataclass(frozen=True, slots=True)
class Blocked:
    """x: values with the blocks along axis 2. unsigned: never below 0. stem: what new values are called by."""

    x: str
    unsigned: bool
    stem: str


def quantized(graph: Graph, blocked: Blocked, format: BlockFloat | MxFloat) -> str:
    """Same shape as `blocked.x`."""
    magnitude = blocked.x if blocked.unsigned else graph.add("Abs", [blocked.x], f"{blocked.stem}/magnitude")
    largest = reduce_max(graph, magnitude, f"{blocked.stem}/largest")
    if isinstance(format, MxFloat):
        return _mx(graph, blocked, magnitude, _unit(graph, largest, blocked.stem), format)
    if (
        format.exponent == 5
    ):  # half of the sum reaches the largest numbers, which saturate; small ones are flushed anyhow
        unit = _times(graph, _unit(graph, largest, blocked.stem, _SUM / 2), 2.0, f"{blocked.stem}/unit")
    else:
        unit = _unit(graph, largest, blocked.stem)
    unit = _in_range(graph, _bumped(graph, largest, unit, blocked.stem, format), blocked.stem, format)
    if format.rounding == "even":
        return _round_even(graph, blocked, unit, format)
    return _round_codes(graph, blocked, magnitude, unit, format)


def least_steps(graph: Graph, largest: str, stem: str, format: BlockFloat | MxFloat) -> str:
    """The finest step that values of a quantized block are multiples of; largest: their largest magnitude."""
    unit = _unit(graph, largest, stem)
    if isinstance(format, MxFloat):
        element = format.element
        return _times(graph, unit, _UNIT * 2.0 ** (element.emin - element.emax - element.mantissa), f"{stem}/step")
    # The code -2^m has the next exponent.
    digits = format.mantissa - 1 + (format.codes == "twos-complement")
    return _times(graph, unit, _UNIT * 2.0**-digits, f"{stem}/step")


def reduce_max(graph: Graph, x: str, output: str, axis: int = 2) -> str:
    """Over an axis, which stays with size 1."""
    if graph.opset < 18:
        return graph.add("ReduceMax", [x], output, axes=[axis], keepdims=1)
    return graph.add("ReduceMax", [x, graph.shape(axis)], output, keepdims=1)


def _times(graph: Graph, x: str, factor: float, output: str) -> str:
    return graph.add("Mul", [x, graph.number(factor)], output)


def _unit(graph: Graph, magnitude: str, stem: str, factor: float = _SUM) -> str:
    above = _times(graph, magnitude, factor, f"{stem}/above")
    below = _times(graph, above, _DIFFERENCE, f"{stem}/below")
    return graph.add("Sub", [above, below], f"{stem}/unit")


def _bumped(graph: Graph, largest: str, unit: str, stem: str, format: BlockFloat) -> str:
    """Twice the unit where the largest would be rounded up to 2^(E+1)."""
    if format.on_carry == "saturate" or format.rounding == "floor":
        return unit
    limit = _times(graph, unit, _UNIT * (2 - 2.0**-format.mantissa), f"{stem}/carry_limit")
    carries = graph.add("GreaterOrEqual", [largest, limit], f"{stem}/carries")
    return graph.add("Where", [carries, _times(graph, unit, 2.0, f"{stem}/twice"), unit], f"{stem}/bumped")


def _in_range(graph: Graph, unit: str, stem: str, format: BlockFloat) -> str:
    """Of 8 bits all that float32 has is in the range."""
    if format.exponent == 8:
        return unit
    least, most = (2.0**exponent / _UNIT for exponent in format.exponent_range)
    below = graph.add("Less", [unit, graph.number(least)], f"{stem}/below_range")
    kept = graph.add("Where", [below, graph.number(0.0), unit], f"{stem}/kept")
    return graph.add("Min", [kept, graph.number(most)], f"{stem}/in_range")


def _round_even(graph: Graph, blocked: Blocked, unit: str, format: BlockFloat) -> str:
    top = _UNIT * (2 - 2.0 ** (1 - format.mantissa))
    bottom = -2 * _UNIT if format.codes == "twos-complement" else -top
    clamped = _clamp(graph, blocked, unit, top, bottom)
    shift = _times(graph, unit, 1.5 * 2.0 ** (24 - format.mantissa) * _UNIT, f"{blocked.stem}/shift")
    return _shifted(graph, clamped, shift, blocked.stem)


def _clamp(graph: Graph, blocked: Blocked, unit: str, top: float, bottom: float) -> str:
    """Before rounding, which keeps what is on the grid already."""
    stem = blocked.stem
    clamped = graph.add("Min", [blocked.x, _times(graph, unit, top, f"{stem}/top")], f"{stem}/below_top")
    if blocked.unsigned:
        return clamped
    return graph.add("Max", [clamped, _times(graph, unit, bottom, f"{stem}/bottom")], f"{stem}/clamped")


def _shifted(graph: Graph, x: str, shift: str, stem: str) -> str:
    return graph.add("Sub", [graph.add("Add", [x, shift], f"{stem}/shifted"), shift], f"{stem}/rounded")


def _round_codes(graph: Graph, blocked: Blocked, magnitude: str, unit: str, format: BlockFloat) -> str:
    """Ties away, or down: codes as whole numbers. floor(x + 1/2) as floor((floor(2x) + 1) / 2): its sums are exact."""
    stem = blocked.stem
    away = format.rounding == "away"
    step = _times(graph, unit, _UNIT * 2.0 ** (1 - format.mantissa), f"{stem}/step")
    divisor = _times(graph, step, 0.5, f"{stem}/half_step") if away else step
    safe = graph.add("Max", [divisor, graph.number(2.0**-149)], f"{stem}/divisor")
    codes = graph.add("Floor", [graph.add("Div", [magnitude, safe], f"{stem}/scaled")], f"{stem}/codes")
    if away:
        more = graph.add("Add", [codes, graph.number(1.0)], f"{stem}/one_more")
        codes = graph.add("Floor", [_times(graph, more, 0.5, f"{stem}/halved")], f"{stem}/codes")
    if not blocked.unsigned:
        codes = graph.add("Mul", [codes, graph.add("Sign", [blocked.x], f"{stem}/sign")], f"{stem}/codes")
    least = -format.top - (format.codes == "twos-complement")
    limits = [graph.number(least), graph.number(format.top)]
    return graph.add("Mul", [graph.add("Clip", [codes, *limits], f"{stem}/codes"), step], f"{stem}/rounded")


def _mx(graph: Graph, blocked: Blocked, magnitude: str, unit: str, format: MxFloat) -> str:
    """Each element on the grid of its own exponent, or of the smallest normal one; the scale not below 2^-127."""
    stem, element = blocked.stem, format.element
    least = 2.0 ** (element.emax - 127) / _UNIT
    empty = graph.add("Equal", [unit, graph.number(0.0)], f"{stem}/empty")
    floored = graph.add("Max", [unit, graph.number(least)], f"{stem}/floored")
    unit = graph.add("Where", [empty, graph.number(0.0), floored], f"{stem}/scale")
    top = _UNIT * element.largest * 2.0**-element.emax
    clamped = _clamp(graph, blocked, unit, top, -top)
    factor = 1.5 * 2.0 ** (23 - element.mantissa) * _UNIT
    own = _times(graph, _unit(graph, magnitude, f"{stem}/own"), factor, f"{stem}/own/shift")
    smallest = _times(graph, unit, factor * 2.0 ** (element.emin - element.emax), f"{stem}/smallest_shift")
    return _shifted(graph, clamped, graph.add("Max", [own, smallest], f"{stem}/shift"), stem)
