"""What is read off a model when it is loaded: pictures, labels, what the device takes."""

import logging

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.models.loading import _tell_guesses, check_labels, picture_preprocessing
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
