"""Which AMD (Xilinx) FPGA cards this process could use, read from device nodes: without root, without XRT's tools.

A PCI card shows two functions: `.0` for management (driver xclmgmt, node /dev/xclmgmt*, only to flash the shell) and
`.1` for users (driver xocl, node /dev/dri/renderD*). In a container /sys shows every card of the host, and /dev only
those that were passed in. Boards (Kria, ZCU, Versal) have no PCI function: their render node belongs to driver zocl.
XILINX_VISIBLE_DEVICES is what AMD's container runtime reads: "all", "none" or numbers of cards in the order of their
addresses. Sources: XRT's documentation ("Linux sysfs nodes", "Container"), AMD's container runtime.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

VISIBLE = "XILINX_VISIBLE_DEVICES"
_VENDOR = "0x10ee"
_BOARD_DRIVER = "zocl"
_NO_CARD = "no AMD FPGA card: no PCI device of vendor 10ee in {sys}/bus/pci and no zocl device in {sys}/class/drm"


@dataclass(frozen=True, slots=True)
class Card:
    """address: of the slot's first function, "0000:65:00.0"; of a board, its node's name. node: what users open."""

    address: str
    name: str
    node: Path


@dataclass(frozen=True, slots=True)
class CardReport:
    """missing: for every card that cannot be used, why not and what to do; or that there is none."""

    cards: tuple[Card, ...] = ()
    missing: tuple[str, ...] = ()


def may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK)


@dataclass(frozen=True, slots=True)
class CardFinder:
    """sys, dev: the host's /sys and /dev. opens: whether this process may read and write a node."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    opens: Callable[[Path], bool] = may_open

    def find(self, environ: Mapping[str, str]) -> CardReport:
        """Every card and board, sorted by address; those that are hidden by the environment are left out."""
        slots = sorted(self._slots().items())
        boards = sorted(self._boards())
        if not slots and not boards:
            return CardReport(missing=(_NO_CARD.format(sys=self.sys),))
        asked = [(address, self._card(address, functions)) for address, functions in slots]
        asked += [(node, Card(node, f"board with {_BOARD_DRIVER}", self.dev / "dri" / node)) for node in boards]
        shown = _visible(asked, environ.get(VISIBLE))
        if not shown:
            hidden = ", ".join(address for address, _ in asked)
            return CardReport(missing=(f"{VISIBLE}={environ[VISIBLE]} hides {hidden}: unset it, or name a card",))
        found = [self._checked(address, card) for address, card in shown]
        cards = tuple(each for each in found if isinstance(each, Card))
        return CardReport(cards, tuple(each for each in found if isinstance(each, str)))

    def _slots(self) -> dict[str, list[Path]]:
        """Address of the first function -> all functions of the slot."""
        slots: dict[str, list[Path]] = {}
        for function in _entries(self.sys / "bus" / "pci" / "devices"):
            if _text(function / "vendor") == _VENDOR:
                slots.setdefault(f"{function.name.rpartition('.')[0]}.0", []).append(function)
        return slots

    def _boards(self) -> Iterator[str]:
        for node in _entries(self.sys / "class" / "drm"):
            driver = node / "device" / "driver"
            if node.name.startswith("renderD") and _BOARD_DRIVER in driver.resolve().name:
                yield node.name

    def _card(self, address: str, functions: Iterable[Path]) -> Card | str:
        """The card, or what keeps its driver from being one."""
        for function in sorted(functions):
            for node in _entries(function / "drm"):
                if node.name.startswith("renderD"):
                    return Card(address, _name(function), self.dev / "dri" / node.name)
        drivers = {(function / "driver").resolve().name for function in functions if (function / "driver").exists()}
        if "xclmgmt" in drivers:
            return f"card {address} shows only its management function: flash its shell on the host (xbmgmt program)"
        return f"no driver of XRT is bound to card {address}: install XRT with its xocl kernel module on the host"

    def _checked(self, address: str, card: Card | str) -> Card | str:
        if isinstance(card, str):
            return card
        if not card.node.exists():
            return f"device node {card.node} of card {address} is not here: pass it in (--device {card.node})"
        if not self.opens(card.node):
            group = "join the group that owns it (usually render; --group-add in a container)"
            return f"device node {card.node} of card {address} may not be opened: {group}"
        return card


def _visible(asked: list[tuple[str, Card | str]], wanted: str | None) -> list[tuple[str, Card | str]]:
    """Those that XILINX_VISIBLE_DEVICES names, by number or by address; all where it is not set or says so."""
    if wanted is None or wanted.strip() == "all":
        return asked
    names = {name.strip() for name in wanted.split(",")}
    return [each for number, each in enumerate(asked) if str(number) in names or each[0] in names]


def _name(function: Path) -> str:
    """The shell that is on the card, as XRT's driver tells it, else the PCI numbers."""
    shell = next((text for path in sorted(function.glob("rom*/VBNV")) if (text := _text(path))), "")
    return shell or f"AMD FPGA card (PCI 10ee:{_text(function / 'device').removeprefix('0x')})"


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
