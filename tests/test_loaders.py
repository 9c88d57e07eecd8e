"""The loader that the server and the commands share."""

import subprocess
import sys

from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.config import ModelConfig
from accelserve.loaders import build_loader
from model_builders import synthetic_model


def test_a_command_that_loads_a_model_imports_no_front_end():
    told = "import sys, accelserve.loaders; print(*sys.modules.keys() & {'uvicorn', 'fastapi', 'grpc', 'onnxruntime'})"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"


def test_it_loads_with_our_back_ends_and_keeps_leases_where_it_is_told(tmp_path):
    loader = build_loader("cpu", threads=2, instances=3, lease_dir=str(tmp_path / "leases"))
    assert (loader.device, loader.threads, loader.instances, loader.leases) == ("cpu", 2, 3, tmp_path / "leases")
    config = ModelConfig("m", synthetic_model(tmp_path / "m.synthetic.toml"))
    loaded = loader.load(config, loader.find(config))
    assert loaded.backend == SyntheticBackend.name
    assert len(loaded.sessions) == 3
    loaded.close()


def test_without_a_place_leases_and_prepared_models_are_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build_loader().leases == tmp_path / "accelserve" / "leases"
