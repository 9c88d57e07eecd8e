"""All services of a folder: made whole, found, and removed.

    SERVICES/NAME/                  a service: `folder`
    SERVICES/.new-*, .gone-*        services that are being made or removed

A service is there from the rename of its folder on, and not before; so of two who deploy one name at once one is told
that it exists.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from accelserve.deploy.definition import ServiceDefinition, is_service_name
from accelserve.deploy.folder import ServiceFolder, folder_errors
from accelserve.durable_files import lock_if_free
from accelserve.errors import Kind, ScoringError
from accelserve.models.store import user_data_folder


def services_root(environ: Mapping[str, str]) -> Path:
    """`ACCELSERVE_SERVICES`, else a folder in the user's data folder."""
    if chosen := environ.get("ACCELSERVE_SERVICES"):
        return Path(chosen).expanduser().absolute()
    return user_data_folder(environ) / "services"


@dataclass(frozen=True, slots=True)
class Services:
    """All services of a folder, which need not exist."""

    root: Path

    def names(self) -> list[str]:
        """Raises ScoringError(CONFLICT) when the folder cannot be read."""
        with folder_errors(self.root):
            try:
                return sorted(place.name for place in self.root.iterdir() if is_service_name(place.name))
            except FileNotFoundError:
                return []

    def find(self, name: str) -> ServiceFolder:
        """Raises ScoringError(NOT_FOUND) saying what there is."""
        there = self.names()
        if name not in there:
            message = f'there is no service "{name}"; there is: {", ".join(there) or "none"}'
            raise ScoringError(Kind.NOT_FOUND, message)
        return ServiceFolder(self.root / name)

    def folder(self, name: str) -> ServiceFolder:
        return ServiceFolder(self.root / name)

    def create(
        self, definition: ServiceDefinition, fill: Callable[[ServiceFolder], ServiceDefinition]
    ) -> ServiceFolder:
        """Make a service's folder; it appears whole, as revision 1.

        fill: puts in what belongs to it, and says the definition with its own paths. Raises ScoringError(CONFLICT) when
        there is one of that name, or the disk refuses.
        """
        with folder_errors(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():  # one that is not locked yet would be swept by others
                self._sweep()
                made = ServiceFolder(Path(tempfile.mkdtemp(prefix=".new-", dir=self.root)))
                alive = os.open(made.path, os.O_RDONLY | os.O_CLOEXEC)
                lock_if_free(alive)
            try:
                made.log.mkdir(mode=0o700)
                made.write(1, fill(made))
                _rename_new(made.path, self.root / definition.name)
            except BaseException:
                shutil.rmtree(made.path, ignore_errors=True)
                raise
            finally:
                os.close(alive)
        return self.folder(definition.name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among those that make, move and sweep folders."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """What commands left that were killed while they made or removed a service."""
        for left in (*self.root.glob(".new-*"), *self.root.glob(".gone-*")):
            with suppress(OSError):
                descriptor = os.open(left, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if lock_if_free(descriptor):
                        shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(descriptor)

    def remove(self, service: ServiceFolder, end: Callable[[ServiceFolder], None]) -> None:
        """The name is free from the rename on; on a full disk, which has no room for it, when all is removed.

        end: ends the supervisor of what was moved aside, if somebody started one meanwhile.
        """
        with folder_errors(self.root):
            with self._alone():
                try:
                    gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.root))
                except OSError:
                    shutil.rmtree(service.path)  # which ends a supervisor too, later
                    return
                service.path.rename(gone / service.name)
            end(ServiceFolder(gone / service.name))
            shutil.rmtree(gone, ignore_errors=True)

    def users_of(self, store: Path, model: str, version: int) -> list[str]:
        """The services that are deployed with a registered version, running or not."""
        return [name for name in self.names() if self._uses(name, store, model, version)]

    def _uses(self, name: str, store: Path, model: str, version: int) -> bool:
        try:
            _, definition = self.folder(name).read()
        except ScoringError:
            return False
        same_store = Path(definition.store).resolve() == store.resolve() if definition.store else False
        return same_store and (definition.model, definition.version) == (model, version)


def _rename_new(made: Path, place: Path) -> None:
    """A folder that is there and not empty is not replaced, which makes one winner of two."""
    try:
        made.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        message = f'there is a service "{place.name}" already; say --overwrite to change it, or delete it'
        raise ScoringError(Kind.CONFLICT, message) from error
