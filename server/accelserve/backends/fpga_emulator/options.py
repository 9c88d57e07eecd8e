"""What `[backend]` of a model's file says to the emulated card: checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from accelserve.backends.fpga_emulator.formats import Format, Numerics, parse_format
from accelserve.backends.fpga_emulator.latency_model import CARDS, LAYOUTS, Card
from accelserve.errors import Kind, ScoringError

DEFAULT_FORMAT = "msfp12"
_NUMBERS = {  # of a Card, by the setting's name -> (field, how many of the setting's unit make one of the field's)
    "tiles": ("tiles", 1),
    "native_dim": ("native_dim", 1),
    "lanes": ("lanes", 1),
    "clock_mhz": ("clock_hz", 1e6),
    "calibration": ("calibration", 1),
    "overhead_us": ("overhead_s", 1e-6),
    "link_gb_per_s": ("link_bytes_per_s", 1e9),
}
_WHOLE = ("tiles", "native_dim", "lanes")


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """The keys of `[backend]`; docs/fpga.md has them for the operator.

    numerics: `format`, `elementwise`, `fp16_overflow`. max_batch: rows of one run, as a card's. flash_s: how long
    programming the card takes. card: whose time is modelled. pace: answers wait for the modelled time.
    device_outputs: where the device ends in a plain ONNX file.
    """

    numerics: Numerics
    card: Card
    max_batch: int = 1
    flash_s: float = 0.0
    pace: bool = False
    device_outputs: tuple[str, ...] = ()


def read_options(model: str, extra: Mapping[str, Any]) -> EmulatorOptions:
    """Raises ScoringError(INVALID) for an unknown key, and for a value that does not fit it."""
    given = dict(extra)
    try:
        numerics = _numerics(given)
        card = _card(given)
        rest: dict[str, Any] = {}
        for key in ("max_batch", "flash_s", "pace", "device_outputs"):
            if key in given:
                rest[key] = _checked(key, given.pop(key))
        if given:
            unknown, known = next(iter(given)), ", ".join(SETTINGS)
            raise ScoringError(Kind.INVALID, f'the FPGA emulator has no setting "{unknown}"; it has {known}')
    except ScoringError as error:
        raise ScoringError(Kind.INVALID, f"{model}: {error.message}") from error
    return EmulatorOptions(numerics, card, **rest)


def _numerics(given: dict[str, Any]) -> Numerics:
    format: Format = parse_format(given.pop("format", DEFAULT_FORMAT))
    return Numerics(format, given.pop("elementwise", "fp32"), given.pop("fp16_overflow", "ieee"))


def _card(given: dict[str, Any]) -> Card:
    name = given.pop("card", next(iter(CARDS)))
    if name not in CARDS:
        raise _refused("card", " or ".join(CARDS), name)
    layout = given.pop("packing", CARDS[name].packing)
    if layout not in LAYOUTS:
        raise _refused("packing", " or ".join(LAYOUTS), layout)
    changes: dict[str, Any] = {"packing": layout}
    for key, (field, unit) in _NUMBERS.items():
        if key in given:
            changes[field] = _number(key, given.pop(key), least=0.0) * unit
    return replace(CARDS[name], **changes)


def _checked(key: str, value: Any) -> Any:
    if key == "max_batch":
        if type(value) is not int or value < 1:
            raise _refused(key, "a whole number above 0", value)
        return value
    if key == "pace":
        if type(value) is not bool:
            raise _refused(key, "true or false", value)
        return value
    if key == "flash_s":
        return _number(key, value, least=0.0)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(each, str) and each for each in names):
        raise _refused(key, "the name of a value, or a list of them", value)
    return tuple(names)


def _number(key: str, value: Any, least: float) -> Any:
    wanted = "a whole number above 0" if key in _WHOLE else "a number, 0 or above"
    fits = type(value) is int and value > 0 if key in _WHOLE else type(value) in (int, float) and value >= least
    if not fits or not isfinite(value) or (key in ("clock_mhz", "link_gb_per_s") and not value):
        raise _refused(key, wanted, value)
    return value


def _refused(key: str, wanted: str, got: object) -> ScoringError:
    return ScoringError(Kind.INVALID, f'setting "{key}": want {wanted}, got {got!r}')


SETTINGS = (
    *("format", "elementwise", "fp16_overflow", "card", "packing", *_NUMBERS),
    *(field.name for field in fields(EmulatorOptions) if field.name not in ("numerics", "card")),
)
