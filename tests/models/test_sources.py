"""Which sources a configuration names, and which it must not."""

from pathlib import Path

import pytest

from accelserve.config import ModelConfig, ServerConfig
from accelserve.config_sources import ConfigError
from accelserve.models.sources import build_sources
from accelserve.models.store import ModelStore, Registration
from accelserve.models.watch import PathSource, StoreSource
from model_builders import synthetic_model


@pytest.fixture
def store(tmp_path):
    """m, and words, which only an entry script opens."""
    (tmp_path / "words.txt").write_text("one two")
    made = ModelStore(tmp_path / "store")
    made.register("m", synthetic_model(tmp_path / "m.synthetic.toml"))
    made.register("words", tmp_path / "words.txt", Registration(custom=True))
    return made


def refused(config):
    with pytest.raises(ConfigError) as caught:
        build_sources(config)
    return caught.value.problems


def test_paths_and_the_store_are_a_source_each(store, tmp_path):
    config = ServerConfig(models=(ModelConfig("other", tmp_path),), store=str(store.root))
    assert [type(source) for source in build_sources(config)] == [PathSource, StoreSource]


def test_a_name_that_a_path_and_the_store_have_is_refused(store):
    (problem,) = refused(ServerConfig(models=(ModelConfig("m", Path("elsewhere")),), store=str(store.root)))
    assert problem.startswith("--model m=...: ")


def test_a_model_that_only_scripts_open_is_refused_with_the_way_to_give_it_to_one(store):
    config = ServerConfig(models=(ModelConfig("m", None), ModelConfig("words", None)), store=str(store.root))
    (problem,) = refused(config)
    assert problem.endswith(f"--model-files words={store.root / 'words'}")
    (source,) = build_sources(ServerConfig(store=str(store.root)))
    assert [sighting.config.name for sighting in source.look(set())] == ["m"]
