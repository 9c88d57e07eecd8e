"""What a replica has started: found by parents as long as these live, and by a mark that all of it inherits.

The mark is in the environment. The kernel ends a replica's script workers with it, but not what these have started:
that is then nobody's child, and perhaps leads a session of its own, but still carries the mark.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "ACCELSERVE_REPLICA"
_ROUNDS = 5  # what is started while others are killed is found in the next


def family(pid: int) -> list[int]:
    """A process, what it started, and so on."""
    found = [pid]
    for number in found:
        with suppress(OSError, ValueError):
            for children in Path(f"/proc/{number}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def resident_bytes(pid: int) -> int:
    """Of a process and all that it started."""
    total, page = 0, os.sysconf("SC_PAGE_SIZE")
    for number in family(pid):
        with suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * page
    return total


def mark_of(folder: Path, serial: int) -> str:
    """Of a process of a service, by its folder. serial: unique as long as the service's supervisor lives."""
    return f"{folder}#{serial}"


def kill_marked(mark: str) -> None:
    """All processes with this mark."""
    _kill(f"{MARK}={mark}\0".encode())


def kill_left(folder: Path) -> None:
    """What is left of a service whose supervisor is gone."""
    _kill(f"{MARK}={folder}#".encode())


def _kill(word: bytes) -> None:
    """All processes in whose environment something begins with this word."""
    for _ in range(_ROUNDS):
        if not sum(_kill_if(pid, word) for pid in _processes()):
            return


def _processes() -> Iterator[int]:
    yield from (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _kill_if(pid: int, word: bytes) -> bool:
    """The descriptor sees to it that no other process is meant, should this one end and its number be given anew."""
    with suppress(OSError):  # it has ended, or is another user's
        process = os.pidfd_open(pid)
        try:
            if b"\0" + word in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return True
        finally:
            os.close(process)
    return False
