"""The logs of a service's processes: appended to by them, kept small, read together."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 4 * 2**20  # of a file; as much again is kept of the time before
_SUPERVISOR = "supervisor"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
_STARTS, _IS_READY = "replica starts", "replica is ready"
_MARK = "INFO accelserve.deploy"


def replica_log(folder: Path, slot: int) -> Path:
    return folder / f"replica-{slot}.log"


def supervisor_log(folder: Path) -> Path:
    return folder / f"{_SUPERVISOR}.log"


def open_log(path: Path) -> int:
    """A file that is only ever appended to, so that it may be cut while processes write to it. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def keep_small(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Move what is in a log that has become large aside, in place of what lay there.

    Writers keep their open file, so it is copied and cut; a line that is written in that moment is lost.
    """
    with suppress(OSError):
        if path.stat().st_size <= most_bytes:
            return
        try:
            shutil.copyfile(path, _before(path))
        finally:  # on a full disk there is no copy, and the room is needed
            os.truncate(path, 0)


def _before(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def mark_start(path: Path, what: str) -> None:
    _mark(path, f"{_STARTS}: {what}")


def mark_ready(path: Path) -> None:
    _mark(path, _IS_READY)


def _mark(path: Path, text: str) -> None:
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
    with suppress(OSError):
        descriptor = open_log(path)
        try:
            os.write(descriptor, f"{stamp} {_MARK} {text}\n".encode())
        finally:
            os.close(descriptor)


def read_together(folder: Path, lines: int, start_only: bool = False) -> list[str]:
    """The last lines of all processes, in the order of their times, each with its process: `[0] ...`.

    start_only: of each replica what it wrote from its last start until it was ready.
    """
    entries: list[tuple[str, int, str]] = []
    for path in sorted(folder.glob("*.log")):
        told = list(_stamped(_read(path)))
        if start_only:
            told = [] if path == supervisor_log(folder) else _last_start(told)
        name = path.stem.removeprefix("replica-")
        entries += [(stamp, at, f"[{name}] {line}") for at, (stamp, line) in enumerate(told[-lines:])]
    entries.sort(key=lambda entry: entry[0])  # stable: lines of one process and time keep their order
    return [line for _, _, line in entries[-lines:]] if lines else []


def _read(path: Path) -> Iterator[str]:
    for part in (_before(path), path):
        with suppress(OSError):
            yield from part.read_text(encoding="utf-8", errors="backslashreplace").splitlines()


def _stamped(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Each line with its time; one without belongs to the line before it."""
    stamp = ""
    for line in lines:
        if found := _TIME.match(line):
            stamp = found[0]
        yield stamp, line


def _last_start(told: list[tuple[str, str]]) -> list[tuple[str, str]]:
    starts = [at for at, (_, line) in enumerate(told) if f"{_MARK} {_STARTS}" in line]
    since = told[starts[-1] :] if starts else told
    ends = [at for at, (_, line) in enumerate(since) if f"{_MARK} {_IS_READY}" in line]
    return since[: ends[0] + 1] if ends else since
