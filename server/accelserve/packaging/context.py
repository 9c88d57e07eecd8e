"""A build context on disk: which files, byte for byte, and the folder that appears whole or not at all."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from accelserve.convert.unfinished import appearing
from accelserve.deploy.script_folder import PACKAGED
from accelserve.errors import Kind, ScoringError

_CHUNK_BYTES = 2**20
_LONG_AGO_S = 315532800  # 1980: the same inputs make the same archive of the folder


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
            _write(folder, Piece(PACKAGED, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"))
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


def pieces_of_folder(folder: Path, place: str, files: Iterable[Path]) -> Iterator[Piece]:
    """Files of a folder, at a place within the context."""
    for path in files:
        yield Piece(str(PurePosixPath(place, path.relative_to(folder).as_posix())), path)
