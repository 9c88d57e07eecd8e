"""How a worker is started, and how it is ended with all that it has started."""

import os
import signal
import sys
from contextlib import suppress


def worker_command(descriptor: int, *permits: int) -> list[str]:
    """Of a child that leads a process group of its own. descriptor, permits: as `worker` tells of them."""
    # -P: what lies in the working folder must not pass for modules of the standard library.
    module = ("-P", "-m", "accelserve.entry_script.worker")
    return [sys.executable, *module, *map(str, (descriptor, os.getpid(), *permits))]


def kill_group(pid: int) -> None:
    """The worker, and its process group, which a script may have left: as long as nobody has waited for the worker,
    the number is nobody else's.
    """
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
