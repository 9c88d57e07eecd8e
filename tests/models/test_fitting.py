"""What a model's own file says, held against its signatures and the device."""

import logging

import pytest

from accelserve.backends.base import Capabilities, DecodedInput, Device
from accelserve.batching.policy import BatchPolicy
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.fitting import (
    check_instances,
    check_labels,
    fit_policy,
    picture_preprocessing,
    session_options,
    tell_decoded,
    tell_guesses,
)
from accelserve.models.manifest import Manifest
from accelserve.tensors import BY_NAME, Signature, TensorSpec


def signature(shape, dtype="uint8", width=10):
    image = TensorSpec("image", BY_NAME[dtype], shape, "image")
    scores = TensorSpec("scores", BY_NAME["float32"], (-1, width), "scores")
    return {"serving_default": Signature("serving_default", {"image": image}, {"scores": scores})}


def test_a_guess_is_made_once_and_told(caplog):
    found = picture_preprocessing(Manifest(), signature((-1, 3, 8, 6), "float32"))
    steps = found["serving_default"]
    assert (steps.size, steps.layout, steps.guessed) == ((8, 6), "NCHW", True)
    with caplog.at_level(logging.INFO, "accelserve.models"):
        tell_guesses("m", found)
    assert "m: pictures for serving_default" in caplog.text
    assert "8x6" in caplog.text


def test_what_the_file_says_is_no_guess_and_must_fit(caplog):
    found = picture_preprocessing(Manifest(preprocessing={"resize": "letterbox"}), signature((-1, 8, 8, 3)))
    assert not found["serving_default"].guessed
    with caplog.at_level(logging.INFO, "accelserve.models"):
        tell_guesses("m", found)
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


def test_a_policy_is_cut_to_what_the_device_takes():
    capabilities = Capabilities(frozenset(), max_batch=4)
    assert fit_policy(BatchPolicy(), capabilities).max_batch_size == 4
    cut = fit_policy(BatchPolicy(max_batch_size=8, allowed_batch_sizes=(1, 2, 8)), capabilities)
    assert cut.allowed_batch_sizes == (1, 2, 4)
    assert fit_policy(BatchPolicy(max_batch_size=2), capabilities).max_batch_size == 2


def test_more_instances_than_a_device_takes_are_refused_with_what_to_say():
    card = Device("fpga:0", DeviceKind.FPGA, "card")
    check_instances("m", [card], [Capabilities(frozenset(), models_per_device=2)], 2)
    with pytest.raises(ScoringError, match="want 2 instances on fpga:0, which takes 1; say instances = 1"):
        check_instances("m", [card], [Capabilities(frozenset(), models_per_device=1)], 2)


def test_a_session_is_made_for_the_batches_that_the_file_allows():
    policy = BatchPolicy(max_batch_size=8, allowed_batch_sizes=(1, 8))
    options = session_options(Manifest(batching=policy, backend={"spinning": True}), threads=2)
    assert (options.threads, options.max_batch_size, options.batch_sizes) == (2, 8, (1, 8))
    assert options.extra == {"spinning": True}


def test_a_decoder_that_stands_in_for_the_models_own_is_told_with_its_error(caplog):
    steps = picture_preprocessing(Manifest(), signature((-1, 8, 8, 3)))["serving_default"]
    stands_in = DecodedInput(signature((-1, 8, 8, 3))["serving_default"], steps, 1.5, 0.01)
    with caplog.at_level(logging.INFO, "accelserve.models"):
        tell_decoded("m", {"a": stands_in})
    assert "by up to 1.5 of 255" in caplog.text
