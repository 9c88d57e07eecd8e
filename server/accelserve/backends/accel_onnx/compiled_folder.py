"""What a vendor's compiler keeps between runs is used as it was written, or not at all.

The libraries look at the heads of their files at most: a compiled model with changed bytes in the middle loads and
answers wrongly (seen with OpenVINO's).
"""

import errno
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import file_digest
from pathlib import Path

from accelserve.durable_files import locked
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.backends")

_RECORD = ".accelserve.json"
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def kept_whole(folder: Path) -> Iterator[None]:
    """The block may read and fill `folder`; it finds it empty where a file is not what the last block left.

    One process at a time. What the block raises passes, and what it wrote is not used again. A folder that cannot be
    written, as of an image with a compiled model, is used where it is whole.
    Raises ScoringError(PRECONDITION) where the folder cannot be used.
    """
    with ExitStack() as stack:
        writable = True
        try:
            stack.enter_context(locked(folder.parent / f".{folder.name}.compiled.lock"))
            _empty_unless_whole(folder)
        except OSError as error:
            writable = False
            if error.errno not in _NOT_WRITABLE or not _is_whole(folder):
                message = f"the compiled model's folder {folder} cannot be used: {error}"
                raise ScoringError(Kind.PRECONDITION, f"{message}; make room there, or see who owns it") from error
        yield
        if writable:
            _keep(folder)


def _is_whole(folder: Path) -> bool:
    try:
        told = json.loads((folder / _RECORD).read_text())
    except (OSError, ValueError):
        told = {}
    return bool(_digests(folder) == told)


def _empty_unless_whole(folder: Path) -> None:
    if _is_whole(folder):
        return
    logger.warning("%s: files are not as they were written; the model is compiled again", folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _keep(folder: Path) -> None:
    try:
        (folder / _RECORD).write_text(json.dumps(_digests(folder)))
    except OSError as error:
        logger.warning("%s: the compiled model is not kept: %s", folder, error)


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _RECORD)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
