"""How many of the host's cores this process may use."""

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # "QUOTA PERIOD" in microseconds, or "max PERIOD" (cgroup v2)


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
