"""The host's own processor as a device, and how many of its cores this process may use."""

import os
from pathlib import Path

from accelserve.backends.base import Device, DeviceKind

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # "QUOTA PERIOD" in microseconds, or "max PERIOD" (cgroup v2)
CPUINFO = Path("/proc/cpuinfo")


def usable_cpus(cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Cores that this process may keep busy: its affinity, cut by the container's CPU limit; at least 1.

    More threads than a container's limit are throttled together, which stalls every run for tens of milliseconds.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup_limit.read_text().split()
        limit = cores if quota == "max" else int(quota) // int(period)
    except (OSError, ValueError):
        limit = cores
    return max(1, min(cores, limit))


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
