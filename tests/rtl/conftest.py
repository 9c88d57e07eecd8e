"""Puts the slow reference on the path: the hardware is held to the same definition as the emulator."""

import sys
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "backends" / "fpga_reference"
if str(REFERENCE) not in sys.path:
    sys.path.insert(0, str(REFERENCE))
