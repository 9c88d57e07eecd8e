"""A version on its way in: read from where it lies, copied into a work folder that is shaped like the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import FILE_NAME
from accelserve.models.repository import Found, find_models
from accelserve.models.store.content import (
    Count,
    SourceFile,
    content_sha256,
    copy_file,
    copy_files,
    hash_files,
    list_as_it_is,
    list_content,
    needed_bytes,
)
from accelserve.models.store.manifests import NameFile, take_manifest
from accelserve.models.store.records import CUSTOM, Registration

CopyProgress = Callable[[str, int, int], None]  # what is being done; bytes done and to do


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be registered. path: as given; the newest version there was taken."""

    path: Path
    format: str
    files: tuple[SourceFile, ...]
    manifest: NameFile | None
    sample: SourceFile | None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def needed_bytes(self) -> int:
        return needed_bytes((*self.files, *([self.sample] if self.sample else [])))


@dataclass(frozen=True, slots=True)
class Draft:
    """A copy that is whole, and that nobody sees yet. model: a folder like STORE/NAME, with the one version."""

    model: Path
    content: Path
    sample: Path | None
    sha256: str


def read_source(name: str, path: Path, about: Registration) -> Source:
    """List what lies at a path, as `serve` finds it, or as it is if `about` says so.

    about: without a manifest, the one that `serve` would use there is taken. Raises ScoringError: NOT_FOUND,
    PRECONDITION.
    """
    sample = about.sample
    kept = SourceFile(sample.name, sample.resolve(), sample.stat().st_size) if sample else None
    if about.custom:
        return Source(path, CUSTOM, list_as_it_is(name, path), None, kept)
    found = _find(name, path)
    own = about.manifest or (found.manifest if found.manifest.is_file() else None)
    files = list_content(path, found)
    return Source(path, found.versions[0].format, files, take_manifest(own) if own else None, kept)


def _find(name: str, path: Path) -> Found:
    """As `find_models`, with the remedy for what is no model."""
    try:
        return find_models(name, path)
    except ScoringError as error:
        if error.kind is not Kind.PRECONDITION:
            raise
        message = f"{error.message}; --custom registers what only an entry script opens"
        raise ScoringError(error.kind, message) from error


def _files_now(name: str, source: Source) -> tuple[SourceFile, ...]:
    if source.format == CUSTOM:
        return list_as_it_is(name, source.path)
    return list_content(source.path, find_models(name, source.path))


def copy_source(source: Source, name: str, version: int, present: Path, folder: Path, progress: CopyProgress) -> Draft:
    """Copy into an empty folder. present: STORE/NAME, whose own file the draft gets when the source has none.

    version: the number that it will probably have. Raises ScoringError(CONFLICT) when the source changes meanwhile.
    """
    model = folder / name
    content = model / str(version)
    content.mkdir(parents=True)
    hashes = hash_files(source.files, _counter(progress, "reading", source.size_bytes))
    copy_files(source.files, hashes, content, _counter(progress, "copying", source.size_bytes))
    if _names(_files_now(name, source)) != _names(source.files):
        message = f"{source.path}: files came or went while it was being copied; register it when it is written"
        raise ScoringError(Kind.CONFLICT, message)
    own = source.manifest
    if own is None and (present / FILE_NAME).is_file():
        own = take_manifest(present / FILE_NAME)
    if own is not None:
        own.write(model)
    kept = None
    if source.sample is not None:
        kept = folder / f"sample{source.sample.path.suffix}"
        copy_file(source.sample, kept, lambda _: None)
    return Draft(model, content, kept, content_sha256(source.files, hashes))


def _names(files: Sequence[SourceFile]) -> list[str]:
    return [file.name for file in files]


def _counter(progress: CopyProgress, what: str, total: int) -> Count:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count
