"""What /proc says about a server and all processes that it started: CPU time, memory, listeners."""

import contextlib
import ipaddress
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
LISTEN = "0A"
MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-xp ([0-9a-f]+) \S+ \d+ +(/.*)")
SYSTEM_CALL = (b"\x0f\x05", b"\x01\x00\x00\xd4")  # on x86-64, on arm64
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Stat:
    """born: ticks since boot, which tells a process from a later one with its number."""

    parent: int
    session: int
    ticks: int  # user and system CPU time
    born: int


def all_processes() -> dict[int, Stat]:
    processes = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            processes[int(folder.name)] = Stat(int(fields[1]), int(fields[3]), ticks, int(fields[19]))
    return processes


def machine_busy_s() -> float:
    """CPU seconds since boot, over all CPUs."""
    user, nice, system, _, _, irq, softirq, steal = map(int, (PROC / "stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def children_s() -> float:
    """CPU seconds of this process's children that have ended: the load generators."""
    times = os.times()
    return times.children_user + times.children_system


class ProcessTree:
    """A process, its descendants, who shares a session that one of them leads, and who did when last seen."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen = {root: all_processes()[root].born}  # by pid

    def members(self) -> dict[int, Stat]:
        """The members that live now."""
        everyone = all_processes()
        followers: dict[int, list[int]] = {}
        for pid, stat in everyone.items():
            followers.setdefault(stat.parent, []).append(pid)
            followers.setdefault(stat.session, []).append(pid)
        open_pids = [pid for pid, born in self._seen.items() if pid in everyone and everyone[pid].born == born]
        found: dict[int, Stat] = {}
        while open_pids:
            pid = open_pids.pop()
            if pid not in found:
                found[pid] = everyone[pid]
                open_pids += followers.get(pid, [])
        self._seen = {pid: stat.born for pid, stat in found.items()}
        return found

    def cpu_s(self) -> float:
        """User and system time of the members that live now, in steps of 10 ms."""
        return sum(stat.ticks for stat in self.members().values()) / TICKS_PER_S

    def user_and_system_s(self) -> tuple[float, float]:
        """CPU seconds of the root alone, outside and inside the kernel."""
        fields = (PROC / f"{self._root}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S

    def pss_mib(self) -> float:
        """Memory; a page that several processes share counts in parts."""
        kib = 0
        for pid in self.members():
            with contextlib.suppress(OSError):
                found = re.search(r"^Pss:\s+(\d+)", (PROC / f"{pid}/smaps_rollup").read_text(), re.M)
                kib += int(found[1]) if found else 0
        return kib / 1024

    def pin(self, cores: set[int]) -> None:
        """Bind every thread to `cores`, also those that chose otherwise since the start."""
        for pid in self.members():
            for thread in _listed(PROC / f"{pid}/task"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(thread), cores)

    def open_listeners(self) -> list[str]:
        """TCP listeners of the members that can be reached from outside this machine."""
        mine = set()
        for pid in self.members():
            for handle in _listed(PROC / f"{pid}/fd"):
                with contextlib.suppress(OSError):
                    mine.add(os.readlink(PROC / f"{pid}/fd/{handle}"))
        return sorted(
            f"{address}:{port}"
            for address, port, inode in _listeners()
            if f"socket:[{inode}]" in mine and not address.is_loopback
        )

    def signal(self, number: int) -> None:
        _signal(list(self.members()), number)

    def stop(self, patience_s: float) -> None:
        """SIGTERM to the root; after `patience_s`, or when the root is gone, SIGKILL to whoever is left."""
        deadline = time.monotonic() + patience_s
        if self._root in self._running():
            _signal([self._root], signal.SIGTERM)
        while time.monotonic() < deadline and self._root in self._running():
            time.sleep(0.02)
        for _ in range(10):
            left = self._running()
            if not left:
                return
            _signal(left, signal.SIGKILL)
            time.sleep(0.1)

    def _running(self) -> list[int]:
        """Members that are not zombies."""
        running = []
        for pid in self.members():
            with contextlib.suppress(OSError):
                if (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    running.append(pid)
        return running


class Code:
    """A process's instructions, read from the files that it has mapped."""

    def __init__(self, pid: int) -> None:
        lines = (PROC / f"{pid}/maps").read_text().splitlines()
        self._maps = [found for line in lines if (found := MAPPED.match(line))]

    def behind_system_call(self, address: int) -> bool:
        """Whether the instruction before the address is a system call: a thread that is there is in the kernel."""
        for found in self._maps:
            start, end, offset = (int(found[number], 16) for number in (1, 2, 3))
            if start <= address < end:
                with contextlib.suppress(OSError), Path(found[4]).open("rb") as file:
                    file.seek(address - start + offset - 4)
                    return file.read(4).endswith(SYSTEM_CALL)
        return False


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _listeners() -> Iterator[tuple[Address, int, str]]:
    """(address, port, inode) of each TCP listener of this network namespace."""
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN:
                    address, port = fields[1].split(":")
                    yield _address(address), int(port, 16), fields[9]


def _address(text: str) -> Address:
    """The kernel writes addresses as little-endian words of four bytes."""
    words = bytes.fromhex(text)
    address = ipaddress.ip_address(b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4)))
    return getattr(address, "ipv4_mapped", None) or address
