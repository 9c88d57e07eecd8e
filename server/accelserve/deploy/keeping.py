"""What the revisions of a service use, kept as long as a process of theirs runs: models' versions, and scripts."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.folder import ServiceFolder
from accelserve.errors import ScoringError
from accelserve.models.store import Hold, ModelStore

logger = logging.getLogger("accelserve.deploy")

_Version = tuple[str, str, int]  # store, model, number


class Kept:
    """Of one service. Raises nothing: what cannot be kept or forgotten is logged, or tried again."""

    def __init__(self, folder: ServiceFolder) -> None:
        self._folder = folder
        self._holds: dict[_Version, Hold] = {}

    def hold(self, definition: ServiceDefinition) -> None:
        """Keep the model's version from being deleted; whoever tries is told the service's name."""
        version = _version(definition)
        if version is None or version in self._holds:
            return
        store, model, number = version
        try:
            self._holds[version] = ModelStore(Path(store)).hold(model, number, f"service {definition.name}")
        except ScoringError as error:  # the replicas will say the same, and their exit code counts
            logger.warning("%s", error.message)

    def forget_all_but(self, revision: int, in_use: Sequence[ServiceDefinition]) -> None:
        """revision: the one that is asked for; another that is written down, and not read yet, keeps all scripts."""
        for other in self._holds.keys() - {_version(definition) for definition in in_use}:
            self._holds.pop(other).release()
        with suppress(OSError, ScoringError), self._folder.changing_if_free() as free:
            if free and self._folder.read()[0] == revision:
                self._folder.remove_apps_but(*(Path(definition.entry_script) for definition in in_use))

    def release_all(self) -> None:
        for hold in self._holds.values():
            hold.release()
        self._holds.clear()


def _version(definition: ServiceDefinition) -> _Version | None:
    if not definition.model or definition.version is None:
        return None
    return definition.store, definition.model, definition.version
