import numpy as np
import onnx
import pytest
from fpga_graphs import identity_conv, model, node, planted, rewritten, run

from accelserve.backends.fpga_emulator.formats import parse_format
from accelserve.backends.fpga_emulator.quantize import quantize
from accelserve.backends.fpga_emulator.rewrite_graph import Graph
from accelserve.backends.fpga_emulator.sizes import known_sizes

ONES = np.ones((8, 3, 3, 3), np.float32)
GRAPHS = {
    "strides and pads": [node("Conv", "x w", "y", strides=[2, 1], pads=[1, 0, 2, 1])],
    "dilations": [node("Conv", "x w", "y", dilations=[2, 3])],
    "same": [node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
    "valid": [node("Conv", "x w", "y", auto_pad="VALID")],
    "pools": [
        node("MaxPool", "x", "a", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "a", "b", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "b", "y"),
    ],
    "joined": [node("Relu", "x", "a"), node("Concat", "a x", "y", axis=1)],
    "sums": [node("Add", "x c", "a"), node("Mul", "a x", "y")],
    "turned": [node("Transpose", "x", "y", perm=[0, 2, 3, 1])],
    "padded": [node("Pad", "x p", "y")],
}


@pytest.mark.parametrize("name", GRAPHS)
def test_sizes_are_those_that_onnx_infers(name):
    weights = {"w": ONES, "c": np.ones((3, 1, 1), np.float32), "p": np.array([0, 0, 1, 2, 0, 1, 0, 3], np.int64)}
    whole = model(GRAPHS[name], weights, ["n", 3, 21, 18], ["n", "c", "h", "w"])
    proto = onnx.load_from_string(whole.SerializeToString())
    for dim in proto.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph.output[0].type.tensor_type.shape.dim
    assert known_sizes(Graph(whole))["y"] == tuple(dim.dim_value for dim in inferred[1:])


def test_nothing_is_said_where_something_is_unknown():
    pool = node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    assert known_sizes(Graph(model([pool], {}, ["n", 3, 9, 9], ["n", 3, "h", "w"]))).keys() == {"x"}
    conv = node("Conv", "x w", "y")
    assert known_sizes(Graph(model([conv], {"w": ONES}, ["n", 3, "h", 9], ["n", 8, "h", "w"]))) == {}


@pytest.mark.parametrize("channels", [32, 20])
def test_a_picture_of_fixed_size_needs_no_shape_at_run_time_and_gives_the_same(channels):
    free = identity_conv(channels)
    fixed = identity_conv(channels)
    for dim, size in zip(fixed.graph.input[0].type.tensor_type.shape.dim[2:], (5, 13), strict=True):
        dim.dim_value = size
    x = planted((2, channels, 5, 13))
    operators = {made.op_type for made in rewritten(fixed, "msfp12").graph.node}
    assert "Shape" not in operators
    np.testing.assert_array_equal(run(rewritten(fixed, "msfp12"), x), quantize(x, parse_format("msfp12"), 1))
    np.testing.assert_array_equal(run(rewritten(free, "msfp12"), x), quantize(x, parse_format("msfp12"), 1))
