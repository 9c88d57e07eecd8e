"""Models on disk: which versions a path holds, and where the model's own file is."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelserve.backends.base import ModelArtifact
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import FILE_NAME

# Inside a version folder, first match wins. A converted SavedModel ("cut") may hold a model.onnx besides.
_CONTENT = (
    ("saved_model.pb", "saved_model"),
    ("cut.json", "cut"),
    ("accel.json", "accelonnx"),
    ("model.onnx", "onnx"),
    ("synthetic.toml", "synthetic"),
)
_FOLDERS = ("saved_model", "cut", "accelonnx")  # formats that are a folder, not a file
_NAMED = ("saved_model.pb", "model.onnx")  # what messages ask for
_SYNTHETIC_SUFFIX = ".synthetic.toml"


@dataclass(frozen=True, slots=True)
class Found:
    """What a path holds. versions: the newest first. manifest: where the model's own file would be."""

    versions: tuple[ModelArtifact, ...]
    manifest: Path


def find_models(name: str, path: Path) -> Found:
    """Look at a path given by the user: a model file, one model's folder, or a folder of numeric version folders.

    Raises ScoringError: NOT_FOUND when there is nothing, or nothing that may be read; PRECONDITION when what is there
    is no model.
    """
    with _reading(name, path):
        if path.is_file():
            return _lone_file(name, path)
        version = _version_of(path)
        if (single := _artifact(name, path, 1 if version is None else version)) is not None:
            return Found((single,), own_file(path))
        return Found(_versions(name, path), path / FILE_NAME)


@contextmanager
def _reading(name: str, path: Path) -> Iterator[None]:
    """Raises ScoringError(NOT_FOUND) when there is nothing at `path`, or the file system refuses."""
    try:
        if not path.exists():
            raise ScoringError(Kind.NOT_FOUND, f"model {name!r}: no such file or folder: {path}")
        yield
    except OSError as error:
        where = error.filename or path
        raise ScoringError(Kind.NOT_FOUND, f"model {name!r}: {where}: {error.strerror}") from error


def name_of(path: Path) -> str:
    """A model's name where nobody gives one: that of its file or folder, of a version folder that of the one above."""
    place = Path(os.path.realpath(path))
    if not os.path.isdir(place):  # also where the file system refuses to say, which looking into it tells
        return place.name.partition(".")[0] or "model"
    return (place.parent if place.name.isdecimal() else place).name or "model"


def list_versions(name: str, path: Path) -> dict[int, Path]:
    """Where each version lies that a path holds: one scan of a folder, whatever the version folders hold.

    path, and what is raised: as for `find_models`.
    """
    with _reading(name, path):
        if path.is_file():
            return {artifact.version: path for artifact in _lone_file(name, path).versions}
        version = _version_of(path)
        if _artifact(name, path, 0) is not None:
            return {1 if version is None else version: path}
        return _numbered(name, path)


def find_version(name: str, version: int, place: Path) -> Found:
    """One version, where `list_versions` says that it lies. Raises ScoringError as `find_models` does."""
    with _reading(name, place):
        if place.is_file():
            return _lone_file(name, place)
        artifact = _artifact(name, place, version)
        if artifact is None:
            raise _empty(name, place)
        return Found((artifact,), own_file(place))


def own_file(place: Path) -> Path:
    """Where the own file of a model is, or would be, of which one version lies at `place`."""
    if place.is_file():
        named = place.name.removesuffix(_SYNTHETIC_SUFFIX)
        return place.with_name(f"{place.stem if named == place.name else named}.{FILE_NAME}")
    # A version folder's siblings share the model's file; any other folder's parent is a stranger.
    shared = _version_of(place) is not None and not (place / FILE_NAME).exists()
    return (place.parent if shared else place) / FILE_NAME


def _lone_file(name: str, path: Path) -> Found:
    if path.name.endswith(_SYNTHETIC_SUFFIX):
        artifact = ModelArtifact(name, 1, "synthetic", path)
        return Found((artifact,), own_file(path))
    if path.suffix == ".onnx":
        return Found((ModelArtifact(name, 1, "onnx", path),), own_file(path))
    wanted = "a .onnx file, a SavedModel folder or a folder of versions"
    raise ScoringError(Kind.PRECONDITION, f"model {name!r}: {path} is no model; want {wanted}")


def _numbered(name: str, base: Path) -> dict[int, Path]:
    numbered = {number: child for child in sorted(base.iterdir()) if (number := _version_of(child)) is not None}
    if not numbered:
        holds = ", ".join(_NAMED)
        seen = ", ".join(sorted(child.name for child in base.glob("*.onnx")))
        hint = f"; there is {seen}: serve that file, or call it model.onnx" if seen else ""
        message = f"model {name!r}: {base} holds neither {holds} nor a version folder such as {base.name}/1{hint}"
        raise ScoringError(Kind.PRECONDITION, message)
    return numbered


def _versions(name: str, base: Path) -> tuple[ModelArtifact, ...]:
    numbered = _numbered(name, base)
    found = [_artifact(name, numbered[number], number) for number in sorted(numbered, reverse=True)]
    if found[0] is None:
        raise _empty(name, numbered[max(numbered)])
    return tuple(artifact for artifact in found if artifact is not None)


def _empty(name: str, folder: Path) -> ScoringError:
    wanted = " or ".join(_NAMED)
    return ScoringError(Kind.PRECONDITION, f"model {name!r}: version folder {folder} holds no {wanted}")


def _version_of(folder: Path) -> int | None:
    """The number that a version folder's name says; leading zeros are fine, as in TF Serving."""
    return int(folder.name) if re.fullmatch(r"[0-9]{1,18}", folder.name) and folder.is_dir() else None


def _artifact(name: str, folder: Path, version: int) -> ModelArtifact | None:
    for content, model_format in _CONTENT:
        if (folder / content).is_file():
            place = folder if model_format in _FOLDERS else folder / content
            return ModelArtifact(name, version, model_format, place)
    return None
