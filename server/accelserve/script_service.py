"""From a server's configuration to its entry script: what workers are told, and the door by which they ask models."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from accelserve.clock import Clock
from accelserve.config import ServerConfig
from accelserve.durable_files import lock_if_free
from accelserve.entry_script.check import script_problems
from accelserve.entry_script.messages import WorkerSettings
from accelserve.entry_script.pool import WorkerPool
from accelserve.entry_script.pool_policy import pool_policy
from accelserve.errors import Kind, ScoringError

_MOST_SOCKET_PATH = 100  # the kernel takes 107 bytes
_DOOR = "accelserve-door-"


@dataclass(frozen=True, slots=True)
class PrivateDoor:
    """A Unix socket that only this user's processes reach, and the key that is shown there."""

    path: Path
    key: str = field(repr=False)

    @property
    def address(self) -> str:
        """As gRPC spells it."""
        return f"unix:{self.path}"


@contextmanager
def private_door() -> Iterator[PrivateDoor]:
    """In a folder of mode 0700, which is gone at the end; one of a server that was killed, when the next one begins."""
    parent = Path("/tmp" if len(tempfile.gettempdir()) > _MOST_SOCKET_PATH // 2 else tempfile.gettempdir())
    _sweep(parent)
    folder, lock = _own_folder(parent)
    try:
        yield PrivateDoor(folder / "grpc", secrets.token_urlsafe(32))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """And its lock, which tells others that it is in use. Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_DOOR, dir=parent))
        with suppress(FileNotFoundError):  # somebody swept it before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            if lock_if_free(lock) and folder.is_dir():
                return folder, lock
            os.close(lock)


def _sweep(parent: Path) -> None:
    """The folders of servers of ours that are no more."""
    for left in parent.glob(f"{_DOOR}*"):
        with suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(lock).st_uid == os.geteuid() and lock_if_free(lock):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def check_script(path: str) -> None:
    """Raises ScoringError before anything is started: NOT_FOUND, or PRECONDITION with all that is wrong with it."""
    if not Path(path).is_file():
        raise ScoringError(Kind.NOT_FOUND, f"there is no entry script {path}")
    if problems := script_problems(Path(path)):
        raise ScoringError(Kind.PRECONDITION, "\n".join(problems))


def script_pool(config: ServerConfig, door: PrivateDoor, clock: Clock, environ: Mapping[str, str]) -> WorkerPool:
    """The workers of a configuration that has an entry script; nothing starts yet."""
    policy = pool_policy(config, config.workers, int(config.scoring_timeout_s * 1000))
    return WorkerPool(worker_settings(config, door, environ), policy, clock)


def worker_settings(config: ServerConfig, door: PrivateDoor, environ: Mapping[str, str]) -> WorkerSettings:
    """environ: AML_APP_ROOT is the app root, where the script then starts, as in Azure ML's images; else its folder is.

    AZUREML_MODEL_DIR names the model folder; else `_model_folder` does.
    """
    script = Path(config.entry_script).absolute()
    app_root = environ.get("AML_APP_ROOT", "")
    paths = _model_paths(config)
    return WorkerSettings(
        script=str(script),
        app_root=os.path.abspath(app_root) if app_root else str(script.parent),
        working_directory=os.path.abspath(app_root) if app_root else "",
        model_dir=environ.get("AZUREML_MODEL_DIR", "") or _model_folder(paths),
        models={name: str(path) for name, path in paths.items()},
        legacy_tensorflow=config.legacy_tensorflow,
        service=config.service or "ML service",
        score_address=door.address,
        score_key=door.key,
        timeout_ms=int(config.scoring_timeout_s * 1000),
        nan=config.script_nan,
    )


def _model_folder(paths: Mapping[str, Path]) -> str:
    """Of the only version, or the only model; of several the folder that has them all as NAME/VERSION; "" for none."""
    pinned = {path for name, path in paths.items() if path.name.isdecimal() and path.parent.name == name}
    candidates = pinned or set(paths.values())
    if len(candidates) == 1:
        only = next(iter(candidates))
        return str(only if only.is_dir() else only.parent)
    names = {path.parent for path in pinned} or {path for name, path in paths.items() if path.name == name}
    homes = {path.parent for path in names}
    together = len(homes) == 1 and len(names) == len(candidates) and all(path.is_dir() for path in names)
    return str(next(iter(homes))) if together else ""


def _model_paths(config: ServerConfig) -> dict[str, Path]:
    """By name: the models that are served, those of the store too, and the files that only the script reads."""
    paths: dict[str, Path] = {}
    if config.store:
        named = {model.name: model.versions.specific for model in config.models if model.path is None}
        for name, folder in _store_folders(Path(config.store)):
            if not named or name in named:
                pinned = named.get(name, ())
                paths[name] = folder / str(pinned[0]) if len(pinned) == 1 else folder
    paths |= {model.name: model.path.absolute() for model in config.models if model.path is not None}
    return paths | {name: Path(os.path.abspath(path)) for name, path in config.model_files}


def _store_folders(store: Path) -> Iterator[tuple[str, Path]]:
    if store.is_dir():
        for folder in sorted(store.absolute().iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                yield folder.name, folder
