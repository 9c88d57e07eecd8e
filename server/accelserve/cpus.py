"""How many of the host's cores this process may use, and how it shares them with its own workers."""

import ctypes
import os
import platform
import struct
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


_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the C library has no function for it
_NOT_INHERITED = 1  # SCHED_FLAG_RESET_ON_FORK
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period


def take_short_turns(turn_ns: int) -> None:
    """Have the kernel give this thread turns of so many nanoseconds, which it then gets sooner.

    For an event loop on a core that its worker processes fill: in a turn of the usual length (3 ms) of each of them
    nobody is answered. Linux 6.12 and newer; others do not mind. Threads and processes that it starts have the usual
    turns, if it has no raised priority.
    """
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER:
        _set_turns(0, os.SCHED_OTHER, turn_ns)


def give_way(process: int) -> None:
    """Have a worker process take turns of the usual length, and never stop another process when it wakes."""
    _set_turns(process, os.SCHED_BATCH, 0)


def _set_turns(process: int, policy: int, turn_ns: int) -> None:
    """Hints: a kernel that does not take them goes on as before. turn_ns: 0 for the usual length."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, process)
    flags = _NOT_INHERITED if turn_ns and nice >= 0 else 0  # the kernel would reset a raised priority too
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, flags, nice, 0, turn_ns, 0, 0)
    ctypes.CDLL(None).syscall(number, process, attributes, 0)
