"""docs/fpga_numerics.md names every preset, with the size that the emulator reports for it."""

import re
from pathlib import Path

from accelserve.backends.fpga_emulator.formats import PRESETS

PAGE = Path(__file__).parents[3] / "docs" / "fpga_numerics.md"


def sizes_on_the_page() -> dict[str, float]:
    """Preset -> bits a value, from the rows "| `name` `name` | format | 4.5, 8.5 | ..." of the first table."""
    section = PAGE.read_text().partition("## Rules")[0]
    rows = re.findall(r"^\| ((?:`[\w-]+`,? ?)+) \|[^|]*\| ([\d., ]+) \|", section, re.MULTILINE)
    sizes = {}
    for names, bits in rows:
        sizes |= dict(zip(re.findall(r"`([\w-]+)`", names), map(float, bits.split(", ")), strict=True))
    return sizes


def test_every_preset_is_there_with_its_bits():
    blocks = {name: form for name, form in PRESETS.items() if name != "fp32"}
    want = {name: round(form.packed_bits(form.block) / form.block, 2) for name, form in blocks.items()}
    assert sizes_on_the_page() == want
