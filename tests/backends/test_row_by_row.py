"""Batches that run row by row on a CPU: when, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

import model_builders
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions, runs_apart
from accelserve.backends.onnx_runtime import resident
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.onnx_runtime.row_by_row import gains_row_by_row, run_row_by_row
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, TensorSpec


def signature(shape=(-1, 2), dtype="float32"):
    spec = TensorSpec("x", BY_NAME[dtype], shape, "x")
    return Signature("serving_default", {"x": spec}, {"y": TensorSpec("y", BY_NAME["float32"], (-1, 2), "y")})


class Played:
    """A library whose runs take `row_ns` for each row, `more` times that in a batch, and its clock."""

    def __init__(self, row_ns, more, first_ns=0):
        self.row_ns, self.more, self.first_ns = row_ns, more, first_ns
        self.now, self.runs = 0, []

    def now_ns(self):
        return self.now

    def run(self, names, inputs):
        rows = len(inputs["x"])
        self.now += round(rows * self.row_ns * (self.more if rows > 1 else 1)) + (0 if self.runs else self.first_ns)
        self.runs.append(rows)
        return [inputs["x"] * 2]

    def gains(self, asked=None, most_rows=32):
        return gains_row_by_row(self.run, asked or signature(), most_rows, self.now_ns)


@pytest.mark.parametrize(("more", "gains"), [(0.1, False), (1.0, False), (1.1, False), (1.3, True)])
def test_rows_run_alone_where_a_batch_is_dearer_by_more_than_noise(more, gains):
    assert Played(100_000, more).gains() is gains


def test_joining_the_requests_counts_for_the_batch(monkeypatch):
    played = Played(100_000, 1.0)
    join = np.concatenate

    def slow_join(arrays):
        played.now += 300_000
        return join(arrays)

    monkeypatch.setattr(np, "concatenate", slow_join)
    assert played.gains()


def test_a_model_that_computes_for_long_is_not_measured():
    slow = Played(50_000_000, 2)
    assert not slow.gains()
    assert slow.runs == [1]
    middling = Played(3_000_000, 2)
    assert not middling.gains()
    assert max(middling.runs) == 1


def test_a_slow_first_run_says_nothing():
    assert Played(100_000, 1.3, first_ns=10_000_000).gains()


@pytest.mark.parametrize(
    "asked",
    [
        signature((2, 2)),
        signature((-1, -1)),
        signature(None),
        signature(dtype="string"),
        signature((-1, 2**24)),
    ],
    ids=["no batch axis", "an open size", "no rank", "strings", "too many bytes"],
)
def test_a_batch_that_cannot_be_made_up_is_not_measured(asked):
    played = Played(100_000, 2)
    assert not played.gains(asked)
    assert played.runs == []


def test_a_model_that_only_ever_runs_one_row_is_not_measured():
    played = Played(100_000, 2)
    assert not played.gains(most_rows=1)
    assert played.runs == []


def test_a_model_that_fails_on_zeros_stays_whole():
    def run(names, inputs):
        raise RuntimeError("no zeros")

    assert not gains_row_by_row(run, signature(), 32)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: np.zeros((3, 2)),
        lambda x: np.float32(1),
        lambda x: np.zeros((1, int(x[0, 0]))),
    ],
    ids=["rows of its own", "a number", "a size that depends on the values"],
)
def test_outputs_that_do_not_join_are_none(answer):
    rows = np.array([[1, 0], [2, 0]], np.float32)
    assert run_row_by_row(lambda names, inputs: [answer(inputs["x"])], ("y",), {"x": rows}, 2) is None


@pytest.fixture
def load(monkeypatch):
    """An ONNX model whose batches run row by row, whatever a measurement would say."""
    monkeypatch.setattr(resident, "gains_row_by_row", lambda run, signature, most_rows: True)

    def load(path):
        backend, options = OnnxRuntimeBackend(), SessionOptions(max_batch_size=8)
        artifact, device = ModelArtifact("m", 3, "onnx", path), backend.inventory().devices[0]
        ready = backend.prepare(artifact, device, options, None, lambda what, done: None)
        return backend.load(ready, device, options, None)

    return load


def test_the_answers_are_those_of_the_whole_batch_and_the_model_says_how_it_runs(tmp_path, load):
    session = load(model_builders.onnx_image(tmp_path / "m.onnx"))
    assert session.remarks == ("runs a batch row by row: that is faster on this processor",)
    assert runs_apart(session)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    batch = Batch("serving_default", {"image": pixels}, ("scores",), 5)
    apart = session.run(batch).outputs["scores"]
    session._row_by_row = False
    np.testing.assert_allclose(apart, session.run(batch).outputs["scores"], rtol=1e-6)
    alone = [session.run(replace(batch, inputs={"image": pixels[i : i + 1]}, rows=1)) for i in range(5)]
    np.testing.assert_array_equal(apart, np.concatenate([each.outputs["scores"] for each in alone]))


def test_a_batch_of_another_shape_is_refused_as_ever(tmp_path, load):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT))
    for wrong in (np.zeros((3, 5), np.float32), np.zeros((), np.float32)):
        with pytest.raises(ScoringError) as refusal:
            session.run(Batch("serving_default", {"x": wrong}, ("y",), 3))
        assert refusal.value.kind is Kind.INVALID
    right = Batch("serving_default", {"x": np.zeros((3, 2), np.float32)}, ("y",), 3)
    assert session.run(right).outputs["y"].shape == (3, 2)


def test_no_rows_stay_no_rows(tmp_path, load):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT))
    empty = Batch("serving_default", {"x": np.zeros((0, 2), np.float32)}, ("y",), 1)
    assert session.run(empty).outputs["y"].shape == (0, 2)
