import ml_dtypes
import numpy as np
import pytest
from fpga_graphs import model, node, planted, rewritten, run

from accelserve.backends.fpga_emulator.formats import parse_format
from accelserve.backends.fpga_emulator.quantize import quantize

DTYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
SHAPE = ["n", 16, "h", "w"]


def rounded(values, elementwise):
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(DTYPES[elementwise]).astype(np.float32)


def residual():
    """Conv with bias, Relu, Add, Relu: what a residual network is made of."""
    random = np.random.default_rng(0)
    w, bias = random.integers(-8, 8, size=(16, 16, 1, 1)), random.normal(size=16)
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "r"), node("Add", "r x", "s"), node("Relu", "s", "y")]
    weights = {"w": w.astype(np.float32), "b": bias.astype(np.float32)}
    return model(nodes, weights, SHAPE, SHAPE), weights


@pytest.mark.parametrize("elementwise", DTYPES)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_every_result_between_the_layers_is_rounded_once(elementwise, level):
    whole, weights = residual()
    x, fmt = planted((2, 16, 5, 7)), parse_format("msfp12")
    products = np.einsum(
        "oi,nihw->nohw", quantize(weights["w"], fmt, 1)[:, :, 0, 0].astype(np.float64), quantize(x, fmt, 1)
    )
    layer = rounded(products.astype(np.float32) + weights["b"].reshape(-1, 1, 1), elementwise)
    wanted = np.maximum(rounded(np.maximum(layer, 0) + x, elementwise), 0)
    np.testing.assert_array_equal(run(rewritten(whole, "msfp12", elementwise), x, level), wanted)


def test_a_relu_is_rounded_in_place_of_the_layer_that_it_alone_reads():
    whole, _ = residual()
    operators = [made.op_type for made in rewritten(whole, "fp32", "fp16").graph.node]
    assert operators == ["Conv", "Relu", "Cast", "Cast", "Add", "Relu", "Cast", "Cast"]


@pytest.mark.parametrize(
    ("overflow", "wanted"), [("ieee", [np.inf, -np.inf, 65504]), ("saturate", [65504, -65504, 65504])]
)
def test_what_fp16_does_not_hold_overflows_as_told(overflow, wanted):
    whole = model([node("Add", "x x", "y")], {}, ["n"], ["n"])
    x = np.array([40000, -1e6, 32752], np.float32)
    np.testing.assert_array_equal(run(rewritten(whole, "fp32", "fp16", overflow), x), wanted)


def test_saturation_keeps_nan():
    whole = model([node("Add", "x x", "y")], {}, ["n"], ["n"])
    assert np.isnan(run(rewritten(whole, "fp32", "fp16", "saturate"), np.array([np.nan], np.float32))).all()


def test_what_only_moves_values_is_not_rounded():
    nodes = [node("MaxPool", "x", "p", kernel_shape=[1, 1]), node("Transpose", "p", "y", perm=[0, 1, 3, 2])]
    whole = model(nodes, {}, SHAPE, SHAPE)
    assert len(rewritten(whole, "msfp12", "fp16").graph.node) == 2


def test_a_layer_that_is_an_output_and_feeds_a_relu_is_rounded_itself():
    whole, _ = residual()
    whole.graph.output.add(name="c").type.tensor_type.elem_type = 1
    names = [made.output[0] for made in rewritten(whole, "fp32", "bf16").graph.node]
    assert names.index("c") < names.index("r")
    assert [made.op_type for made in rewritten(whole, "fp32", "bf16").graph.node].count("Cast") == 4
