import numpy as np
import pytest
from fpga_graphs import identity_conv, model, node, planted, rewritten, run
from onnx import helper, numpy_helper

from accelserve.backends.fpga_emulator.formats import parse_format
from accelserve.backends.fpga_emulator.quantize import quantize
from accelserve.backends.fpga_emulator.rewrite_graph import Graph
from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2

SHAPE = ["n", 16, "h", "w"]


def names(whole):
    return [value.name for value in whole.graph.input], [value.name for value in whole.graph.output]


def test_inputs_and_outputs_keep_their_names_and_shapes():
    whole = identity_conv(16)
    made = rewritten(whole, "msfp12", "fp16")
    assert names(made) == names(whole)
    assert made.graph.input[0] == whole.graph.input[0]
    assert made.opset_import == whole.opset_import


def test_weights_that_a_constant_node_holds_are_quantized_and_its_copy_is_gone():
    eye = numpy_helper.from_array(np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1))
    constant = helper.make_node("Constant", [], ["w"], value=eye)
    whole = model([constant, node("Conv", "x w", "y")], {}, SHAPE, SHAPE)
    made, x = rewritten(whole, "msfp12"), planted((1, 16, 3, 4))
    assert "Constant" not in {each.op_type for each in made.graph.node}
    np.testing.assert_array_equal(run(made, x), quantize(x, parse_format("msfp12"), 1))


def test_weights_in_typed_fields_are_read():
    whole = identity_conv(16)
    (weights,) = whole.graph.initializer
    weights.float_data.extend(np.frombuffer(weights.raw_data, np.float32))
    weights.ClearField("raw_data")
    x = planted((1, 16, 3, 4))
    np.testing.assert_array_equal(run(rewritten(whole, "msfp12"), x), quantize(x, parse_format("msfp12"), 1))


def test_weights_that_nobody_reads_any_more_are_left_out():
    made = rewritten(identity_conv(16), "msfp12")
    assert "w" not in {each.name for each in made.graph.initializer}


def test_names_that_are_taken_are_not_given_again():
    whole = identity_conv(16)
    whole.graph.node.insert(0, onnx_pb2.NodeProto(op_type="Relu", input=["x"], output=["x/fpga/blocks"]))
    made = rewritten(whole, "msfp12")
    written = [name for each in made.graph.node for name in each.output]
    assert len(written) == len(set(written))
    run(made, planted((1, 16, 3, 4)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: setattr(weights, "data_location", 1), 'the weights "w": lies in a file of its own'),
        (lambda weights: setattr(weights, "data_type", 11), 'the weights "w": has ONNX\'s data type 11, want float32'),
        (lambda weights: setattr(weights, "raw_data", b"1234"), 'the weights "w": has 1 values, want [16, 16, 1, 1]'),
        (lambda weights: setattr(weights, "raw_data", b"123"), 'the weights "w": has 3 bytes, want [16, 16, 1, 1] of'),
    ],
)
def test_weights_that_cannot_be_read_are_refused_by_name(spoil, message):
    whole = identity_conv(16)
    spoil(whole.graph.initializer[0])
    with pytest.raises(ScoringError) as refused:
        rewritten(whole, "msfp12")
    assert refused.value.kind is Kind.PRECONDITION
    assert message in refused.value.message


def test_an_initializer_that_is_an_input_too_is_no_constant():
    whole = identity_conv(16)
    whole.graph.input.add(name="w")
    assert Graph(whole).constant("w") is None


def test_unfolded_normalization_stays():
    """Two read the convolution, so that its weights may not change."""
    ones = dict.fromkeys(("a", "b", "c", "d"), np.ones(16, np.float32))
    eye = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    nodes = [node("Conv", "x w", "v"), node("BatchNormalization", "v a b c d", "n"), node("Add", "v n", "y")]
    made = rewritten(model(nodes, {"w": eye, **ones}, SHAPE, SHAPE), "msfp12")
    assert "BatchNormalization" in {each.op_type for each in made.graph.node}
    x = planted((1, 16, 3, 4))
    q = quantize(x, parse_format("msfp12"), 1)
    norm = (q - 1) / np.sqrt(np.float32(1 + 1e-5)) + 1
    np.testing.assert_allclose(run(made, x), q + norm, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "unsigned"),
    [
        ([node("Relu", "x", "y")], True),
        ([node("Clip", "x zero six", "y")], True),
        ([node("Clip", "x minus six", "y")], False),
        (
            [
                node("Relu", "x", "r"),
                node("MaxPool", "r", "p", kernel_shape=[2, 2]),
                node("Concat", "p r", "y", axis=1),
            ],
            True,
        ),
        ([node("Relu", "x", "r"), node("Add", "r x", "y")], False),
        ([node("Relu", "x", "r"), node("Add", "r r", "y")], True),
        ([node("LeakyRelu", "x", "y")], False),
        ([node("Relu", "x", "r"), node("BatchNormalization", "r a b c d", "y")], False),
    ],
)
def test_values_are_called_unsigned_only_where_they_are(nodes, unsigned):
    from accelserve.backends.fpga_emulator.signs import unsigned_values

    limits = {"zero": np.float32(0), "six": np.float32(6), "minus": np.float32(-1)}
    assert ("y" in unsigned_values(Graph(model(nodes, limits, SHAPE, SHAPE)))) is unsigned
