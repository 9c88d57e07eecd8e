"""docs/fpga.md, held to the code."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from accelserve.backends.fpga_emulator.formats import parse_format
from accelserve.backends.fpga_emulator.latency_model import CARDS
from accelserve.backends.fpga_emulator.options import SETTINGS, read_options

PAGE = (Path(__file__).parents[3] / "docs" / "fpga.md").read_text()


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_every_setting_has_its_line_and_no_line_is_of_another():
    named = [name for row in rows(section("Settings")) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(SETTINGS)


def test_the_defaults_are_those_of_the_code():
    told = {row[0].strip("`"): row[1] for row in rows(section("Settings"))}
    text = "\n".join(f"{key} = {value.strip('`')}" for key, value in told.items() if value.startswith("`"))
    found, wanted = read_options("m", tomllib.loads(text)), read_options("m", {})
    assert found.card.overhead_s == pytest.approx(wanted.card.overhead_s)
    assert replace(found, card=replace(found.card, overhead_s=wanted.card.overhead_s)) == wanted


def test_every_named_format_is_one():
    names = [name for row in rows(section("Formats")) for name in re.findall(r"`([a-z0-9_-]+)`", row[0])]
    assert all(parse_format(name) for name in names)


def test_the_cards_are_as_wide_and_as_fast_as_told():
    for card in CARDS.values():
        told = f"{card.tiles} x {card.native_dim} x {card.lanes} at {card.clock_hz / 1e6:.0f} MHz"
        assert told in PAGE
