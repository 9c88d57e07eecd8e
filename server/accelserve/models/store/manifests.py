"""A name's own file in the store: taken with its labels, put in place, and put back if the version never came."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.durable_files import move, write_whole
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import FILE_NAME, read_manifest
from accelserve.models.store.layout import NamePlaces

_LABELS_LINE = re.compile(r"^[ \t]*labels[ \t]*=.*$", re.MULTILINE)
_WAS_THERE, _WAS_NONE = ".toml", ".none"
_BEFORE = re.compile(rf"before-([0-9]{{1,18}})({re.escape(_WAS_THERE)}|{re.escape(_WAS_NONE)})")


@dataclass(frozen=True, slots=True)
class NameFile:
    """An accelserve.toml, and the labels file that it names. labels: file name and content."""

    text: bytes
    labels: tuple[str, bytes] | None = None

    def write(self, folder: Path) -> None:
        """The labels first: the file in place never names labels that are not there."""
        if self.labels is not None:
            name, content = self.labels
            write_whole(folder / name, content)
        write_whole(folder / FILE_NAME, self.text)


def take_manifest(path: Path) -> NameFile:
    """Read and check one, wherever it lies.

    Its labels get a name that says their content, so that two files of the name never share labels. Raises
    ScoringError(PRECONDITION).
    """
    read_manifest(path)
    try:
        return _renamed(path, path.read_text(encoding="utf-8"))
    except OSError as error:  # it went after it was checked
        raise ScoringError(Kind.PRECONDITION, f"{error.filename}: {error.strerror}") from error


def _renamed(path: Path, text: str) -> NameFile:
    content = tomllib.loads(text)
    if not content.get("labels"):
        return NameFile(text.encode())
    labels = path.parent / content["labels"]
    found = labels.read_bytes()
    name = _name_of(labels, found)
    renamed = _LABELS_LINE.sub(lambda _: f"labels = {json.dumps(name, ensure_ascii=False)}", text, count=1)
    if not _says(renamed, {**content, "labels": name}):
        raise ScoringError(Kind.PRECONDITION, f'{path}: labels: write it on one line, as labels = "{labels.name}"')
    return NameFile(renamed.encode(), (name, found))


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _name_of(labels: Path, content: bytes) -> str:
    mark = "-" + hashlib.sha256(content).hexdigest()[:8]
    return labels.name if labels.stem.endswith(mark) else f"{labels.stem}{mark}{labels.suffix}"


def put_manifest(places: NamePlaces, file: NameFile, version: int) -> None:
    """Make it the name's file, before `version` appears: a server that sees the version finds its file.

    What was there is kept until `settle_manifest`, under the store's lock.
    """
    present = places.folder / FILE_NAME
    before = present.read_bytes() if present.exists() else None
    if before != file.text:
        suffix = _WAS_NONE if before is None else _WAS_THERE
        write_whole(places.registry / f"before-{version}{suffix}", before or b"")
        file.write(places.folder)


def is_unsettled(places: NamePlaces) -> bool:
    return bool(_kept_before(places))


def _kept_before(places: NamePlaces) -> list[tuple[int, Path]]:
    """The kept files with the versions that they wait for."""
    found = ((_BEFORE.fullmatch(path.name), path) for path in places.registry.glob("before-*"))
    return [(int(match[1]), path) for match, path in found if match is not None]


def settle_manifest(places: NamePlaces) -> None:
    """Keep the new file if its version is there, else bring the old one back. Under the store's lock."""
    for version, before in _kept_before(places):
        present = places.folder / FILE_NAME
        if places.version(version).is_dir():
            before.unlink()
        elif before.suffix == _WAS_THERE:
            move(before, present)
        else:
            present.unlink(missing_ok=True)
            before.unlink()
