"""On which device a model is loaded, and what happens where it cannot be."""

import pytest

from accelserve.backends.base import CONVERSION_FAILED, Device, Inventory, Offer
from accelserve.backends.discovery import BackendPool
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.config import ModelConfig
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.loading import Loader
from model_builders import synthetic_model


class CannotConvert(SyntheticBackend):
    """Has a GPU, and nothing that makes this model run on it."""

    reason = CONVERSION_FAILED

    def inventory(self):
        return Inventory((Device("gpu:0", DeviceKind.GPU, "played"),))

    def prepare(self, artifact, device, options, cache, progress):
        raise ScoringError(Kind.PRECONDITION, f"{artifact.name}: unsupported operator StringJoin", reason=self.reason)


class RunsOutOfMemory(CannotConvert):
    reason = "device_memory"


def load(tmp_path, on_gpu: type, device: str):
    kinds = frozenset({DeviceKind.CPU, DeviceKind.GPU})
    offers = [
        Offer("converted", frozenset({"synthetic"}), kinds, f"{__name__}:{on_gpu.__name__}"),
        Offer("plain", frozenset({"synthetic"}), kinds, "accelserve.backends.synthetic.backend:SyntheticBackend"),
    ]
    loader = Loader(BackendPool(offers), None, tmp_path / "leases", lambda tensors: None, device)
    config = ModelConfig("m", synthetic_model(tmp_path / "m.synthetic.toml"))
    return loader.load(config, loader.find(config))


def test_auto_takes_the_cpu_for_a_model_that_cannot_be_converted_and_tells_why(tmp_path, caplog):
    model = load(tmp_path, CannotConvert, "auto")
    assert [device.id for device in model.devices] == ["cpu:0"]
    model.close()
    assert 'model "m" runs on the CPU' in caplog.text
    assert "unsupported operator StringJoin" in caplog.text


def test_a_required_gpu_refuses_a_model_that_cannot_be_converted(tmp_path):
    with pytest.raises(ScoringError, match="unsupported operator StringJoin"):
        load(tmp_path, CannotConvert, "gpu")


def test_auto_never_hides_another_failure_of_the_gpu(tmp_path):
    with pytest.raises(ScoringError) as failure:
        load(tmp_path, RunsOutOfMemory, "auto")
    assert failure.value.reason == "device_memory"
