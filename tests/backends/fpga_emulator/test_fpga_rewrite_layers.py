import numpy as np
import pytest
from fpga_graphs import model, node, planted, rewritten, run

from accelserve.backends.fpga_emulator.formats import Numerics, parse_format
from accelserve.backends.fpga_emulator.quantize import quantize
from accelserve.backends.fpga_emulator.rewrite import emulate
from accelserve.errors import Kind, ScoringError

FORMATS = ("msfp12", "bfp(m=3,e=8,b=16,rounding=floor)", "brainwave-a10", "mxfp6_e2m3")


def small(shape, seed):
    """Whole numbers whose products and sums float32 holds exactly: no order of summation matters."""
    return np.random.default_rng(seed).integers(-60, 60, size=shape).astype(np.float32)


def convolved(x, w, groups=1, stride=1, pad=0):
    """In float64, straight from the definition. x [n,c,h,w], w [o,c/groups,kh,kw]"""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    inner, outer = w.shape[1], w.shape[0] // groups
    height, width = ((x.shape[axis] - w.shape[axis]) // stride + 1 for axis in (2, 3))
    y = np.zeros((len(x), len(w), height, width))
    for row in range(height):
        for column in range(width):
            patch = x[:, :, row * stride :, column * stride :][:, :, : w.shape[2], : w.shape[3]]
            for group in range(groups):
                mine = slice(group * outer, (group + 1) * outer)
                taken = patch[:, group * inner : (group + 1) * inner]
                y[:, mine, row, column] = np.tensordot(taken, w[mine].astype(np.float64), ([1, 2, 3], [1, 2, 3]))
    return y


def grouped(x, format, groups):
    parts = np.split(x, groups, axis=1)
    return np.concatenate([quantize(part, parse_format(format), 1) for part in parts], axis=1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(32, 8, 1), (3, 4, 1), (20, 4, 1), (130, 2, 1), (8, 8, 8), (8, 16, 8), (40, 4, 2), (64, 4, 2), (6, 6, 2)],
)
def test_a_convolution_sums_quantized_operands(format, channels, outputs, groups):
    x, w, bias = small((2, channels, 7, 6), 1), small((outputs, channels // groups, 3, 3), 2), small((outputs,), 3)
    conv = node("Conv", "x w b", "y", group=groups, strides=[2, 2], pads=[1, 1, 1, 1])
    whole = model([conv], {"w": w, "b": bias}, ["n", channels, "h", "w"], ["n", outputs, "a", "b"])
    wanted = convolved(grouped(x, format, groups), quantize(w, parse_format(format), 1), groups, stride=2, pad=1)
    np.testing.assert_array_equal(run(rewritten(whole, format), x), wanted + bias.reshape(-1, 1, 1))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (16, 1), (20, 2), (6, 6)])
def test_im2col_divides_all_that_an_output_sums(format, channels, groups):
    format = f"{format[:-1]},axis=im2col)" if format.endswith(")") else f"{format}(axis=im2col)"
    x, w = small((2, channels, 6, 5), 1), small((groups * 2, channels // groups, 3, 2), 2)
    conv = node("Conv", "x w", "y", group=groups)
    whole = model([conv], {"w": w}, ["n", channels, "h", "w"], ["n", groups * 2, "a", "b"])
    y, fmt = run(rewritten(whole, format), x), parse_format(format)
    inner = channels // groups
    rows = quantize(w.transpose(0, 2, 3, 1).reshape(len(w), -1), fmt, 1).astype(np.float64)
    for row in range(4):
        for column in range(4):
            patch = x[:, :, row : row + 3, column : column + 2]
            for group in range(groups):
                taken = patch[:, group * inner : (group + 1) * inner].transpose(0, 2, 3, 1).reshape(2, -1)
                wanted = quantize(taken, fmt, 1).astype(np.float64) @ rows[group * 2 : group * 2 + 2].T
                np.testing.assert_array_equal(y[:, group * 2 : group * 2 + 2, row, column], wanted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("inner", [5, 16, 40, 128, 150])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_sums_quantized_operands(format, inner, transposed):
    x, w, fmt = small((3, inner), 1), small((inner, 7), 2), parse_format(format)
    whole = model(
        [node("Gemm", "x w b", "y", transB=transposed)],
        {"w": w.T.copy() if transposed else w, "b": np.arange(7, dtype=np.float32)},
        ["n", inner],
        ["n", 7],
    )
    wanted = quantize(x, fmt, 1).astype(np.float64) @ quantize(w, fmt, 0) + np.arange(7)
    np.testing.assert_array_equal(run(rewritten(whole, format), x), wanted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [(3, 40), (2, 3, 32), (2, 2, 3, 20)])
def test_a_matrix_product_of_any_rank_sums_quantized_operands(format, rows):
    x, w, fmt = small(rows, 1), small((rows[-1], 5), 2), parse_format(format)
    whole = model(
        [node("MatMul", "x w", "y")], {"w": w}, [*"abc"[: len(rows) - 1], rows[-1]], [*"abc"[: len(rows) - 1], 5]
    )
    wanted = quantize(x, fmt, -1).astype(np.float64) @ quantize(w, fmt, 0)
    np.testing.assert_array_equal(run(rewritten(whole, format), x), wanted)


def test_layers_that_read_the_same_values_share_their_quantizer():
    shape = ["n", 16, "h", "w"]
    nodes = [node("Conv", "x w", "a"), node("Conv", "x v", "b"), node("Add", "a b", "y")]
    weights = {"w": small((16, 16, 1, 1), 1), "v": small((16, 16, 1, 1), 2)}
    made = rewritten(model(nodes, weights, shape, shape), "msfp12")
    assert [made_node.op_type for made_node in made.graph.node].count("ReduceMax") == 1


def test_batch_normalization_is_folded_before_weights_are_quantized():
    random, shape = np.random.default_rng(0), ["n", 16, "h", "w"]
    w, bias = random.normal(size=(16, 16, 3, 3)).astype(np.float32), random.normal(size=16).astype(np.float32)
    scale, shift, mean = (random.normal(size=16).astype(np.float32) for _ in range(3))
    variance = random.uniform(0.5, 2, size=16).astype(np.float32)
    norm = node("BatchNormalization", "c scale shift mean variance", "y", epsilon=0.01)
    weights = {"w": w, "b": bias, "scale": scale, "shift": shift, "mean": mean, "variance": variance}
    whole = model([node("Conv", "x w b", "c"), norm], weights, shape, shape)
    x, factor = planted((1, 16, 5, 6)), scale / np.sqrt(variance.astype(np.float64) + 0.01)
    made = rewritten(whole, "msfp12")
    assert "BatchNormalization" not in {made_node.op_type for made_node in made.graph.node}
    folded = quantize((w * factor.reshape(-1, 1, 1, 1)).astype(np.float32), parse_format("msfp12"), 1)
    plain = convolved(quantize(x, parse_format("msfp12"), 1), folded)
    wanted = plain + ((bias - mean) * factor + shift).reshape(-1, 1, 1)
    np.testing.assert_allclose(run(made, x), wanted, rtol=1e-6, atol=1e-4)


def test_what_the_layers_became_is_told():
    nodes = [node("Conv", "x w", "c"), node("Flatten", "c", "f"), node("Gemm", "f v", "y")]
    weights = {"w": small((8, 3, 3, 3), 1), "v": small((8, 4), 2)}
    conv, gemm = emulate(model(nodes, weights, ["n", 3, 3, 3], ["n", 4]), Numerics(parse_format("msfp12"))).layers
    assert (conv.name, conv.op, conv.block, conv.weight_bits) == ("Conv_c", "Conv", 3, 8 * 9 * (3 * 4 + 8))
    assert (gemm.name, gemm.op, gemm.block, gemm.weight_bits) == ("Gemm_y", "Gemm", 8, 4 * (8 * 4 + 8))


def test_the_source_is_left_alone_and_fp32_changes_nothing():
    whole = model([node("Conv", "x w", "y")], {"w": small((8, 3, 3, 3), 1)}, ["n", 3, 5, 5], ["n", 8, 3, 3])
    before = whole.SerializeToString()
    emulate(whole, Numerics(parse_format("msfp12"), "fp16"))
    assert whole.SerializeToString() == before
    assert emulate(whole, Numerics(parse_format("fp32"))).model == whole


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        ([node("MatMul", "x x", "y")], {}, 'layer "MatMul_y" (MatMul): its second operand "x" is not constant'),
        ([node("Gemm", "x w", "y", transA=1)], {"w": np.eye(4, dtype=np.float32)}, "transA"),
        ([node("MatMul", "w x", "y")], {"w": np.eye(4, dtype=np.float32)}, 'second operand "x" is not constant'),
    ],
)
def test_what_cannot_be_emulated_is_refused_by_layer(nodes, weights, message):
    with pytest.raises(ScoringError) as refused:
        rewritten(model(nodes, weights, [4, 4], [4, 4]), "msfp12")
    assert refused.value.kind is Kind.PRECONDITION
    assert message in refused.value.message


def test_an_old_operator_set_is_refused():
    with pytest.raises(ScoringError, match="operator set 13 or later, got 11"):
        rewritten(model([node("Relu", "x", "y")], {}, [4], [4], opset=11), "msfp12")


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("inner", [20, 300, 2048])
@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_a_bias_is_added_to_the_whole_sum(operator, inner, level):
    x, w, bias = (
        small((3, inner), 1),
        small((inner, 40), 2),
        np.random.default_rng(3).normal(size=40).astype(np.float32),
    )
    apart = [node("MatMul", "x w", "product"), node("Add", "product b", "y")]
    nodes = [node("Gemm", "x w b", "y", beta=2.0)] if operator == "Gemm" else apart
    whole = model(nodes, {"w": w, "b": bias}, ["n", inner], ["n", 40])
    fmt = parse_format("msfp12")
    sums = quantize(x, fmt, 1).astype(np.float64) @ quantize(w, fmt, 0)
    wanted = sums.astype(np.float32) + bias * np.float32(2 if operator == "Gemm" else 1)
    np.testing.assert_array_equal(run(rewritten(whole, "msfp12"), x, level), wanted)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("other", ["x", "scale", "twin"])
@pytest.mark.parametrize("operator", ["Add", "Mul"])
@pytest.mark.parametrize("free", [True, False])
def test_sums_and_factors_behind_a_convolution_stay_behind_it(operator, other, level, free):
    """ONNX Runtime fuses a residual sum into a convolution, and constants into its weights: both round otherwise."""
    random = np.random.default_rng(0)
    w, v = small((64, 64, 1, 1), 1), small((64, 64, 1, 1), 2)
    bias, scale = random.normal(size=64).astype(np.float32), random.normal(size=(64, 1, 1)).astype(np.float32)
    nodes = [node("Conv", "x w b", "c"), node(operator, f"c {other}", "s"), node("Relu", "s", "y")]
    if other == "twin":
        nodes.insert(1, node("Conv", "x v b", "twin"))
    shape = ["n", 64, "h", "w"] if free else ["n", 64, 7, 6]
    whole = model(nodes, {"w": w, "v": v, "b": bias, "scale": scale}, shape, shape)
    x, fmt = random.normal(size=(1, 64, 7, 6)).astype(np.float32), parse_format("msfp12")
    q = quantize(x, fmt, 1)
    layer, twin = (
        convolved(q, quantize(weights, fmt, 1)).astype(np.float32) + bias.reshape(-1, 1, 1) for weights in (w, v)
    )
    right = {"x": x, "scale": scale, "twin": twin}[other]
    wanted = np.maximum(layer + right if operator == "Add" else layer * right, 0)
    np.testing.assert_array_equal(run(rewritten(whole, "msfp12"), x, level), wanted)
