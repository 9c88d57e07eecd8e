"""How long a card would take: a model of its tiles, never a measurement.

A Brainwave-style matrix-vector unit has tiles of native_dim x lanes multipliers; a layer's weights are cut into
native_dim x native_dim tiles, and one position of its output takes a pass over them (specs/fpga.md 4.3; the tile
parameters are those of the ISCA 2018 paper as remembered, and the calibration is one factor against one published
latency, so the result is an order of magnitude and no promise).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

LAYOUTS = ("packed", "aligned", "ideal")
_NS = 1e9


@dataclass(frozen=True, slots=True)
class LayerWork:
    """A layer's work for one row. positions: how many outputs of each channel; summed: values in one sum; taps: of the
    kernel; groups: that the channels fall into, outputs and summed being those of one."""

    name: str
    positions: int
    outputs: int
    summed: int
    taps: int = 1
    groups: int = 1

    @property
    def macs(self) -> int:
        return self.positions * self.outputs * self.summed * self.groups


@dataclass(frozen=True, slots=True)
class Card:
    """tiles x native_dim x lanes multipliers at clock_hz.

    packing: "packed", all that is summed lies in one row of tiles; "aligned", each tap of a kernel begins a new tile;
    "ideal", no tile has a gap. calibration: factor on the computing time. overhead_s: of every call, link_bytes_per_s:
    of what moves to and from the card.
    """

    tiles: int
    native_dim: int
    lanes: int
    clock_hz: float
    packing: str = "packed"
    calibration: float = 1.8
    overhead_s: float = 20e-6
    link_bytes_per_s: float = 8e9

    def run_ns(self, layers: Iterable[LayerWork], moved_bytes: int) -> int:
        """One row's time. moved_bytes: of inputs and outputs."""
        cycles = sum(self._cycles(layer) for layer in layers)
        compute_s = cycles / self.clock_hz * self.calibration
        return round((compute_s + self.overhead_s + moved_bytes / self.link_bytes_per_s) * _NS)

    def _cycles(self, layer: LayerWork) -> float:
        if self.packing == "ideal":
            return layer.macs / (self.tiles * self.native_dim * self.lanes)
        across = ceil(layer.outputs / self.native_dim)
        if self.packing == "packed":
            down = ceil(layer.summed / self.native_dim)
        else:
            down = layer.taps * ceil(layer.summed / layer.taps / self.native_dim)
        passes = ceil(layer.positions * layer.groups * across * down / self.tiles)
        return passes * ceil(self.native_dim / self.lanes)


CARDS = {
    "brainwave-a10": Card(tiles=8, native_dim=128, lanes=16, clock_hz=300e6),
    "brainwave-s10": Card(tiles=6, native_dim=400, lanes=40, clock_hz=250e6),
}
