"""Which models a script is told of."""

from pathlib import Path

import pytest

from accelserve.config import ModelConfig, ServerConfig, VersionPolicy
from accelserve.script_service import PrivateDoor, worker_settings

DOOR = PrivateDoor(Path("/door"), "a key")


@pytest.fixture
def store(tmp_path):
    for version in ("1", "2"):
        (tmp_path / "m" / version).mkdir(parents=True)
        (tmp_path / "m" / version / "model.onnx").touch()
    return tmp_path


def test_a_version_that_is_pinned_is_the_scripts_too(store):
    models = (ModelConfig("m", None, versions=VersionPolicy(specific=(1,))),)
    settings = worker_settings(ServerConfig(models, store=str(store), entry_script="score.py"), DOOR, {})
    assert settings.models == {"m": str(store / "m" / "1")}
    assert settings.model_dir == str(store / "m" / "1")


def test_a_service_with_more_files_still_has_the_folder_of_its_version(store):
    files = (("m", f"{store}/m/1"), ("words", f"{store}/words.txt"))
    settings = worker_settings(ServerConfig(entry_script="score.py", model_files=files), DOOR, {})
    assert settings.model_dir == str(store / "m" / "1")
