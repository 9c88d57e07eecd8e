"""Files and folders that are old or new after a crash and never half: locks, flushes, renames."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among processes, and among threads; waits for it. The file is made and stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # gives the lock up, as does a crash


def lock_if_free(descriptor: int, operation: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file without waiting; False when another holds it."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        flush(path)


def move(source: Path, target: Path) -> None:
    """Rename within a file system, and bring the new name to the disk. What was flushed before is whole under it."""
    source.rename(target)
    flush(target.parent)


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write or replace a file: readers and crashes meet the old content or the new, never with wider rights."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(descriptor, mode)  # mkstemp's 0o600 would shut out a server under another user
            os.fsync(descriptor)
        move(Path(unfinished), path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
