"""From the configuration to the sources that it names."""

from pathlib import Path

from accelserve.config import ServerConfig
from accelserve.config_sources import ConfigError
from accelserve.models.watch import ModelSource, PathSource, StoreSource


def build_sources(config: ServerConfig) -> list[ModelSource]:
    """Where the models come from: the paths that were given, and the store.

    Raises ConfigError when a name is a path's and also the store's.
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
        sources.append(StoreSource(store, stored, taken))
    return sources
