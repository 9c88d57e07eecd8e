import numpy as np
import pytest
from onnx import TensorProto

import model_builders
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.errors import Kind, ScoringError


def load(path, **extra):
    backend, options = OnnxRuntimeBackend(), SessionOptions(max_batch_size=4, extra=extra)
    artifact, device = ModelArtifact("m", 3, "onnx", path), backend.inventory().devices[0]
    return backend.load(
        backend.prepare(artifact, device, options, None, lambda what, done: None), device, options, None
    )


def ask(session, x: np.ndarray) -> np.ndarray:
    return session.run(Batch("serving_default", {"x": x}, ("y",), max(len(x), 1))).outputs["y"]


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("io_binding", [False, True])
def test_no_rows_through_a_recurrent_network_are_no_rows_and_not_the_end_of_the_process(tmp_path, op, io_binding):
    session = load(model_builders.onnx_recurrent(tmp_path / "m.onnx", op), io_binding=io_binding)
    assert ask(session, np.zeros((0, 5, 2), np.float32)).shape == (0, 3)
    assert ask(session, np.zeros((2, 5, 2), np.float32)).shape == (2, 3)


@pytest.mark.parametrize("rows", [0, 2])
def test_no_steps_through_a_recurrent_network_are_the_clients_mistake(tmp_path, rows):
    session = load(model_builders.onnx_recurrent(tmp_path / "m.onnx", "GRU"))
    with pytest.raises(ScoringError, match=r'm:3 "x": GRU want at least one step, got float32\[') as refusal:
        ask(session, np.zeros((rows, 0, 2), np.float32))
    assert refusal.value.kind is Kind.INVALID


def test_no_rows_of_strings_are_no_rows(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.STRING))
    assert ask(session, np.empty((0, 2), object)).shape == (0, 2)


def test_an_empty_axis_that_no_recurrent_operator_sees_is_computed(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ("batch", "past")))
    assert ask(session, np.zeros((2, 0), np.float32)).shape == (2, 0)


def test_rows_that_nobody_sent_are_not_made_up_at_any_size(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ("batch", "width")))
    with pytest.raises(ScoringError, match="no rows, and too large ones") as refusal:
        ask(session, np.zeros((0, 2**40), np.float32))
    assert refusal.value.kind is Kind.INVALID
