"""From the configuration to the sources that it names."""

from pathlib import Path
from typing import TYPE_CHECKING

from accelserve.config import ServerConfig
from accelserve.config_sources import ConfigError
from accelserve.errors import ScoringError
from accelserve.models.watch import ModelSource, PathSource, StoreSource

if TYPE_CHECKING:
    from accelserve.models.store import ModelStore


def build_sources(config: ServerConfig) -> list[ModelSource]:
    """Where the models come from: the paths that were given, and the store.

    Raises ConfigError when a name is a path's and also the store's, or that of a model that only scripts open.
    """
    paths = [model for model in config.models if model.path is not None]
    sources: list[ModelSource] = [PathSource(paths)] if paths else []
    if config.store:
        from accelserve.models.store import ModelStore  # a server without a store starts sooner

        stored = [model for model in config.models if model.path is None]
        store = ModelStore(Path(config.store))
        taken = {model.name for model in paths}
        if clash := sorted(taken & set(() if stored else store.names())):
            told = f"store {config.store} has a model of this name too; rename one, or say which of the store to serve"
            raise ConfigError([f"--model {name}=...: {told}" for name in clash])
        custom = [model.name for model in stored if _is_custom(store, model.name)]
        if custom:
            told = "only an entry script opens what is registered as custom; to give it to one: --model-files"
            raise ConfigError([f"--model {name}: {told} {name}={store.root / name}" for name in custom])
        sources.append(StoreSource(store, stored, taken))
    return sources


def _is_custom(store: "ModelStore", name: str) -> bool:
    """Whether all that is registered under a name is for scripts; a store that cannot be read tells so by itself."""
    try:
        versions = store.versions(name)
    except ScoringError:
        return False
    return bool(versions) and all(stored.custom for stored in versions)
