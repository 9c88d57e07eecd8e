"""Prepared models on disk: made once, found by digest, never half there."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from accelserve.durable_files import flush_tree, locked, move
from accelserve.errors import Kind, ScoringError

_DIGEST = re.compile(r"[0-9a-f]{8,128}")
_CHUNK_BYTES = 2**20
_REMEDY = "make room there, see who owns it, or set XDG_CACHE_HOME to a folder that can be written"


class FolderArtifactCache:
    """An ArtifactCache in a folder: one subfolder per digest.

    An entry is built in a folder of another name, flushed to disk and renamed, so a crash leaves no half entry. A
    lock per digest lets a second process wait for the first one's work instead of repeating it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        """The entry's folder; `build` fills it when it is absent. What `build` raises passes, and nothing is kept.

        Raises ScoringError(PRECONDITION) where the cache cannot be written: read-only, full, another's.
        """
        if not _DIGEST.fullmatch(digest):
            raise ScoringError(Kind.INVALID, f"a cache digest is lower-case hexadecimal, got {digest!r}")
        try:
            return self._folder(digest, build)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            message = f"the cache of prepared models {self._root} cannot be used: {what}; {_REMEDY}"
            raise ScoringError(Kind.PRECONDITION, message) from error

    def _folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        entry = self._root / digest
        if entry.is_dir():
            return entry
        self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._root / f".{digest}.lock"):
            if not entry.is_dir():
                self._remove_leftovers(digest)
                self._build(entry, build)
        return entry

    def _build(self, entry: Path, build: Callable[[Path], None]) -> None:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".tmp", dir=self._root))
        try:
            build(unfinished)
            flush_tree(unfinished)
            unfinished.chmod(0o755)  # mkdtemp's 0o700 would shut out a server under another user
            move(unfinished, entry)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _remove_leftovers(self, digest: str) -> None:
        """Folders of builds that crashed; under the digest's lock nobody else is building them."""
        for leftover in self._root.glob(f".{digest}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)


def digest_of(path: Path, options: Mapping[str, object]) -> str:
    """SHA-256 (hexadecimal) over a file, or a folder's files with their relative names, and the options.

    options: all else that changes the result (back end and tool versions, device family, shapes), as JSON values.
    """
    total = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        name = file.relative_to(path).as_posix() if file != path else ""
        total.update(f"\0{name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                total.update(chunk)
    return total.hexdigest()


def check_unchanged(model: str, source: Path, before: str, digest: Callable[[], str]) -> None:
    """At the end of a build: what was made of a new content must not be found under the old one's digest.

    Raises ScoringError(PRECONDITION).
    """
    try:
        after = digest()
    except (OSError, ScoringError):  # gone, or half there
        after = ""
    if before != after:
        message = f"{model}: {source} changed while it was converted; load it again when it is whole"
        raise ScoringError(Kind.PRECONDITION, message)
