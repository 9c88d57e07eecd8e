"""A build context on disk: which files, byte for byte, and the folder that appears whole or not at all."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from accelserve.config_sources import ConfigError
from accelserve.convert.unfinished import appearing
from accelserve.errors import Kind, ScoringError

MANIFEST = "accelserve-package.json"
_CHUNK_BYTES = 2**20
_LONG_AGO_S = 315532800  # 1980: the same inputs make the same archive of the folder
_LEFT_OUT = ("__pycache__", ".git", ".hg", ".svn", ".venv", ".ipynb_checkpoints", "node_modules")


@dataclass(frozen=True, slots=True)
class Piece:
    """One file. place: within the context, with slashes. content: a file to be copied, or bytes."""

    place: str
    content: Path | bytes


def is_within(place: str) -> bool:
    """Whether a place stays in the folder that it is joined to."""
    path = PurePosixPath(place)
    return not path.is_absolute() and ".." not in path.parts


def write_context(
    output: Path,
    pieces: Sequence[Piece],
    about: Mapping[str, Any],
    check: Callable[[Mapping[str, str]], None] = lambda _: None,
) -> dict[str, str]:
    """Place -> SHA-256 of every file, which the manifest holds too, with `about`.

    check: is told these before the folder appears; what it raises keeps it from appearing.
    The same pieces make the same bytes, modes and times. Raises ScoringError: CONFLICT when `output` exists or cannot
    be written (a full disk), with nothing left of it; PRECONDITION for a piece that cannot be read, or whose
    place is not within.
    """
    places = [piece.place for piece in pieces]
    for place in places:
        if not is_within(place):
            raise ScoringError(Kind.PRECONDITION, f"{place} is not within the context")
    if len(set(places)) != len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ScoringError(Kind.PRECONDITION, f"two files would be {twice} in the context")
    try:
        with appearing("package", output, "--out") as folder:
            digests = {piece.place: _write(folder, piece) for piece in sorted(pieces, key=lambda piece: piece.place)}
            check(digests)
            document = {**about, "files": digests}
            _write(folder, Piece(MANIFEST, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"))
            _settle(folder)
            return digests
    except ScoringError as error:
        if isinstance(error.__cause__, OSError):  # the disk's word, not the model's
            raise ScoringError(Kind.CONFLICT, error.message) from error
        raise


def _write(folder: Path, piece: Piece) -> str:
    target = folder / piece.place
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as stream:
        for chunk in _chunks(piece.content):
            digest.update(chunk)
            stream.write(chunk)
    executable = isinstance(piece.content, Path) and piece.content.stat().st_mode & stat.S_IXUSR
    target.chmod(0o755 if executable else 0o644)  # the container's user is another
    return digest.hexdigest()


def _chunks(content: Path | bytes) -> Iterator[bytes]:
    """Raises ScoringError(PRECONDITION): what cannot be read is not the disk that cannot be written."""
    if isinstance(content, bytes):
        yield content
        return
    try:
        with content.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise ScoringError(Kind.PRECONDITION, f"{content} cannot be read: {error.strerror}") from None


def _settle(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (_LONG_AGO_S, _LONG_AGO_S), follow_symlinks=False)


def pieces_of_folder(folder: Path, place: str, left_out: Collection[str] = _LEFT_OUT) -> Iterator[Piece]:
    """All files of a folder.

    left_out: folders' names that are passed over, and with any of them also compiled Python and earlier contexts.
    A link to a file within the folder becomes that file. Raises ConfigError, with all problems, for links that lead
    out of it, links to folders, and what is no file.
    """
    problems: list[str] = []
    found: list[Piece] = []
    inside = folder.resolve()
    unreadable: list[OSError] = []
    for where, folders, names in os.walk(folder, onerror=unreadable.append):
        links = [name for name in folders if Path(where, name).is_symlink()]
        problems += [f"{Path(where, name)}: a link to a folder; put the folder itself there" for name in links]
        if left_out and MANIFEST in names:  # what was packaged before
            folders[:] = []
            continue
        folders[:] = sorted(name for name in folders if name not in left_out and name not in links)
        for name in sorted(names):
            path = Path(where, name)
            if left_out and path.suffix in (".pyc", ".pyo"):
                continue
            if problem := _problem(path, inside):
                problems.append(f"{path}: {problem}")
            else:
                found.append(Piece(str(PurePosixPath(place, path.relative_to(folder).as_posix())), path))
    problems += [f"{error.filename}: {error.strerror}" for error in unreadable]
    if problems:
        raise ConfigError(problems)
    yield from found


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
