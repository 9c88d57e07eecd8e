import numpy as np
import pytest
from fpga_graphs import model, node, planted, rewritten, run

from accelserve.backends.fpga_emulator.exactness import always_exact, exact_for, watched
from accelserve.backends.fpga_emulator.formats import Numerics, parse_format
from accelserve.backends.fpga_emulator.quantize import quantize
from accelserve.backends.fpga_emulator.rewrite import emulate

WATCHED = (
    "msfp12",
    "msfp16",
    "bfp(m=5,e=5,b=8,on_carry=bump)",
    "mxint8(codes=twos-complement)",
    "mxfp4_e2m1",
    "mxfp8_e4m3",
)


@pytest.mark.parametrize(
    ("format", "shape", "exact"),
    [
        ("msfp12", (4, 16, 1, 1), True),  # 16 * 7 * 7 steps at most
        ("msfp12", (4, 17, 1, 1), False),  # the exponents of two blocks may lie anywhere
        ("msfp12", (4, 16, 3, 3), False),
        ("msfp12", (4, 3, 1, 1), True),
        ("msfp16", (4, 16, 1, 1), True),
        ("bfp(m=15,e=8,b=16)", (4, 16, 1, 1), False),  # 16 * 2^30
        ("mxfp4_e2m1", (4, 32, 1, 1), True),
        ("mxfp8_e5m2", (4, 32, 1, 1), False),
    ],
)
def test_before_any_input_only_one_block_can_be_called_exact(format, shape, exact):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole = model([node("Conv", "x w", "y")], {"w": weights}, ["n", shape[1], "h", "w"], ["n", 4, "a", "b"])
    (layer,) = emulate(whole, Numerics(parse_format(format))).layers
    assert layer.numerics == ("exact" if exact else "order-dependent")


def test_weights_of_zero_are_exact():
    assert always_exact(np.zeros((2, 16), np.float32), 16, parse_format("msfp12"))


def steps_of_blocks(q, format):
    """[n, c, ...] -> the finest step of the values of all blocks at each place, found value by value."""
    blocks = [q[:, start : start + format.block] for start in range(0, q.shape[1], format.block)]
    largest = np.array([np.abs(block).max(axis=1) for block in blocks], np.float64)
    if hasattr(format, "element"):
        digits = format.element.emax - format.element.emin + format.element.mantissa
    else:
        digits = format.mantissa - 1 + (format.codes == "twos-complement")
    steps = np.ldexp(1.0, np.frexp(largest)[1] - 1 - digits)
    return np.where(largest == 0, np.inf, steps).min(axis=0)


def lowest_bit(values):
    """The largest power of two that all are multiples of."""
    bit = 2.0**40
    while np.any(np.mod(values / bit, 1)):
        bit /= 2
    return bit


@pytest.mark.parametrize("format", WATCHED)
def test_the_steps_of_a_convolution_are_counted_window_by_window(format):
    fmt, random = parse_format(format), np.random.default_rng(0)
    x, w = planted((1, 40, 7, 6)), random.normal(size=(3, 40, 3, 2)).astype(np.float32)
    conv = node("Conv", "x w", "y", strides=[2, 1], pads=[1, 0, 1, 1], dilations=[1, 2])
    whole = model([conv], {"w": w}, ["n", 40, "h", "w"], ["n", 3, "a", "b"])
    seen = watched(emulate(whole, Numerics(fmt)).model, fmt, ("Conv_y",))
    q, qw = quantize(x, fmt, 1).astype(np.float64), quantize(w, fmt, 1).astype(np.float64)
    values = np.pad(np.abs(q), [(0, 0), (0, 0), (1, 1), (0, 1)])
    steps = np.pad(steps_of_blocks(q, fmt), [(0, 0), (1, 1), (0, 1)], constant_values=np.inf)
    most = 0.0
    for row in range(0, 7, 2):
        for column in range(5):
            taken, finest = (
                values[0, :, row : row + 3, column : column + 3 : 2],
                steps[0, row : row + 3, column : column + 3 : 2],
            )
            if taken.any():
                sums = [(taken * np.abs(kernel)).sum() / lowest_bit(kernel) for kernel in qw]
                most = max(most, *(total / finest.min() for total in sums))
    found = steps_seen(seen, x)["Conv_y"]
    assert found == pytest.approx(most, rel=1e-5)


def steps_seen(seen, x):
    made = type(seen.model)()
    made.CopyFrom(seen.model)
    found = {}
    for layer, output in seen.steps.items():
        del made.graph.output[:]
        made.graph.node.add(op_type="Identity", input=[output], output=["y of the test"])
        made.graph.output.add(name="y of the test").type.tensor_type.elem_type = 1
        found[layer] = float(run(made, x, output="y of the test"))
    return found


@pytest.mark.parametrize("format", WATCHED)
@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_the_steps_of_a_product_are_counted_row_by_row(format, operator):
    fmt = parse_format(format)
    x, w = planted((5, 40)), np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    made = node(operator, "x w", "y", **({"transB": 1} if operator == "Gemm" else {}))
    whole = model([made], {"w": w.T.copy() if operator == "Gemm" else w}, ["n", 40], ["n", 6])
    seen = watched(emulate(whole, Numerics(fmt)).model, fmt, (f"{operator}_y",))
    q, qw = np.abs(quantize(x, fmt, 1).astype(np.float64)), np.abs(quantize(w, fmt, 0).astype(np.float64))
    bits = np.array([lowest_bit(column) for column in qw.T])
    rows = (q @ qw) / bits / steps_of_blocks(q, fmt)[:, None]
    assert steps_seen(seen, x)[f"{operator}_y"] == pytest.approx(rows[q.any(axis=1)].max(), rel=1e-5)


def test_what_is_called_exact_for_an_input_equals_the_exact_sum_in_any_order():
    fmt, random = parse_format("msfp12"), np.random.default_rng(0)
    x, w = random.normal(size=(4, 512)).astype(np.float32), random.normal(size=(512, 8)).astype(np.float32)
    whole = model([node("MatMul", "x w", "y")], {"w": w}, ["n", 512], ["n", 8])
    seen = watched(emulate(whole, Numerics(fmt)).model, fmt, ("MatMul_y",))
    assert exact_for(steps_seen(seen, x)) == {"MatMul_y"}
    q, qw = quantize(x, fmt, 1), quantize(w, fmt, 0)
    wanted = q.astype(np.float64) @ qw.astype(np.float64)
    for order in (np.arange(512), random.permutation(512), np.arange(512)[::-1]):
        one_by_one = np.zeros((4, 8), np.float32)
        for place in order:
            one_by_one += q[:, place : place + 1] * qw[place]
        np.testing.assert_array_equal(one_by_one, wanted)
    np.testing.assert_array_equal(run(rewritten(whole, "msfp12"), x), wanted)


def test_values_too_far_apart_are_not_called_exact():
    fmt, x = parse_format("msfp12"), np.ones((1, 32), np.float32)
    x[0, :16] = 2.0**24
    whole = model([node("MatMul", "x w", "y")], {"w": np.ones((32, 1), np.float32)}, ["n", 32], ["n", 1])
    seen = watched(emulate(whole, Numerics(fmt)).model, fmt, ("MatMul_y",))
    assert exact_for(steps_seen(seen, x)) == set()
    assert exact_for({"a layer": float("nan")}) == set()
