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


def test_the_folder_of_several_models_is_the_one_that_has_them_all(store, tmp_path):
    (tmp_path / "other" / "1").mkdir(parents=True)

    def folder(config: ServerConfig, environ: dict[str, str] | None = None) -> str:
        return worker_settings(config, DOOR, environ or {}).model_dir

    config = ServerConfig(store=str(store), entry_script="score.py")
    assert folder(config) == str(store)
    pinned = VersionPolicy(specific=(1,))
    two = tuple(ModelConfig(name, None, versions=pinned) for name in ("m", "other"))
    assert folder(ServerConfig(two, store=str(store), entry_script="score.py")) == str(store)
    assert folder(config, {"AZUREML_MODEL_DIR": "/mine"}) == "/mine"
    apart = (ModelConfig("m", store / "m"), ModelConfig("n", store / "other"))
    assert folder(ServerConfig(apart, entry_script="score.py")) == ""


def test_the_app_root_is_the_scripts_folder_or_what_the_environment_says_where_the_script_then_starts(tmp_path):
    config = ServerConfig(entry_script=str(tmp_path / "code" / "score.py"))
    own = worker_settings(config, DOOR, {})
    assert (own.app_root, own.working_directory) == (str(tmp_path / "code"), "")
    told = worker_settings(config, DOOR, {"AML_APP_ROOT": str(tmp_path)})
    assert (told.app_root, told.working_directory) == (str(tmp_path), str(tmp_path))


def test_a_service_with_more_files_still_has_the_folder_of_its_version(store):
    files = (("m", f"{store}/m/1"), ("words", f"{store}/words.txt"))
    settings = worker_settings(ServerConfig(entry_script="score.py", model_files=files), DOOR, {})
    assert settings.model_dir == str(store / "m" / "1")
