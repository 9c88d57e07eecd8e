"""Where a model lies: what `Model.get_model_path` answers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SAVED_MODEL = {"saved_model.pb", "saved_model.pbtxt"}


class ModelPathError(Exception):
    """There is no such model, or its folder is not as it should be. (azureml's WebserviceException.)"""


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """named: the models that the server was given; `.../NAME/VERSION` is that version and no other.

    Then `APP_ROOT/azureml-models/NAME`, the model folder's NAME, and NAME in the working directory, as azureml looks.
    """

    named: Mapping[str, str]
    app_root: str
    model_dir: str

    def find(self, name: str, version: int | None = None) -> str:
        """The path of a model's file or folder; of several versions the one asked for, else the latest.

        Raises ModelPathError.
        """
        if version is not None and not isinstance(version, int):
            raise ModelPathError("version should be an int")
        if name is None:
            raise ModelPathError("model_name is None")
        places = [Path(self.app_root, "azureml-models", name)]
        if self.model_dir:
            places.append(Path(self.model_dir, name))
        if name in self.named:
            given = Path(self.named[name])
            if not (given.is_dir() and given.name.isdecimal() and given.parent.name == name):
                places.insert(0, given)
            elif version in (None, int(given.name)):
                return str(_of_version(given))
        for place in places:
            found = _within(place, version)
            if found is not None:
                return str(found)
        if os.path.exists(name):
            return name
        looked = ", ".join(map(str, [*places, Path(name).absolute()]))
        known = f"; the server was given {', '.join(sorted(self.named))}" if self.named else ""
        raise ModelPathError(f"Model {name}{f' version {version}' if version else ''} not found at {looked}{known}")


def _within(place: Path, version: int | None) -> Path | None:
    """The model of a place that is one, or that holds versions of one; None if it is not there.

    Raises ModelPathError for a version that holds several things, and is not a model itself.
    """
    if not place.exists():
        return None
    versions = sorted(int(entry.name) for entry in _folders(place) if entry.name.isdecimal())
    if not versions or _is_model(place):
        return place
    wanted = version if version is not None else versions[-1]
    return _only_entry(place / str(wanted)) if wanted in versions else None


def _only_entry(folder: Path) -> Path:
    if _is_model(folder):
        return folder
    entries = sorted(entry.name for entry in folder.iterdir())
    if len(entries) != 1:
        raise ModelPathError(f"Dir {folder} can contain only 1 file or folder. Found {entries}")
    return folder / entries[0]


def _of_version(folder: Path) -> Path:
    """Of a version that was chosen: its only entry, else the folder, as a SavedModel is one."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and not _is_model(folder) else folder


def _folders(place: Path) -> list[Path]:
    return [entry for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []


def _is_model(folder: Path) -> bool:
    """A SavedModel, which the store keeps as the version's folder itself."""
    return any((folder / name).is_file() for name in _SAVED_MODEL)
