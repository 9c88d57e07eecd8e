"""The element formats of OCP Microscaling (MX) v1.0, table 1; MXINT8 is a block floating point of 7 bits."""

from collections.abc import Mapping
from dataclasses import dataclass

MX_BLOCK = 32


@dataclass(frozen=True, slots=True)
class MxElement:
    """name: of the MX format. exponent, mantissa: bits. emax: exponent of the largest number. largest: that number."""

    name: str
    exponent: int
    mantissa: int
    emax: int
    largest: float

    @property
    def emin(self) -> int:
        """The exponent of the smallest normal number; below it the grid stays the same."""
        return 2 - (1 << (self.exponent - 1))


ELEMENTS: Mapping[str, MxElement] = {
    element.name: element
    for element in (
        MxElement("mxfp8_e4m3", exponent=4, mantissa=3, emax=8, largest=448.0),
        MxElement("mxfp8_e5m2", exponent=5, mantissa=2, emax=15, largest=57344.0),
        MxElement("mxfp6_e3m2", exponent=3, mantissa=2, emax=4, largest=28.0),
        MxElement("mxfp6_e2m3", exponent=2, mantissa=3, emax=2, largest=7.5),
        MxElement("mxfp4_e2m1", exponent=2, mantissa=1, emax=2, largest=6.0),
    )
}
