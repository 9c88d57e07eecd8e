"""Where a graph is divided between an FPGA and the host."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from accelserve.backends.accel_onnx.partition import split
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto

F = TensorProto.FLOAT


def model(nodes, outputs, weights=None, inputs=None, input_type=F):
    made = {name: np.asarray(value) for name, value in (weights or {}).items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, input_type, shape) for name, shape in (inputs or {"x": ["n", 4]}).items()],
        [helper.make_tensor_value_info(name, F, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in made.items()],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(whole)
    return ModelProto.FromString(whole.SerializeToString())


RNG = np.random.default_rng(0)
W1 = RNG.normal(size=(4, 6)).astype(np.float32)
W2 = RNG.normal(size=(6, 3)).astype(np.float32)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name=f"layer/{outputs[0]}", **attributes)


def classifier():
    """x -> MatMul -> Relu (features) -> MatMul -> Softmax"""
    nodes = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("Relu", ["h"], ["features"]),
        node("MatMul", ["features", "w2"], ["logits"]),
        node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    return model(nodes, {"scores": ["n", 3]}, {"w1": W1, "w2": W2})


def run(proto, inputs):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_parts(parts, inputs):
    made = inputs | run(parts.device, {v.name: inputs[v.name] for v in parts.device.graph.input})
    if parts.tail is not None:
        made |= run(parts.tail, {v.name: made[v.name] for v in parts.tail.graph.input})
    return made


def ops(proto):
    return [each.op_type for each in proto.graph.node]


def test_the_device_takes_all_that_it_can_and_the_host_the_softmax():
    parts = split(classifier())
    assert ops(parts.device) == ["MatMul", "Relu", "MatMul"]
    assert ops(parts.tail) == ["Softmax"]


def test_a_boundary_leaves_the_classifier_to_the_host():
    parts = split(classifier(), ["features"])
    assert ops(parts.device) == ["MatMul", "Relu"]
    assert ops(parts.tail) == ["MatMul", "Softmax"]
    assert [tensor.name for tensor in parts.device.graph.initializer] == ["w1"]


@pytest.mark.parametrize("boundary", [None, ["features"], ["h"], ["scores", "features"][1:]])
def test_the_parts_together_answer_as_the_whole(boundary):
    whole, x = classifier(), RNG.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(run_parts(split(whole, boundary), {"x": x})["scores"], run(whole, {"x": x})["scores"])


def test_a_model_that_the_device_takes_whole_has_no_tail():
    whole = model([node("MatMul", ["x", "w1"], ["y"])], {"y": ["n", 6]}, {"w1": W1})
    assert split(whole).tail is None


def test_values_and_inputs_that_the_tail_reads_reach_it():
    nodes = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Softmax", ["r"], ["s"], axis=-1),
        node("Where", ["mask", "s", "h"], ["y"]),
    ]
    graph = model(nodes, {"y": ["n", 6], "r": ["n", 6]}, {"w1": W1}, {"x": ["n", 4], "mask": ["n", 6]})
    mask = next(v for v in graph.graph.input if v.name == "mask")
    mask.type.tensor_type.elem_type = TensorProto.BOOL
    parts = split(graph)
    assert [v.name for v in parts.device.graph.input] == ["x"]
    assert {v.name for v in parts.device.graph.output} == {"h", "r"}
    inputs = {"x": RNG.normal(size=(2, 4)).astype(np.float32), "mask": RNG.normal(size=(2, 6)) > 0}
    made, wanted = run_parts(parts, inputs), run(graph, inputs)
    for name in ("y", "r"):
        np.testing.assert_array_equal(made[name], wanted[name])


def test_constants_that_both_sides_read_are_in_both():
    nodes = [
        node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        node("MatMul", ["x", "w1"], ["h"]),
        node("Mul", ["h", "two"], ["m"]),
        node("Softmax", ["m"], ["s"], axis=-1),
        node("Mul", ["s", "two"], ["y"]),
    ]
    whole, x = model(nodes, {"y": ["n", 6]}, {"w1": W1}), RNG.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_array_equal(run_parts(split(whole), {"x": x})["y"], run(whole, {"x": x})["y"])


def test_an_operator_in_the_middle_is_named_with_its_layer_and_what_it_keeps_from_the_device():
    nodes = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("Erf", ["h"], ["e"]),
        node("MatMul", ["e", "w2"], ["y"]),
    ]
    with pytest.raises(ScoringError, match=r'Erf "layer/e" \(an FPGA has no such unit\): "layer/y" would be left') as e:
        split(model(nodes, {"y": ["n", 3]}, {"w1": W1, "w2": W2}))
    assert e.value.kind is Kind.PRECONDITION


def test_a_boundary_behind_an_operator_that_the_device_lacks_is_refused():
    with pytest.raises(ScoringError, match='Softmax "layer/scores"'):
        split(classifier(), ["scores"])


def test_a_product_of_two_activations_is_refused_by_name():
    nodes = [node("MatMul", ["x", "w1"], ["h"]), node("Transpose", ["h"], ["t"]), node("MatMul", ["h", "t"], ["y"])]
    with pytest.raises(ScoringError, match=r'MatMul "layer/y" \(its second operand is not constant\)'):
        split(model(nodes, {"y": ["n", "n"]}, {"w1": W1}))


def test_an_unknown_boundary_is_named():
    with pytest.raises(ScoringError, match="'nothing' that a device could make; its outputs are \"scores\""):
        split(classifier(), ["nothing"])


def test_a_model_without_a_layer_for_the_device_is_refused():
    with pytest.raises(ScoringError, match="nothing for an FPGA"):
        split(model([node("Relu", ["x"], ["y"])], {"y": ["n", 4]}))


def test_inputs_of_another_type_than_float32_are_refused():
    nodes = [node("MatMul", ["x", "w1"], ["y"])]
    whole = model(nodes, {"y": ["n", 6]}, {"w1": W1})
    whole.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(ScoringError, match='float32 alone, and input "x" is of ONNX data type 11'):
        split(whole)


def test_graphs_inside_a_node_are_read_too():
    inner = helper.make_graph(
        [helper.make_node("Softmax", ["h"], ["i"])], "then", [], [helper.make_tensor_value_info("i", F, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["j"])], "else", [], [helper.make_tensor_value_info("j", F, None)]
    )
    nodes = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("If", ["yes"], ["y"], then_branch=inner, else_branch=other),
    ]
    whole, x = model(nodes, {"y": ["n", 6]}, {"w1": W1, "yes": True}), RNG.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_array_equal(run_parts(split(whole), {"x": x})["y"], run(whole, {"x": x})["y"])


def test_an_output_that_no_input_changes_is_refused_by_name():
    whole = model([node("MatMul", ["x", "w1"], ["y"])], {"y": ["n", 6], "w1": [4, 6]}, {"w1": W1})
    with pytest.raises(ScoringError, match='output "w1" is a constant, which no device makes'):
        split(whole)
