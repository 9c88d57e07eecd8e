"""Who uses a version: a shared lock that the kernel gives up when its process dies, and a name to tell."""

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelserve.backends.lease import boot_id
from accelserve.durable_files import lock_if_free
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.store")

_NAMELESS = "a process that could not write its name"


class Hold:
    """A version that is in use, and so is not deleted; made by `ModelStore.hold`. Ends with the process at the latest.

    The lock alone protects. The entry beside it only names the holder, and is missing where the store is read-only.
    """

    def __init__(self, lock: int, entry: "Entry | None") -> None:
        self._lock: int | None = lock
        self._entry = entry

    def release(self) -> None:
        """Let the version be deleted. A second call does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            if self._entry is not None:
                self._entry.remove()
            os.close(lock)


class Entry:
    """A file that names a holder, and is locked as long as the holder lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def remove(self) -> None:
        with suppress(OSError):  # the store cannot be written any more; the next holder sweeps it
            self._path.unlink()
        os.close(self._descriptor)


def take_hold(path: Path, what: str, holder: str) -> Hold:
    """Share the lock file `path`. what: the version, for the message. Raises ScoringError(CONFLICT) during a delete."""
    lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not lock_if_free(lock, fcntl.LOCK_SH):
            raise ScoringError(Kind.CONFLICT, f"{what} is being deleted by another process")
        _sweep(path)
        return Hold(lock, _write_entry(path, what, holder))
    except BaseException:
        os.close(lock)
        raise


def _sweep(path: Path) -> None:
    """The entries of holders that were killed. One without content may be that of a holder who is about to lock it."""
    for entry in path.parent.glob(f"{path.name}.*"):
        with suppress(OSError):
            descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_size and lock_if_free(descriptor, fcntl.LOCK_SH):
                    entry.unlink()
            finally:
                os.close(descriptor)


def _write_entry(path: Path, what: str, holder: str) -> Entry | None:
    """None where the folder cannot be written: the version is protected all the same."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    except OSError as error:
        logger.info("%s: whoever deletes it will not be told by name who uses it: %s", what, error)
        return None
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.fchmod(descriptor, 0o644)
    with suppress(OSError):  # a full disk: the entry then stands for "another process"
        os.write(descriptor, json.dumps({"holder": holder, "pid": os.getpid(), "boot_id": boot_id()}).encode())
    return Entry(Path(name), descriptor)


@contextmanager
def unheld(path: Path) -> Iterator[tuple[str, ...]]:
    """Keep new holders away while the body runs. Yields who holds: not empty, then nobody is kept away."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield () if lock_if_free(lock) else holders(path) or (_NAMELESS,)
    finally:
        os.close(lock)


def holders(path: Path) -> tuple[str, ...]:
    """The living holders that could write their names."""
    return tuple(name for entry in sorted(path.parent.glob(f"{path.name}.*")) if (name := _living(entry)))


def _living(entry: Path) -> str | None:
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if lock_if_free(descriptor, fcntl.LOCK_SH):
            return None
        content = json.loads(os.read(descriptor, 65536))
        there = "" if content["boot_id"] == boot_id() else " of another machine"
        return f"{content['holder']} (process {content['pid']}{there})"
    except (ValueError, KeyError, TypeError):
        return "another process"  # for the moment between the lock and the writing
    finally:
        os.close(descriptor)
