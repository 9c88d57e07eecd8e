"""Which files are meant: those named, and all that lie in the folders named."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_MOST_BYTES = 2**31 - 1  # no server takes more in one request


@dataclass(frozen=True, slots=True)
class Found:
    """problem: why it cannot be scored, "" where nothing is known against it."""

    path: Path
    problem: str = ""


def found_files(paths: Sequence[Path], patterns: Sequence[str] = ()) -> Iterator[Found]:
    """The files in order: as named; within a folder by name, folders in folders too.

    patterns: of files in folders only those whose name fits one of these; a file that is named is always meant. Names
    that begin with a dot are left out in folders. Links are followed, and a folder that is reached again is not
    entered again, so that links in a circle end.
    """
    for path in paths:
        if path.is_dir():
            yield from _in_folder(path, patterns, set())
        else:
            yield Found(path, _problem(path))


def _in_folder(folder: Path, patterns: Sequence[str], seen: set[tuple[int, int]]) -> Iterator[Found]:
    """Without recursion of its own: folders may be nested deeper than Python's stack."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            about = place.stat()
            children = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            yield Found(place, f"the folder cannot be read: {error.strerror}")
            continue
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        deeper = []
        for entry in children:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                deeper.append(Path(entry.path))
            elif not patterns or any(fnmatch(entry.name, pattern) for pattern in patterns):
                yield Found(Path(entry.path), _problem(Path(entry.path)))
        waiting += reversed(deeper)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself
        return False


def _problem(path: Path) -> str:
    """A pipe or a device is not opened: reading it may never end."""
    try:
        about = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a zero byte in the name
        return str(error)
    if not stat.S_ISREG(about.st_mode):
        return "not a regular file"
    if about.st_size > _MOST_BYTES:
        return f"{about.st_size} bytes are more than one request can have"
    return ""
