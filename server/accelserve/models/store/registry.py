"""The store: what is registered, who uses it, and how that changes."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelserve.durable_files import flush, flush_tree, lock_if_free, locked, move, write_whole
from accelserve.errors import Kind, ScoringError
from accelserve.models.store.draft import CopyProgress, Draft, Source, copy_source, read_source
from accelserve.models.store.holds import Hold, holders, take_hold, unheld
from accelserve.models.store.incoming import Incoming
from accelserve.models.store.layout import NamePlaces, is_model_name, parse_reference
from accelserve.models.store.manifests import is_unsettled, put_manifest, settle_manifest
from accelserve.models.store.records import (
    Registration,
    StoredModel,
    decode_record,
    encode_record,
    framework_of,
    problems_of,
)
from accelserve.models.store.store_errors import disk_errors, free_bytes, store_full

logger = logging.getLogger("accelserve.store")

# Told the draft's folder, says the signatures of the model in it, None when they cannot be known; raises to refuse it.
Inspect = Callable[[Path], Mapping[str, Any] | None]

_OWN_FOLDER = ".accelserve"


class ModelStore:
    """Registered models in a folder, which is a TF Serving model repository too.

    Any number of processes may use one folder. Reading needs no lock and no right to write. What a version is made of
    never changes; a number is never given twice.
    """

    def __init__(self, root: Path) -> None:
        """root: need not exist; the first `register` makes it."""
        self.root = root

    def names(self) -> tuple[str, ...]:
        """The models with at least one version, by name. Raises ScoringError(CONFLICT) if the folder cannot be read."""
        with disk_errors(self.root):
            try:
                found = sorted(child.name for child in self.root.iterdir() if is_model_name(child.name))
            except FileNotFoundError:
                return ()
        return tuple(name for name in found if self._has_versions(name))

    def _has_versions(self, name: str) -> bool:
        """One name that cannot be read hides no other."""
        try:
            return bool(self.versions(name))
        except ScoringError as error:
            logger.warning("%s is left out: %s", name, error.message)
            return False

    def versions(self, name: str) -> tuple[StoredModel, ...]:
        """What is registered under a name, the newest first; () for an unknown name.

        A version whose record cannot be read is logged and left out. Raises ScoringError(CONFLICT) when the name's
        folder cannot be read: nothing can then be said of it, and no version is taken to be gone.
        """
        if not is_model_name(name):  # lost+found, and what else a volume may hold
            return ()
        places = self._places(name)
        with disk_errors(self.root):
            if is_unsettled(places):
                self._settle(places)
            numbers = places.version_numbers()
        found = (self._read(name, number) for number in numbers)
        return tuple(model for model in found if model is not None)

    def find(self, name: str, version: int | None = None) -> StoredModel:
        """One version, the newest by default. Raises ScoringError(NOT_FOUND) saying what there is."""
        found = self.versions(name)
        if not found:
            there = ", ".join(self.names()) or "nothing"
            raise ScoringError(Kind.NOT_FOUND, f'store {self.root} has no model "{name}"; it has: {there}')
        for model in found:
            if version in (None, model.version):
                return model
        there = ", ".join(str(model.version) for model in found)
        raise ScoringError(Kind.NOT_FOUND, f"store {self.root} has no {name}:{version}; {name} has: {there}")

    def hold(self, name: str, version: int, holder: str) -> Hold:
        """Keep a version from being deleted while this process uses it. holder: who, as the deleter is to be told.

        Raises ScoringError: NOT_FOUND; CONFLICT while it is being deleted.
        """
        model = self.find(name, version)
        with disk_errors(self.root):
            hold = take_hold(self._places(name).hold(version), model.reference, holder)
        if not model.path.is_dir():  # deleted between the look and the lock
            hold.release()
            raise ScoringError(Kind.NOT_FOUND, f"{model.reference} was deleted from store {self.root}")
        return hold

    def users(self, name: str, version: int) -> tuple[str, ...]:
        """Who refers to a version, in words: processes that hold it, versions that were made from it."""
        reference = f"{name}:{version}"
        made = [m.reference for other in self.names() for m in self.versions(other) if m.parent == reference]
        used = tuple(f"in use by {holder}" for holder in holders(self._places(name).hold(version)))
        return (*used, *(f"{child} was made from it" for child in made))

    def register(
        self,
        name: str,
        path: Path,
        about: Registration | None = None,
        inspect: Inspect = lambda _: None,
        progress: CopyProgress = lambda *_: None,
    ) -> StoredModel:
        """Copy a model into the store, as the next version of its name.

        path: what `serve` takes, of several versions the newest; of a custom model any file or folder. Raises
        ScoringError, the store as it was: INVALID with all that is wrong with what was told, NOT_FOUND, PRECONDITION
        for what is no model, CONFLICT when the disk is full or the model changes meanwhile, and what `inspect` raises.
        """
        about = about or Registration()
        _check(name, about)
        self._find_parent(about)
        source = read_source(name, path, about)
        if free_bytes(self.root) < source.needed_bytes:
            raise store_full(self.root, source.needed_bytes)
        places = self._places(name)
        with disk_errors(self.root, source.needed_bytes):
            with self._writing() as incoming:
                work, version = incoming.folder(name), places.next_version()
            with closing(work):
                draft = copy_source(source, name, version, places.folder, work.path, progress)
                signatures = inspect(draft.model)
                flush_tree(work.path)
                with self._writing():
                    self._find_parent(about)
                    return self._commit(places, source, draft, about, signatures)

    def _commit(
        self,
        places: NamePlaces,
        source: Source,
        draft: Draft,
        about: Registration,
        signatures: Mapping[str, Any] | None,
    ) -> StoredModel:
        """Under the store's lock. The version is there from the rename of its folder on, and not before."""
        if not places.registry.is_dir():
            places.registry.mkdir(parents=True)
            flush(places.folder)
            flush(self.root)
        settle_manifest(places)
        version = places.next_version()
        places.remove_records(version)  # of a registration that died here
        model = _model(places, version, source, draft, about, signatures)
        try:
            places.hold(version).touch(mode=0o644)
            if draft.sample is not None and model.sample is not None:
                move(draft.sample, model.sample)
            write_whole(places.record(version), encode_record(model))
            if source.manifest is not None:
                put_manifest(places, source.manifest, version)
            move(draft.content, model.path)
        finally:
            settle_manifest(places)
        with suppress(OSError):  # the version is there; `delete` writes the number down before it needs it
            places.remember_highest()
        return model

    def _find_parent(self, about: Registration) -> None:
        if about.parent is not None:
            self.find(*parse_reference(about.parent))

    def update(
        self,
        name: str,
        version: int,
        tags: Mapping[str, str] | None = None,
        remove_tags: Collection[str] = (),
        description: str | None = None,
    ) -> StoredModel:
        """Change what may change. tags: added, or given new values.

        Raises ScoringError: INVALID; NOT_FOUND, for a tag too.
        """
        _check(name, Registration(tags=tags or {}, description=description or ""))
        self.find(name, version)
        with self._writing():
            model = self.find(name, version)
            absent = sorted(set(remove_tags) - model.tags.keys())
            if absent:
                there = ", ".join(sorted(model.tags)) or "none"
                message = f"{model.reference} has no tag {', '.join(absent)}; its tags: {there}"
                raise ScoringError(Kind.NOT_FOUND, message)
            kept = {key: value for key, value in model.tags.items() if key not in remove_tags}
            changed = replace(
                model,
                tags={**kept, **(tags or {})},
                description=model.description if description is None else description,
            )
            write_whole(self._places(name).record(version), encode_record(changed))
        return changed

    def delete(self, name: str, version: int) -> None:
        """Remove a version for ever; its number is not given again.

        Raises ScoringError: NOT_FOUND; CONFLICT naming all who refer to it.
        """
        self.find(name, version)
        with self._writing() as incoming:
            model, places = self.find(name, version), self._places(name)
            self._refuse_if_used(model, self.users(name, version))
            with unheld(places.hold(version)) as holding:
                self._refuse_if_used(model, [f"in use by {holder}" for holder in holding])
                trash = incoming.folder(name)
                # The number first: once the folder is gone, nothing else remembers it.
                places.remember_highest()
                move(places.version(version), trash.path / str(version))
                flush(places.folder)
                places.remove_records(version)
        trash.close()

    def _refuse_if_used(self, model: StoredModel, users: Collection[str]) -> None:
        if users:
            message = f"{model.reference} is not deleted: {'; '.join(users)}"
            raise ScoringError(Kind.CONFLICT, message, reason="in_use")

    @contextmanager
    def _writing(self) -> Iterator[Incoming]:
        """The store's lock, held for the moment of a change; what dead writers left is swept first."""
        own = self.root / _OWN_FOLDER
        with disk_errors(self.root):
            (own / "incoming").mkdir(parents=True, exist_ok=True)
            with locked(own / "lock"):
                incoming = Incoming(own / "incoming")
                incoming.sweep()
                yield incoming

    def _settle(self, places: NamePlaces) -> None:
        """Bring back the name's own file that a registration changed and died; a living one holds the lock."""
        try:
            lock = os.open(self.root / _OWN_FOLDER / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            logger.info("store %s: an unfinished registration is left for its owner to undo: %s", self.root, error)
            return
        try:
            if lock_if_free(lock):
                settle_manifest(places)
        finally:
            os.close(lock)

    def _places(self, name: str) -> NamePlaces:
        return NamePlaces(self.root / name)

    def _read(self, name: str, version: int) -> StoredModel | None:
        places = self._places(name)
        try:
            content = places.record(version).read_bytes()
            return decode_record(content, name, version, places.version(version), places.registry)
        except FileNotFoundError:  # never registered, or deleted meanwhile
            return None
        except (OSError, ValueError) as error:
            logger.warning("store %s: %s:%d is left out: its record: %s", self.root, name, version, error)
            return None


def _check(name: str, about: Registration) -> None:
    if problems := problems_of(name, about):
        raise ScoringError(Kind.INVALID, "; ".join(problems))


def _model(
    places: NamePlaces,
    version: int,
    source: Source,
    draft: Draft,
    about: Registration,
    signatures: Mapping[str, Any] | None,
) -> StoredModel:
    sample = places.registry / f"{version}.sample{draft.sample.suffix}" if draft.sample is not None else None
    return StoredModel(
        name=places.folder.name,
        version=version,
        path=places.version(version),
        format=source.format,
        sha256=draft.sha256,
        size_bytes=source.size_bytes,
        created_time=datetime.now(UTC).isoformat(timespec="seconds"),
        framework=framework_of(about.framework, source.format),
        framework_version=about.framework_version,
        tags=dict(about.tags),
        properties=dict(about.properties),
        description=about.description,
        parent=about.parent,
        signatures=signatures,
        sample=sample,
    )
