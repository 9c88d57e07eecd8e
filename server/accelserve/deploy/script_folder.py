"""Which files of a folder go with an entry script: for a service on this machine, and for an image."""

import os
from collections.abc import Collection
from pathlib import Path

from accelserve.config_sources import ConfigError

PACKAGED = "accelserve-package.json"  # what the root of a build context has
_LEFT_OUT = ("__pycache__", ".git", ".hg", ".svn", ".venv", ".ipynb_checkpoints", "node_modules")
_COMPILED = (".pyc", ".pyo")
_MOST_BYTES = 300 * 10**6  # as Azure ML's snapshots


def files_to_take(folder: Path, script: Path) -> list[Path]:
    """Those that go with a script of the folder. Raises ConfigError as `files_of_folder`, and when there is too much.

    A home folder by mistake is told before all of it was looked at.
    """
    found = files_of_folder(folder, most_bytes=_MOST_BYTES)
    if script not in found:
        raise ConfigError([f"{script} is not among the files of {folder} that are taken along"])
    return found


def files_of_folder(folder: Path, left_out: Collection[str] = _LEFT_OUT, most_bytes: int | None = None) -> list[Path]:
    """All files of a folder.

    left_out: names that are passed over, and with any of them also compiled Python and earlier build contexts.
    A link to a file within the folder counts as that file, to be copied as one. Raises ConfigError, with all problems,
    for links that lead out of it, links to folders, and what is no file; with one for more than `most_bytes`.
    """
    problems: list[str] = []
    found: list[Path] = []
    size = 0
    inside = folder.resolve()
    unreadable: list[OSError] = []
    for where, folders, names in os.walk(folder, onerror=unreadable.append):
        if left_out and PACKAGED in names:  # what was packaged before
            folders[:] = []
            continue
        kept = sorted(name for name in folders if name not in left_out)
        links = [name for name in kept if Path(where, name).is_symlink()]
        problems += [f"{Path(where, name)}: a link to a folder; put the folder itself there" for name in links]
        folders[:] = [name for name in kept if name not in links]
        for path in (Path(where, name) for name in sorted(names) if name not in left_out):
            if left_out and path.suffix in _COMPILED:
                continue
            if problem := _problem(path, inside):
                problems.append(f"{path}: {problem}")
                continue
            found.append(path)
            size += path.stat().st_size
            if most_bytes is not None and size > most_bytes:
                raise ConfigError([f"{folder} has more than {most_bytes // 10**6} MB; models belong into the store"])
    problems += [f"{error.filename}: {error.strerror}" for error in unreadable]
    if problems:
        raise ConfigError(problems)
    return found


def _problem(path: Path, inside: Path) -> str:
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        return getattr(error, "strerror", None) or "a link in a circle"
    if not real.is_file():
        return "not a regular file"
    if not real.is_relative_to(inside):
        return f"a link out of {inside}; put the file itself there"
    return "" if os.access(real, os.R_OK) else "may not be read"
