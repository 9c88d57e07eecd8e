"""fp16 in `prepare`: a subprocess, once for each content, within a tolerance."""

import json

import numpy as np
import pytest

import model_builders
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.onnx_runtime.precision import half_precision
from accelserve.errors import Kind, ScoringError


class Converter:
    """Plays the conversion: writes a copy and a report, or fails with these words."""

    def __init__(self, error: float = 0.001, words: str = "") -> None:
        self.calls = 0
        self._error = error
        self._words = words

    def __call__(self, model, source, output, options, progress):
        assert options.precision == "fp16"
        self.calls += 1
        if self._words:
            raise ScoringError(Kind.PRECONDITION, f"{model}: {self._words}", reason="conversion_failed")
        output.mkdir()
        (output / "model.onnx").write_bytes(source.read_bytes())
        report = {"relative_error": self._error, "worst_output": "y", "target_bytes": source.stat().st_size}
        (output / "report.json").write_text(json.dumps(report))


def halved(model, source, tolerance, cache, converter):
    return half_precision(model, source, tolerance, cache, lambda what, done: None, converter)


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


@pytest.mark.parametrize("name", ["model.onnx", "report.json"])
@pytest.mark.parametrize("content", [b"", b"{", None])
def test_a_damaged_copy_is_refused_with_the_folder_to_delete(source, cache, tmp_path, name, content):
    entry = halved("m", source, 0.02, cache, Converter()).path.parents[1]
    (entry / "copy" / name).unlink()
    if content is not None:
        (entry / "copy" / name).write_bytes(content)
    with pytest.raises(ScoringError, match=f"m: its fp16 copy in {entry} cannot be used: .*delete the folder") as error:
        halved("m", source, 0.02, cache, Converter())
    assert error.value.kind is Kind.PRECONDITION


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"\x08\x08"), lambda path: path.unlink()])
def test_a_copy_of_what_changed_meanwhile_is_not_kept(source, cache, tmp_path, change):
    def convert(model, path, *others):
        Converter()(model, path, *others)
        change(path)

    content = source.read_bytes()
    with pytest.raises(ScoringError, match=r"m.onnx changed while it was converted"):
        halved("m", source, 0.02, cache, convert)
    source.write_bytes(content)
    again = Converter()
    halved("m", source, 0.02, cache, again)
    assert again.calls == 1, "the copy of another content was found under this one's digest"


def test_the_same_content_is_converted_once(source, cache, tmp_path):
    converter = Converter()
    first = halved("m", source, 0.02, cache, converter)
    copy = tmp_path / "elsewhere.onnx"
    copy.write_bytes(source.read_bytes())
    assert halved("n", copy, 0.02, cache, converter) == first
    assert converter.calls == 1


def test_another_content_is_converted_anew(source, cache):
    converter = Converter()
    halved("m", source, 0.02, cache, converter)
    model_builders.onnx_affine(source, a=3.0)
    halved("m", source, 0.02, cache, converter)
    assert converter.calls == 2


def test_external_data_is_part_of_the_content(source, cache):
    converter = Converter()
    model_builders.onnx_external(source, "weights.bin")
    weights, readme = source.parent / "weights.bin", source.parent / "readme.txt"
    halved("m", source, 0.02, cache, converter)
    readme.write_bytes(b"2")
    halved("m", source, 0.02, cache, converter)
    assert converter.calls == 1
    weights.write_bytes(weights.read_bytes()[::-1])
    halved("m", source, 0.02, cache, converter)
    assert converter.calls == 2


def test_an_error_above_the_tolerance_is_refused_and_a_larger_tolerance_needs_no_new_conversion(source, cache):
    converter = Converter(error=0.05)
    with pytest.raises(
        ScoringError, match=r'output "y" differs by 0\.05 from fp32, precision_tolerance is 0\.02'
    ) as no:
        halved("m:3", source, 0.02, cache, converter)
    assert no.value.kind is Kind.PRECONDITION
    assert halved("m:3", source, 0.1, cache, converter).error == 0.05
    assert converter.calls == 1


@pytest.mark.parametrize("error", [float("inf"), float("nan")])
def test_an_error_that_is_no_number_is_refused_whatever_the_tolerance(source, cache, error):
    with pytest.raises(ScoringError):
        halved("m:3", source, 1e9, cache, Converter(error=error))


def test_a_conversion_that_fails_gives_its_last_words_and_leaves_nothing(source, cache, tmp_path):
    with pytest.raises(ScoringError, match="m:3: no such luck") as refusal:
        halved("m:3", source, 0.02, cache, Converter(words="no such luck"))
    assert refusal.value.kind is Kind.PRECONDITION
    halved("m:3", source, 0.02, cache, Converter())
