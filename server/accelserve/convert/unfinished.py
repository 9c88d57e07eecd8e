"""A folder that appears when all of it is there, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelserve.errors import Kind, ScoringError


@contextmanager
def appearing(name: str, output: Path, flag: str = "--output") -> Iterator[Path]:
    """A folder to fill, which becomes `output` at the end; what is raised meanwhile passes, and nothing is left.

    flag: how the user says where. Raises ScoringError: CONFLICT when `output` exists, PRECONDITION when it cannot be
    written (a full disk).
    """
    if os.path.lexists(output):  # a link to nothing, too
        raise ScoringError(Kind.CONFLICT, f"{output} exists: delete it, or choose another {flag}")
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(output)
    except OSError as error:
        message = f"{name}: {output} cannot be written: {_reason(error)}"
        raise ScoringError(Kind.PRECONDITION, message) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _reason(error: OSError) -> str:
    """`shutil.copytree` tells of every file at once; the first says enough."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return error.strerror or str(error)
