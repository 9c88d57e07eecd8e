"""What a version is made of: which files, their checksum, and a copy that is exactly they.

All files are hashed before the first is copied, and each copy must have its hash. So every file stood as it was
copied from its hashing to its copying, all of them at once in between: the copy is a state that the source was in.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelserve.backends.onnx_runtime.files import external_files
from accelserve.errors import Kind, ScoringError
from accelserve.models.repository import Found

_CHUNK_BYTES = 2**20
_BLOCK_BYTES = 4096
_FOLDERS_BYTES = 2**20  # for folders, records and the sizes of file systems' own tables
_LONE_FILES = {"onnx": "model.onnx", "synthetic": "synthetic.toml"}

Count = Callable[[int], None]  # told how many more bytes are done


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to copy. name: its place in the version folder, with slashes."""

    name: str
    path: Path
    size_bytes: int


def list_content(path: Path, found: Found) -> tuple[SourceFile, ...]:
    """The files of the newest version at `path`, by name: a file with its external data, or all of a folder.

    The model's own accelserve.toml is not among them. Raises ScoringError(PRECONDITION) naming what cannot be copied.
    """
    model = found.versions[0]
    if path.is_file():
        beside = external_files(path) if model.format == "onnx" else ()
        return _lone_file(path, _LONE_FILES[model.format], beside)
    folder = model.path if model.path.is_dir() else model.path.parent
    files = tuple(file for file in _tree(folder) if file.path != found.manifest)
    if model.format == "onnx":
        _check_external(model.path, {file.name for file in files})
    return files


def list_as_it_is(name: str, path: Path) -> tuple[SourceFile, ...]:
    """A file, or all files of a folder, under that file's or folder's own name: where Azure ML's scripts look for it.

    Raises ScoringError: NOT_FOUND; PRECONDITION naming what cannot be copied.
    """
    own_name = os.path.basename(os.path.abspath(path)) or name
    if path.is_file():
        return (_source(own_name, path.resolve(), path),)
    if not path.is_dir():
        raise ScoringError(Kind.NOT_FOUND, f"model {name!r}: no such file or folder: {path}")
    files = tuple(replace(file, name=f"{own_name}/{file.name}") for file in _tree(path))
    if not files:
        raise ScoringError(Kind.PRECONDITION, f"model {name!r}: there is no file in {path}")
    return files


def _lone_file(path: Path, name: str, beside: Sequence[str]) -> tuple[SourceFile, ...]:
    _check_external(path, {place for place in beside if (path.parent / place).exists()}, beside)
    if name in beside:
        raise ScoringError(Kind.PRECONDITION, f"{path}: its external data is called {name}, as the model is to be")
    files = [_source(name, path.resolve(), path)]
    files += [_source(place, _within(path.parent / place, path.parent), path.parent / place) for place in beside]
    return tuple(sorted(files, key=lambda file: file.name))


def _check_external(model: Path, there: set[str], wanted: Sequence[str] | None = None) -> None:
    missing = [name for name in (external_files(model) if wanted is None else wanted) if name not in there]
    if missing:
        message = f"{model}: its external data is missing: {', '.join(missing)}; put it beside the model"
        raise ScoringError(Kind.PRECONDITION, message)


def _tree(folder: Path) -> tuple[SourceFile, ...]:
    files = []
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        for name in folders:
            if (Path(place) / name).is_symlink():
                message = (
                    f"{Path(place) / name} is a link to a folder; copy the model with cp -rL and register the copy"
                )
                raise ScoringError(Kind.PRECONDITION, message)
        for name in names:
            path = Path(place) / name
            files.append(_source(path.relative_to(folder).as_posix(), _within(path, folder), path))
    return tuple(sorted(files, key=lambda file: file.name))


def _within(path: Path, folder: Path) -> Path:
    """Where a link leads, which must be in the folder: a link to a secret is not to become a copy of it."""
    target = Path(os.path.realpath(path))  # Path.resolve ends in a RuntimeError where a link leads to itself
    if not target.is_relative_to(folder.resolve()):
        message = f"{path} is a link out of {folder}, to {target}; copy the model with cp -rL and register the copy"
        raise ScoringError(Kind.PRECONDITION, message)
    return target


def _source(name: str, target: Path, path: Path) -> SourceFile:
    try:
        about = target.stat()
    except OSError as error:
        raise ScoringError(Kind.PRECONDITION, f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(about.st_mode):
        raise ScoringError(Kind.PRECONDITION, f"{path} is no plain file, and cannot be part of a model")
    return SourceFile(name, target, about.st_size)


def _unreadable(error: OSError) -> None:
    raise ScoringError(Kind.PRECONDITION, f"{error.filename}: {error.strerror}") from error


def needed_bytes(files: Sequence[SourceFile]) -> int:
    """Room on the disk for a copy."""
    return sum(-(-file.size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES for file in files) + _FOLDERS_BYTES


def hash_files(files: Sequence[SourceFile], count: Count) -> tuple[str, ...]:
    """SHA-256 of each, hexadecimal."""
    return tuple(_hash(file, count) for file in files)


def _hash(file: SourceFile, count: Count) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(file):
        digest.update(chunk)
        count(len(chunk))
    return digest.hexdigest()


def copy_files(files: Sequence[SourceFile], hashes: Sequence[str], folder: Path, count: Count) -> None:
    """Copy into a folder; the copies are read-only. Raises ScoringError(CONFLICT) for a file that has changed."""
    for file, expected in zip(files, hashes, strict=True):
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy_file(file, target, count) != expected:
            message = f"{file.path} changed while it was being copied; register it when it is written"
            raise ScoringError(Kind.CONFLICT, message)


def copy_file(file: SourceFile, target: Path, count: Count) -> str:
    """Returns the copy's SHA-256."""
    digest = hashlib.sha256()
    with target.open("wb") as stream:
        for chunk in _chunks(file):
            digest.update(chunk)
            stream.write(chunk)
            count(len(chunk))
    target.chmod(0o444)
    return digest.hexdigest()


def _chunks(file: SourceFile) -> Iterator[bytes]:
    try:
        with file.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise ScoringError(Kind.PRECONDITION, f"{file.path}: {error.strerror}") from error


def content_sha256(files: Sequence[SourceFile], hashes: Sequence[str]) -> str:
    """Of the only file; of several: of what `sha256sum` prints for them in the order of their names' bytes."""
    if len(files) == 1:
        return hashes[0]
    lines = sorted((os.fsencode(file.name), digest) for file, digest in zip(files, hashes, strict=True))
    return hashlib.sha256(b"".join(b"%s  %s\n" % (digest.encode(), name) for name, digest in lines)).hexdigest()
