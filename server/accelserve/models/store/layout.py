"""Where things are in a store.

    STORE/NAME/VERSION/             the model's files and nothing else: what was registered, byte for byte
    STORE/NAME/accelserve.toml      the name's own file, with its labels; optional
    STORE/NAME/.registry/           what is known of the versions
        VERSION.json                the record; replaced as a whole when tags change
        VERSION.sample.SUFFIX       the sample input
        VERSION.hold, VERSION.hold.*    the lock of those who use the version, and their names
        highest                     the highest number that was ever given
        before-VERSION.*            the name's own file as it was, while VERSION is being registered
    STORE/.accelserve/lock          held by a writer for the moment of a change
    STORE/.accelserve/incoming/     versions being copied, and being removed

The record is beside the version folder and not in it: so the folder never changes, its checksum is that of what was
registered, and tags are updated by replacing one file. The rename of the version folder is the moment at which the
version exists; a record without its folder is a leftover.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accelserve.config_sources import parse_model
from accelserve.durable_files import write_whole
from accelserve.errors import Kind, ScoringError

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class NamePlaces:
    """The places of one name."""

    folder: Path

    @property
    def registry(self) -> Path:
        return self.folder / ".registry"

    @property
    def highest(self) -> Path:
        return self.registry / "highest"

    def version(self, version: int) -> Path:
        return self.folder / str(version)

    def record(self, version: int) -> Path:
        return self.registry / f"{version}.json"

    def hold(self, version: int) -> Path:
        return self.registry / f"{version}.hold"

    def version_numbers(self) -> list[int]:
        """Of the version folders, registered or not, the highest first; [] when there is no such name."""
        try:
            names = [child.name for child in self.folder.iterdir() if child.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted((int(name) for name in names if _VERSION.fullmatch(name)), reverse=True)

    def next_version(self) -> int:
        """One above the highest number ever used, also by a version that was deleted.

        Raises ScoringError(CONFLICT) when what was written down is no number.
        """
        return max([self._remembered(), *self.version_numbers()[:1]]) + 1

    def remember_highest(self) -> None:
        """Write down what the version folders say, for when they are gone. Under the store's lock."""
        highest = self.next_version() - 1
        if highest > self._remembered():
            write_whole(self.highest, b"%d\n" % highest)

    def _remembered(self) -> int:
        try:
            return int(text := self.highest.read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            remedy = "write there the highest number that any version of this name ever had"
            raise ScoringError(Kind.CONFLICT, f"{self.highest}: want a number, got {text[:40]!r}; {remedy}") from error

    def remove_records(self, version: int) -> None:
        """What is known of a version that is not there, and files whose writers died. Under the store's lock."""
        unfinished = (*self.registry.glob(".*.tmp"), *self.folder.glob(".*.tmp"))
        for leftover in (*self.registry.glob(f"{version}.*"), *unfinished):
            leftover.unlink(missing_ok=True)


def is_model_name(name: str) -> bool:
    """Whether `serve --model NAME=PATH` would take it: the rule is written down there."""
    try:
        return parse_model(f"{name}=.").name == name
    except ValueError:
        return False


def parse_reference(text: str) -> tuple[str, int | None]:
    """`NAME` or `NAME:VERSION`. Raises ValueError."""
    name, colon, version = text.partition(":")
    if not is_model_name(name) or (colon and not _VERSION.fullmatch(version)):
        raise ValueError(f"{text!r}: want NAME or NAME:VERSION, for example resnet50:3")
    return name, int(version) if colon else None


def default_store_root(environ: Mapping[str, str]) -> Path:
    """`ACCELSERVE_STORE`, else a folder in the user's data folder (XDG base directory specification)."""
    if chosen := environ.get("ACCELSERVE_STORE"):
        return Path(chosen).expanduser()
    return user_data_folder(environ) / "store"


def user_data_folder(environ: Mapping[str, str]) -> Path:
    """Ours in the user's data folder."""
    base = environ.get("XDG_DATA_HOME", "")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return (Path(base) if Path(base).is_absolute() else home / ".local" / "share") / "accelserve"
