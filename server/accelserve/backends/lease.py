"""One process per exclusive device: a lock on a file that the kernel gives up when the process dies."""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from accelserve.backends.base import Device, DeviceLease
from accelserve.errors import Kind, ScoringError

_FOR_ALL = 0o666  # servers of several users may share a device
_READS, _READ_AGAIN_S = 5, 0.002
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class DeviceTaken(ScoringError):
    """Somebody else holds a device; who could make room for it catches this."""

    def __init__(self, device_id: str, holder: str) -> None:
        super().__init__(Kind.CONFLICT, f"device {device_id} is held by {holder}", reason="device_taken")
        self.device_id = device_id


class FileLease:
    """A held lock; made by `acquire_lease`. The file stays after release: removing it would race with a new holder."""

    def __init__(self, device_id: str, path: Path, descriptor: int) -> None:
        self.device_id = device_id
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let another process have the device. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # a full or vanished file system: the lock is what counts
                os.ftruncate(descriptor, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for a child that was forked with it too
            os.close(descriptor)


def acquire_lease(folder: Path, device_id: str, holder: str) -> FileLease:
    """Take a device for this process. folder: shared by all processes (and containers) that can reach the device.

    holder: the model's name, told to whoever comes later. Raises DeviceTaken naming the present holder,
    ScoringError(PRECONDITION) where the folder cannot be used.
    """
    path = folder / f"{quote(device_id, safe='')}.lease"
    try:
        return _acquire(path, device_id, holder)
    except OSError as error:
        message = f"the lease of {device_id} cannot be taken: {error.filename or path}: {error.strerror}"
        remedy = "make the folder writable, or name another by --lease-dir or ACCELSERVE_LEASE_DIR"
        raise ScoringError(Kind.PRECONDITION, f"{message}; {remedy}") from error


def _acquire(path: Path, device_id: str, holder: str) -> FileLease:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FOR_ALL)
    with suppress(PermissionError):  # another user's, who has done the same
        os.fchmod(descriptor, _FOR_ALL)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_holder(
            descriptor,
            {
                "device": device_id,
                "holder": holder,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "boot_id": boot_id(),
            },
        )
    except BlockingIOError:
        os.close(descriptor)
        raise DeviceTaken(device_id, _read_holder(path)) from None
    except BaseException:
        os.close(descriptor)
        raise
    return FileLease(device_id, path, descriptor)


def require_lease(model: str, device: Device, lease: DeviceLease | None) -> None:
    """For `Backend.load`: an exclusive device takes no model without its own lease. Raises ScoringError(CONFLICT)."""
    if device.exclusive and (lease is None or lease.device_id != device.id):
        got = "none" if lease is None else f"that of {lease.device_id}"
        message = f"{model} does not load: {device.id} is exclusive and wants its lease, got {got}"
        raise ScoringError(Kind.CONFLICT, f"{message}; acquire_lease gives it")


def _write_holder(descriptor: int, entry: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(entry).encode(), 0)


def _read_holder(path: Path) -> str:
    """Whom the file names; for the moment between the lock and the writing it names nobody, or the one before."""
    for _ in range(_READS):
        time.sleep(_READ_AGAIN_S)
        try:
            entry = json.loads(path.read_text())
            where = "" if entry["host"] == socket.gethostname() else f" on {entry['host']}"
            return f"{entry['holder']} (process {entry['pid']}{where})"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return "another process"


def boot_id() -> str:
    """Tells a process id of this boot, and of this machine, from an equal one of another."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
