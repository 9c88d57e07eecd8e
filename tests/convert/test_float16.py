"""A float16 copy of a model, and its measured error."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, numpy_helper

import model_builders
from accelserve.convert.float16 import NotConverted, byte_size, to_float16


def save(path, nodes, constants, width=2):
    import onnx

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", model_builders.OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=model_builders.IR_VERSION), path)
    return path


def test_the_copy_keeps_its_types_is_smaller_and_answers_alike(tmp_path):
    source = model_builders.onnx_mlp(tmp_path / "m.onnx", features=16)
    report = to_float16(source, tmp_path / "half.onnx")
    full, half = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (source, tmp_path / "half.onnx")
    )
    assert [arg.type for arg in (*half.get_inputs(), *half.get_outputs())] == ["tensor(float)"] * 2
    assert report.target_bytes < 0.7 * report.source_bytes
    assert 0 < report.relative_error < 1e-2
    x = np.random.default_rng(20190501).standard_normal((4, 16)).astype(np.float32)
    wanted, got = full.run(None, {"images": x})[0], half.run(None, {"images": x})[0]
    assert 0 < np.max(np.abs(wanted - got)) < 1e-2


def test_an_overflow_of_float16_is_an_infinite_error(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "big"], ["z"]), helper.make_node("Mul", ["z", "big"], ["y"])]
    report = to_float16(save(tmp_path / "m.onnx", nodes, {"big": 60000.0}), tmp_path / "half.onnx")
    assert report.relative_error == np.inf
    assert report.worst_output == "y"


def test_a_value_between_two_nodes_is_rounded_though_the_cpu_computes_in_float32(tmp_path):
    nodes = [helper.make_node("Add", ["x", "big"], ["z"]), helper.make_node("Sub", ["z", "big"], ["y"])]
    report = to_float16(save(tmp_path / "m.onnx", nodes, {"big": 4096.0}), tmp_path / "half.onnx")
    assert report.relative_error > 0.1  # float16 has steps of 4 beside 4096


def test_a_model_that_cannot_be_measured_is_refused(tmp_path):
    source = model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.STRING)
    with pytest.raises(NotConverted, match='input "x" is of strings'):
        to_float16(source, tmp_path / "half.onnx")


class Beyond:
    """Stands for a model of more than 2 GiB: protobuf does not even count its bytes."""

    def __init__(self, *weights: bytes) -> None:
        self.graph = SimpleNamespace(initializer=[SimpleNamespace(raw_data=data) for data in weights])

    def ByteSize(self):
        raise EncodeError("Failed to serialize proto")


def test_a_model_too_large_for_protobuf_is_as_large_as_its_weights(tmp_path):
    assert byte_size(Beyond(b"1234", b"56")) == 6
