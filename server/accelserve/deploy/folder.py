"""Where a service's things are, and how they change: old or new, never half. `registry` has all services.

SERVICES/NAME/definition.json   what is asked for, with its revision; replaced as a whole
SERVICES/NAME/keys.json         the two keys, readable by their owner only
SERVICES/NAME/app-REVISION/     the entry script as it was deployed, with its folder
SERVICES/NAME/state.json        what the supervisor last told
SERVICES/NAME/supervisor.lock   held by the supervisor as long as it lives; its process number
SERVICES/NAME/change.lock       held by whoever changes the definition
SERVICES/NAME/stop              asks the supervisor to drain the replicas and to end
SERVICES/NAME/log/              its log and the replicas'
"""

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.definition_json import as_json, from_json, shown
from accelserve.deploy.rules import problems_of
from accelserve.durable_files import lock_if_free, locked, write_whole
from accelserve.errors import Kind, ScoringError

_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.05
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class ServiceFolder:
    """One service on disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def keys(self) -> Path:
        return self.path / "keys.json"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def stop(self) -> Path:
        return self.path / "stop"

    @property
    def is_to_stop(self) -> bool:
        """Not where that cannot be seen."""
        try:
            return self.stop.exists()
        except OSError:
            return False

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def definition_file(self) -> Path:
        return self.path / "definition.json"

    def app(self, revision: int) -> Path:
        return self.path / f"app-{revision}"

    def read(self) -> tuple[int, ServiceDefinition]:
        """The revision and the definition. Raises ScoringError: NOT_FOUND; CONFLICT when the file is damaged."""
        try:
            return self._read()
        except FileNotFoundError:
            raise self._not_there() from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            message = f"{self.definition_file} cannot be read: {why}; delete the service, or put the file back"
            raise ScoringError(Kind.CONFLICT, message) from error

    def _read(self) -> tuple[int, ServiceDefinition]:
        document = json.loads(self.definition_file.read_bytes())
        if not isinstance(document, dict):
            raise ValueError(f"want an object, got {shown(document)}")
        revision, definition = document["revision"], from_json(document["definition"])
        if type(revision) is not int or revision < 1:
            raise ValueError(f"'revision': got {shown(revision)}")
        if definition.name != self.name:
            raise ValueError(f"it is of service {shown(definition.name)}")
        if problems := problems_of(definition):
            raise ValueError("; ".join(problems))
        return revision, definition

    def _not_there(self) -> ScoringError:
        return ScoringError(Kind.NOT_FOUND, f'there is no service "{self.name}"')

    def write(self, revision: int, definition: ServiceDefinition) -> None:
        """To be called with the change lock held, or while the folder is being made. Raises OSError."""
        document = {"revision": revision, "definition": as_json(definition)}
        write_whole(self.definition_file, json.dumps(document, indent=2).encode() + b"\n")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep others from changing the definition meanwhile. Raises ScoringError: NOT_FOUND, CONFLICT."""
        if not self.path.is_dir():
            raise self._not_there()
        with folder_errors(self.path), locked(self.path / "change.lock"):
            yield

    @contextmanager
    def changing_if_free(self) -> Iterator[bool]:
        """As `changing`, without waiting: whether the lock was had."""
        descriptor = os.open(self.path / "change.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock_if_free(descriptor)
        finally:
            os.close(descriptor)

    def remove_apps_but(self, *scripts: Path) -> None:
        """The folders of other scripts."""
        for folder in self.path.glob("app-*"):
            if not any(script.is_relative_to(folder) for script in scripts):
                shutil.rmtree(folder, ignore_errors=True)

    # -- the supervisor's life --------------------------------------------------------------------------------------

    def take_lock(self, sleep: Callable[[float], None] = time.sleep) -> int | None:
        """The lock of a supervisor's life, an open file; None when another lives. Raises OSError.

        It is tried for a second: who looks whether a supervisor lives has it for a moment.
        """
        descriptor = os.open(self.path / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(_LOCK_TRIES):
            if lock_if_free(descriptor):
                break
            sleep(_LOCK_PAUSE_S)
        else:
            os.close(descriptor)
            return None
        with suppress(OSError):  # a full disk: the lock is what counts
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d" % os.getpid(), 0)
        return descriptor

    def is_locked_by(self, lock: int) -> bool:
        """Whether this folder's lock still is the one that was taken; not when it was removed, or made anew."""
        try:
            there, taken = (self.path / "supervisor.lock").stat(), os.fstat(lock)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # it cannot be seen, which says nothing
            return True
        return os.path.samestat(there, taken)

    def supervisor(self) -> int | None:
        """The living supervisor's process number, 0 when it cannot be read; None when none lives."""
        try:
            descriptor = os.open(self.path / "supervisor.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if lock_if_free(descriptor, fcntl.LOCK_SH):
                return None
            text = os.pread(descriptor, 20, 0)
            return int(text) if re.fullmatch(b"[0-9]+", text) else 0
        finally:
            os.close(descriptor)


@contextmanager
def folder_errors(root: Path) -> Iterator[None]:
    """Turn an OSError of the body into a ScoringError(CONFLICT) that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        remedy = "make room" if error.errno in _FULL else "see who owns it, or choose another with ACCELSERVE_SERVICES"
        raise ScoringError(Kind.CONFLICT, f"services in {root}: {what}; {remedy}") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """None when it is not there, is damaged, or is no object."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def replace_soon(path: Path, content: bytes) -> None:
    """As `write_whole`, without waiting for the disk: a crash of the machine may bring the old back. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
