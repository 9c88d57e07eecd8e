"""The host's own processor as a device."""

import os
from pathlib import Path

from accelserve.backends.base import Device
from accelserve.devices import DeviceKind

CPUINFO = Path("/proc/cpuinfo")


def cpu_device(cpuinfo: Path = CPUINFO) -> Device:
    """The one CPU device of a host, "cpu:0"."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("cpu:0", DeviceKind.CPU, _cpu_name(cpuinfo), memory_bytes=memory)


def _cpu_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return "CPU"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "CPU")
