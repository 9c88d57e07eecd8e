"""The devices that OpenVINO drives here, and what keeps it from an FPGA, by name."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelserve.backends.base import Device
from accelserve.backends.host import cpu_device
from accelserve.backends.openvino.library import installed_openvino
from accelserve.devices import DeviceKind

PLUGINS = "ACCELSERVE_OPENVINO_PLUGINS"
_ALTERA, _INTEL = "0x1172", "0x8086"
_ACCELERATOR = "0x12"  # PCI class "processing accelerators", which Intel's own FPGA cards have


@dataclass(frozen=True, slots=True)
class OpenVinoHost:
    """What a host has. library: how OpenVINO is got; sys: /sys; environ: its variables."""

    library: Callable[[], Any] = installed_openvino
    sys: Path = Path("/sys")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def core(self) -> Any:
        """The library's Core, with the plug-ins that the environment names. Raises what the library raises."""
        library, plugins = self.library(), self.environ.get(PLUGINS)
        return library.Core(plugins) if plugins else library.Core()


def fpga_name(device: Device) -> str:
    """`fpga:FPGA.1` -> FPGA.1, as OpenVINO calls it."""
    return device.id.partition(":")[2]


def find_devices(core: Any) -> tuple[Device, ...]:
    """The CPU, and what the library lists with FPGA in its name."""
    listed = core.available_devices
    found = [_fpga(core, name) for name in listed if "FPGA" in name]
    return (cpu_device(), *found) if "CPU" in listed else tuple(found)


def why_no_fpga(host: OpenVinoHost, core: Any) -> tuple[str, ...]:
    """All that lacks, where the library lists no FPGA."""
    listed = ", ".join(core.available_devices) or "nothing"
    plugin = host.environ.get(PLUGINS)
    if plugin:
        told = f"{PLUGINS}={plugin} names no plug-in that finds one"
    else:
        told = f"name the plugins.xml of Altera's FPGA AI Suite by {PLUGINS}"
    missing = [f"OpenVINO lists no FPGA (it lists {listed}): {told}"]
    if not _has_card(host.sys):
        missing.insert(
            0, f"no Altera FPGA card: no PCI device of vendor 1172, or Intel's of class 12, in {host.sys}/bus/pci"
        )
    return tuple(missing)


def _fpga(core: Any, name: str) -> Device:
    try:
        full = str(core.get_property(name, "FULL_DEVICE_NAME"))
    except RuntimeError:  # a plug-in need not know its name
        full = "FPGA through OpenVINO"
    return Device(f"fpga:{name}", DeviceKind.FPGA, full, exclusive=True)


def _has_card(sys: Path) -> bool:
    for function in (sys / "bus" / "pci" / "devices").glob("*"):
        vendor, kind = _text(function / "vendor"), _text(function / "class")
        if vendor == _ALTERA or (vendor == _INTEL and kind.startswith(_ACCELERATOR)):
            return True
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
