"""Which graphs take what their inputs' shapes say: only those may run on the event loop."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import model_builders
from accelserve.backends.base import ModelArtifact, SessionOptions, Steady
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend


def load(path):
    backend, options = OnnxRuntimeBackend(), SessionOptions()
    artifact, device = ModelArtifact("m", 1, "onnx", path), backend.inventory().devices[0]
    prepared = backend.prepare(artifact, device, options, None, lambda what, done: None)
    return backend.load(prepared, device, options, None)


def graph(path, nodes, constants=(), opset=21):
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["n", 4])], [value("y", TensorProto.FLOAT, None)], list(constants)
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def loop_of(trips):
    """As many rounds as a value of the request says."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", "going", "on"), node("Add", "v v", "w")],
        "body",
        [value("i", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )
    return [
        node("ReduceMax", "x", "top", keepdims=0),
        node("Cast", "top", "trips", to=TensorProto.INT64),
        node("Loop", f"{trips} going0 x", "y", body=body),
    ]


def test_products_and_sums_are_steady(tmp_path):
    session = load(
        graph(
            tmp_path / "m.onnx",
            [node("MatMul", "x w", "h"), node("Relu", "h", "y")],
            [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
        )
    )
    assert isinstance(session, Steady)
    assert session.steady


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (loop_of("trips"), [numpy_helper.from_array(np.array(True), "going0")]),
        (
            [
                node("ReduceMax", "x", "top"),
                node("Cast", "top", "size", to=7),
                node("Reshape", "size one", "flat"),
                node("ConstantOfShape", "flat", "y"),
            ],
            [numpy_helper.from_array(np.array([1]), "one")],
        ),
        ([node("RandomNormalLike", "x", "y")], ()),
    ],
    ids=["rounds from a value", "size from a value", "random"],
)
def test_what_reads_its_work_from_a_value_is_not(tmp_path, nodes, constants):
    assert not load(graph(tmp_path / "m.onnx", nodes, constants)).steady


def test_neither_are_recurrent_networks_and_strings(tmp_path):
    assert not load(model_builders.onnx_recurrent(tmp_path / "r.onnx", "LSTM")).steady
    assert not load(model_builders.onnx_identity(tmp_path / "s.onnx", TensorProto.STRING)).steady
