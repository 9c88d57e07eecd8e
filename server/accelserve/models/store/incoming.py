"""Folders of writers at work, in the store's own file system; those of writers that died are swept."""

import os
import shutil
import tempfile
from pathlib import Path

from accelserve.durable_files import lock_if_free

_LOCK = ".lock"


class WorkFolder:
    """A folder that is ours until it is closed, which removes what is left in it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


class Incoming:
    """The folder of work folders. Its methods are called under the store's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def folder(self, prefix: str) -> WorkFolder:
        path = Path(tempfile.mkdtemp(prefix=f"{prefix}.", dir=self._path))
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock_if_free(lock)
        return WorkFolder(path, lock)

    def sweep(self) -> None:
        """Remove what nobody works in any more: the kernel gave up the dead writer's lock."""
        for leftover in self._path.iterdir():
            if not _is_worked_in(leftover):
                shutil.rmtree(leftover, ignore_errors=True)


def _is_worked_in(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return True  # another user's
    except OSError:
        return False
    try:
        return not lock_if_free(descriptor)
    finally:
        os.close(descriptor)
