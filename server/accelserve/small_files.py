"""Small files that a user has named: read whole, without waiting, and without believing that they are small."""

import errno
import os
import stat
from pathlib import Path


def read_small(path: Path, most_bytes: int) -> bytes:
    """All of it; of a larger one `most_bytes` + 1, by which the caller sees that.

    Raises OSError, also for what is no regular file: a pipe may never say anything, and says it only once.
    """
    with open(path, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return stream.read(most_bytes + 1)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes would not even let itself be opened."""
    return os.open(path, flags | os.O_NONBLOCK)
