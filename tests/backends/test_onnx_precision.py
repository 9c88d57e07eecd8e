"""fp16 in `prepare`: a subprocess, once for each content, within a tolerance."""

import json
import subprocess

import numpy as np
import pytest

import model_builders
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.onnx_precision import half_precision
from accelserve.backends.onnx_runtime import OnnxRuntimeBackend
from accelserve.errors import Kind, ScoringError


class Worker:
    """Plays the subprocess: writes a copy and a report, or fails with these last words."""

    def __init__(self, error: float = 0.001, words: str = "") -> None:
        self.calls = 0
        self._error = error
        self._words = words

    def __call__(self, command):
        self.calls += 1
        source, target, report = command[-3:]
        if self._words:
            return subprocess.CompletedProcess(command, 1, "", f"some noise\n{self._words}\n")
        with open(source, "rb") as stream, open(target, "wb") as copy:
            copy.write(stream.read())
        with open(report, "w") as stream:
            json.dump({"relative_error": self._error, "worst_output": "y"}, stream)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def source(tmp_path):
    return model_builders.onnx_affine(tmp_path / "model" / "m.onnx")


@pytest.fixture
def cache(tmp_path):
    return FolderArtifactCache(tmp_path / "cache")


def test_a_model_is_converted_in_a_subprocess_and_served_in_fp16(tmp_path, cache):
    backend, options = OnnxRuntimeBackend(), SessionOptions(extra={"precision": "fp16"})
    path = model_builders.onnx_mlp(tmp_path / "m.onnx", features=16)
    device, artifact = backend.inventory().devices[0], ModelArtifact("m", 3, "onnx", path)
    x = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)

    def scores(asked: SessionOptions) -> tuple[np.ndarray, tuple[str, ...]]:
        prepared = backend.prepare(artifact, device, asked, cache, lambda what, done: None)
        session = backend.load(prepared, device, asked, None)
        return session.run(Batch("serving_default", {"images": x}, ("scores",), 2)).outputs["scores"], session.remarks

    half, remarks = scores(options)
    full, _ = scores(SessionOptions())
    assert half.dtype == np.float32
    assert 0 < np.max(np.abs(half - full)) < 1e-2
    assert remarks[0].startswith("fp16 copy of the model: largest error against fp32 0.0")


def test_the_same_content_is_converted_once(source, cache, tmp_path):
    worker = Worker()
    first = half_precision("m", source, 0.02, cache, worker)
    copy = tmp_path / "elsewhere.onnx"
    copy.write_bytes(source.read_bytes())
    assert half_precision("n", copy, 0.02, cache, worker) == first
    assert worker.calls == 1


def test_another_content_is_converted_anew(source, cache):
    worker = Worker()
    half_precision("m", source, 0.02, cache, worker)
    model_builders.onnx_affine(source, a=3.0)
    half_precision("m", source, 0.02, cache, worker)
    assert worker.calls == 2


def test_external_data_is_part_of_the_content(source, cache):
    worker = Worker()
    source.write_bytes(source.read_bytes() + b"weights.bin")  # where the format holds the location
    (source.parent / "weights.bin").write_bytes(b"1")
    (source.parent / "readme.txt").write_bytes(b"1")
    half_precision("m", source, 0.02, cache, worker)
    (source.parent / "readme.txt").write_bytes(b"2")
    half_precision("m", source, 0.02, cache, worker)
    assert worker.calls == 1
    (source.parent / "weights.bin").write_bytes(b"2")
    half_precision("m", source, 0.02, cache, worker)
    assert worker.calls == 2


def test_an_error_above_the_tolerance_is_refused_and_a_larger_tolerance_needs_no_new_conversion(source, cache):
    worker = Worker(error=0.05)
    with pytest.raises(
        ScoringError, match=r'output "y" differs by 0\.05 from fp32, precision_tolerance is 0\.02'
    ) as no:
        half_precision("m:3", source, 0.02, cache, worker)
    assert no.value.kind is Kind.PRECONDITION
    assert half_precision("m:3", source, 0.1, cache, worker).error == 0.05
    assert worker.calls == 1


@pytest.mark.parametrize("error", [float("inf"), float("nan")])
def test_an_error_that_is_no_number_is_refused_whatever_the_tolerance(source, cache, error):
    with pytest.raises(ScoringError):
        half_precision("m:3", source, 1e9, cache, Worker(error=error))


def test_a_conversion_that_fails_gives_its_last_words_and_leaves_nothing(source, cache, tmp_path):
    with pytest.raises(ScoringError, match="m:3 cannot be converted to fp16: no such luck") as refusal:
        half_precision("m:3", source, 0.02, cache, Worker(words="no such luck"))
    assert refusal.value.kind is Kind.PRECONDITION
    half_precision("m:3", source, 0.02, cache, Worker())


def test_a_conversion_that_takes_too_long_is_given_up(source, cache):
    def slow(command):
        raise subprocess.TimeoutExpired(command, 1)

    with pytest.raises(ScoringError, match="longer than"):
        half_precision("m:3", source, 0.02, cache, slow)
