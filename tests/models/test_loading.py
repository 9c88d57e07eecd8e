"""What is read off a model when it is loaded: pictures, labels, what the device takes."""

import logging

import pytest

from accelserve.backends.base import CONVERSION_FAILED, Device, Inventory, Offer
from accelserve.backends.discovery import BackendPool
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.config import ModelConfig
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.loading import Loader, _tell_guesses, check_labels, picture_preprocessing
from accelserve.models.manifest import Manifest
from accelserve.tensors import BY_NAME, Signature, TensorSpec
from model_builders import synthetic_model


def signature(shape, dtype="uint8", width=10):
    image = TensorSpec("image", BY_NAME[dtype], shape, "image")
    scores = TensorSpec("scores", BY_NAME["float32"], (-1, width), "scores")
    return {"serving_default": Signature("serving_default", {"image": image}, {"scores": scores})}


def test_a_guess_is_made_once_and_told(caplog):
    found = picture_preprocessing(Manifest(), signature((-1, 3, 8, 6), "float32"))
    steps = found["serving_default"]
    assert (steps.size, steps.layout, steps.guessed) == ((8, 6), "NCHW", True)
    with caplog.at_level(logging.INFO, "accelserve.models"):
        _tell_guesses("m", found)
    assert "m: pictures for serving_default" in caplog.text
    assert "8x6" in caplog.text


def test_what_the_file_says_is_no_guess_and_must_fit(caplog):
    found = picture_preprocessing(Manifest(preprocessing={"resize": "letterbox"}), signature((-1, 8, 8, 3)))
    assert not found["serving_default"].guessed
    with caplog.at_level(logging.INFO, "accelserve.models"):
        _tell_guesses("m", found)
    assert caplog.text == ""
    with pytest.raises(ScoringError) as caught:
        picture_preprocessing(Manifest(preprocessing={"size": (9, 9)}), signature((-1, 8, 8, 3)))
    assert caught.value.kind is Kind.PRECONDITION


def test_preprocessing_for_a_model_without_pictures_is_refused():
    with pytest.raises(ScoringError, match="no signature has a single dense picture input"):
        picture_preprocessing(Manifest(preprocessing={"resize": "stretch"}), signature((-1, 4), "float32"))


def test_labels_must_be_as_many_as_the_classes():
    check_labels(Manifest(labels=("a",) * 10), signature((-1, 8, 8, 3)))
    check_labels(Manifest(labels=("a",) * 3), signature((-1, 8, 8, 3), width=-1))
    with pytest.raises(ScoringError, match="2 labels, but the model has 10 classes"):
        check_labels(Manifest(labels=("a", "b")), signature((-1, 8, 8, 3)))


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
