"""What goes wrong with a store's disk, in words."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelserve.errors import Kind, ScoringError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(root: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an OSError of the body into a ScoringError(CONFLICT) that names the store and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise store_full(root, needed_bytes, error) from error
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        message = f"store {root}: {what}; see who owns it, or choose another with --store or ACCELSERVE_STORE"
        raise ScoringError(Kind.CONFLICT, message) from error


def store_full(root: Path, needed_bytes: int | None, cause: OSError | None = None) -> ScoringError:
    needed = f"{readable_bytes(needed_bytes)} are needed and " if needed_bytes is not None else ""
    why = f" ({cause.strerror})" if cause is not None else ""
    message = f"store {root} is full{why}: {needed}{readable_bytes(free_bytes(root))} are free; the store is as it was"
    return ScoringError(Kind.CONFLICT, message, reason="store_full")


def free_bytes(root: Path) -> int:
    """What an ordinary user may still write to the file system of `root`, or of its first parent that exists."""
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free


def readable_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
