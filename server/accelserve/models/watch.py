"""What is there to serve: the versions that a path or the store holds, looked at again and again. Blocking, cheap."""

import errno
import logging
import os
import time
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from accelserve.config import ModelConfig
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import files_of_manifest
from accelserve.models.repository import list_versions, own_file
from accelserve.models.versions import choose

logger = logging.getLogger("accelserve.models")

HOLDER = "accelserve serve"  # told to whoever wants to delete a version that is served
_FRESH_NS = 2_000_000_000  # a folder changed so lately may change again without a new time stamp

Quiet = Container[tuple[str, int]]  # (name, version) of those that serve: how their files look does not matter


@dataclass(frozen=True, slots=True)
class Seen:
    """A version that is wanted and where it lies. stamp: differs when its files do. whole: nobody writes it now."""

    version: int
    place: Path
    stamp: Hashable = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look found of one model: its wanted versions, or why it could not be looked at."""

    config: ModelConfig
    versions: Mapping[int, Seen]
    problem: ScoringError | None = None


class Hold(Protocol):
    """Keeps a version's files from being deleted."""

    def release(self) -> None: ...


class ModelSource(Protocol):
    """Where models come from."""

    def expected(self) -> Sequence[ModelConfig]:
        """The models that are known before the first look."""
        ...

    def look(self, quiet: Quiet) -> Sequence[Sighting]:
        """Every model that is there. Raises OSError when nothing can be said: all stays as it was."""
        ...

    def hold(self, name: str, version: int) -> Hold | None:
        """Keep a version while it is served. Raises ScoringError(NOT_FOUND, CONFLICT)."""
        ...


class OwnFiles:
    """The own files of models that serve: says once of each change that it counts from the next load on."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int, int]] = {}

    def look(self, name: str, seen: Mapping[int, Seen], quiet: Quiet) -> None:
        """seen: the model's wanted versions, the highest first. One that does not serve yet will read the file.

        Raises OSError.
        """
        if not seen or any((name, version) not in quiet for version in seen):
            self._known.pop(name, None)
            return
        file = own_file(next(iter(seen.values())).place)
        before, now = self._known.get(name), _look_of(file)
        self._known[name] = now
        if before is not None and before != now and before[0] == now[0]:
            logger.info("model %s: %s has changed; it counts for versions that are loaded from now on", name, file)


class PathSource:
    """Models at paths given by the user. One that cannot be found any more is a problem, never the end of the model.

    A new version is whole when its files have not changed from one look to the next: it may be being copied. At the
    first look all are taken as they are.
    """

    def __init__(self, configs: Sequence[ModelConfig]) -> None:
        self._configs = configs
        self._stamps: dict[tuple[str, int], Hashable] | None = None
        self._own_files = OwnFiles()

    def expected(self) -> Sequence[ModelConfig]:
        return self._configs

    def look(self, quiet: Quiet) -> Sequence[Sighting]:
        stamps: dict[tuple[str, int], Hashable] = {}
        sightings = [self._look_at(config, quiet, stamps) for config in self._configs]
        self._stamps = stamps
        return sightings

    def hold(self, name: str, version: int) -> None:
        return None

    def _look_at(self, config: ModelConfig, quiet: Quiet, stamps: dict[tuple[str, int], Hashable]) -> Sighting:
        assert config.path is not None
        try:
            places = list_versions(config.name, config.path)
            chosen = choose(config.name, config.versions, places)
            seen = {}
            for version in chosen:
                key = (config.name, version)
                if key in quiet:
                    seen[version] = Seen(version, places[version])
                else:
                    stamps[key] = stamp = (stamp_of(places[version]), own_stamp(places[version]))
                    whole = self._stamps is None or self._stamps.get(key) == stamp
                    seen[version] = Seen(version, places[version], stamp, whole)
            self._own_files.look(config.name, seen, quiet)
        except ScoringError as error:
            return Sighting(config, {}, error)
        except OSError as error:
            return _unreadable(config, config.path, error)
        return Sighting(config, seen)


class StoredVersion(Protocol):
    """A registered version; its folder appears whole and never changes."""

    @property
    def version(self) -> int: ...

    @property
    def path(self) -> Path: ...

    @property
    def custom(self) -> bool:
        """Whether only an entry script opens it, so that it is not served."""
        ...


class Store(Protocol):
    """What is asked of the store: `STORE/NAME/VERSION/...`; entries that begin with a dot are nobody's model."""

    @property
    def root(self) -> Path: ...

    def versions(self, name: str) -> Sequence[StoredVersion]:
        """Raises ScoringError when nothing can be said of the name."""
        ...

    def hold(self, name: str, version: int, holder: str) -> Hold: ...


class StoreSource:
    """The registered models: all, or those that the configuration names. One that is gone is gone."""

    def __init__(self, store: Store, configs: Sequence[ModelConfig] = (), taken: Container[str] = ()) -> None:
        """configs: the only models to serve; all when empty. taken: names that others have."""
        self._store = store
        self._configs = {config.name: config for config in configs}
        self._taken = taken
        self._known: dict[str, tuple[int, Sequence[StoredVersion]]] = {}
        self._warned: set[str] = set()
        self._was_there = False
        self._own_files = OwnFiles()

    def expected(self) -> Sequence[ModelConfig]:
        return tuple(self._configs.values())

    def look(self, quiet: Quiet) -> Sequence[Sighting]:
        names = [name for name in self._names() if self._is_ours(name)]
        sightings = {name: self._sighting(name, quiet) for name in names}
        missing = [self._absent(config) for name, config in self._configs.items() if sightings.get(name) is None]
        return [*(sighting for sighting in sightings.values() if sighting is not None), *missing]

    def hold(self, name: str, version: int) -> Hold:
        return self._store.hold(name, version, HOLDER)

    def _names(self) -> list[str]:
        """The name folders; none before there is a store.

        Raises OSError when a store that was there is gone, or has nothing in it, as a place where nothing is mounted:
        a store whose models are all deleted still has its own folder.
        """
        root = self._store.root
        try:
            with os.scandir(root) as found:
                entries = list(found)
        except FileNotFoundError:
            if self._was_there:
                raise
            return []
        if self._was_there and not entries:
            raise FileNotFoundError(errno.ENOENT, "the store is empty and was not: is its storage mounted?", str(root))
        self._was_there = bool(entries)
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))

    def _is_ours(self, name: str) -> bool:
        if self._configs and name not in self._configs:
            return False
        if name not in self._taken:
            return True
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("model %s of store %s is not served: --model gives its name a path", name, self._store.root)
        return False

    def _sighting(self, name: str, quiet: Quiet) -> Sighting | None:
        """None for a name without any version."""
        config = self._configs.get(name) or ModelConfig(name, None)
        try:
            places = {stored.version: stored.path for stored in self._versions(name)}
            if not places:
                return None
            chosen = choose(name, config.versions, places)
            seen = {}
            for version in chosen:
                if (name, version) in quiet:
                    seen[version] = Seen(version, places[version])
                else:  # its files never change, but the name's own file may have kept it from loading
                    seen[version] = Seen(version, places[version], own_stamp(places[version]))
            self._own_files.look(name, seen, quiet)
        except ScoringError as error:
            return Sighting(config, {}, error)
        except OSError as error:
            return _unreadable(config, self._store.root / name, error)
        return Sighting(config, seen)

    def _versions(self, name: str) -> Sequence[StoredVersion]:
        """Read again only when the name's folder has changed: a version appears by a rename into it."""
        try:
            changed_ns = (self._store.root / name).stat().st_mtime_ns
        except FileNotFoundError:
            return ()
        known = self._known.get(name)
        if known is not None and known[0] == changed_ns:
            return known[1]
        found = [stored for stored in self._store.versions(name) if not stored.custom]
        if time.time_ns() - changed_ns > _FRESH_NS:
            self._known[name] = (changed_ns, found)
        return found

    def _absent(self, config: ModelConfig) -> Sighting:
        message = f"model {config.name!r}: store {self._store.root} has no model of this name"
        return Sighting(config, {}, ScoringError(Kind.NOT_FOUND, message))


def _unreadable(config: ModelConfig, place: Path, error: OSError) -> Sighting:
    message = f"model {config.name!r}: {place}: {error.strerror}"
    return Sighting(config, {}, ScoringError(Kind.NOT_FOUND, message))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or where nobody may look
        return False


def stamp_of(place: Path) -> Hashable:
    """Names, sizes and times of all files of a version, or of the lone file that it is."""
    if place.is_file():
        stat = place.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
    return tuple(sorted(_files(place)))


def own_stamp(place: Path) -> Hashable:
    """Sizes and times of the model's own file and the labels that it names, for a version at `place`."""
    return tuple(_look_of(file) for file in files_of_manifest(own_file(place)))


def _look_of(file: Path) -> tuple[str, int, int]:
    """Zeros for a file that is not there, or that nobody lets us see."""
    try:
        stat = file.stat()
    except OSError:
        return str(file), 0, 0
    return str(file), stat.st_size, stat.st_mtime_ns


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                stat = os.stat(path)
            except FileNotFoundError:  # gone between the listing and the look; the next look sees another stamp
                continue
            yield path, stat.st_size, stat.st_mtime_ns
