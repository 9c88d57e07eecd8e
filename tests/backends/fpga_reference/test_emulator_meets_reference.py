"""The emulator against the slow reference, bit for bit: neither was written with the other in sight."""

import ml_dtypes
import numpy as np
import pytest
from emulated_graphs import (
    emulated,
    model,
    quantized_alone_by_the_graph,
    quantized_by_the_graph,
    reference_of,
    residual_model,
    run,
    run_emulated,
    run_watched,
)
from golden_vectors import golden_blocks, golden_inputs, golden_layers, same_values
from reference_formats import FORMATS, SMALLEST_NORMAL, Bfp, quantize
from reference_layers import Sums, conv, linear

from accelserve.backends.fpga_emulator.formats import PRESETS, Numerics, parse_format
from accelserve.backends.fpga_emulator.quantize import quantize as emulator_quantize

QUANTIZING = [name for name in PRESETS if name != "fp32"]
VARIANTS = [
    "bfp(m=3,e=8,b=16,rounding=away)",
    "bfp(m=3,e=8,b=16,rounding=floor)",
    "bfp(m=3,e=8,b=16,on_carry=bump)",
    "bfp(m=7,e=8,b=16,rounding=away,on_carry=bump)",
    "bfp(m=5,e=5,b=128,rounding=away)",
    "bfp(m=5,e=5,b=16,rounding=floor)",
    "bfp(m=2,e=5,b=16,on_carry=bump)",
    "bfp(m=1,e=8,b=16)",
    "bfp(m=15,e=8,b=16)",
    "bfp(m=7,e=8,b=32,codes=twos-complement)",
    "bfp(m=3,e=5,b=16,codes=twos-complement,on_carry=bump)",
]
ALL = [*QUANTIZING, *VARIANTS]
LARGE = 2.0**104
EVERY_FP16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def where_they_differ(got: np.ndarray, want: np.ndarray, given: np.ndarray) -> str:
    """The first few differences, for whoever has to mend one side."""
    places = np.argwhere(~((got == want) | (np.isnan(got) & np.isnan(want))))
    lines = [f"{given[tuple(p)]!r}: emulator {got[tuple(p)]!r}, reference {want[tuple(p)]!r}" for p in places[:5]]
    return f"{len(places)} of {got.size} differ: " + "; ".join(lines)


def assert_same(got: np.ndarray, want: np.ndarray, given: np.ndarray) -> None:
    assert same_values(got, want), where_they_differ(got, want, given)


def assert_same_in_the_graph(got: np.ndarray, want: np.ndarray, rows: np.ndarray) -> None:
    """Bit for bit but for the graph's two limits (docs/fpga_numerics.md).

    rows: [n, length], undefined as a whole or not at all.
    A row with a value from 2**104 on may be NaN instead, never another number; a subnormal in a block with a normal
    value is rounded like any other.
    """
    given_up = (np.abs(rows).max(axis=1) >= LARGE) & np.isnan(got).all(axis=1)
    subnormal = (np.abs(rows) < SMALLEST_NORMAL) & (rows != 0) & ~given_up[:, None]
    assert (np.abs(got[subnormal]) <= SMALLEST_NORMAL).all()
    leave_out = subnormal | given_up[:, None]
    assert_same(np.where(leave_out, 0, got), np.where(leave_out, 0, want), rows)


def fp16_blocks(width: int) -> np.ndarray:
    """[n, width]: every finite fp16 twice, shuffled, and sorted by size, so that neighbours share a binade."""
    finite = EVERY_FP16[np.isfinite(EVERY_FP16)]
    rng = np.random.default_rng(width)
    orders = [rng.permutation(len(finite)), np.argsort(np.abs(finite), kind="stable")]
    rows = [np.resize(finite[order], (-(-len(finite) // width), width)) for order in orders]
    return np.concatenate(rows)


def fp32_blocks(width: int) -> np.ndarray:
    """[n, width]: random blocks of all sizes, with ties, powers of two, carries, zeros, both ends of the range, NaN."""
    rng = np.random.default_rng(width)

    def sized(values: np.ndarray, lowest: int, highest: int) -> np.ndarray:
        return values * np.exp2(rng.integers(lowest, highest, (len(values), 1)))

    normal, signs = rng.standard_normal((150, width)), rng.choice([-1.0, 1.0], (60, width))
    units = rng.integers(-(2**9), 2**9, (150, width))
    sparse = rng.standard_normal((40, width)) * (rng.random((40, width)) < 0.2)
    ends = rng.uniform(-1, 1, (40, width))
    undefined = rng.standard_normal((6, width))
    undefined[np.arange(6), rng.integers(0, width, 6)] = [np.nan, np.inf, -np.inf] * 2
    parts = [
        sized(normal, -100, 100),
        sized(normal, -18, 18),  # about the range of five bits
        normal * np.exp2(rng.integers(-12, 1, normal.shape)),
        *(sized(units // 2**coarse * 2.0**coarse, -20, 12) for coarse in (0, 3, 6)),  # ties
        sized(signs * np.exp2(rng.integers(-9, 1, signs.shape)), -30, 30),
        sized(signs * (2 - np.exp2(rng.integers(-12, 0, signs.shape))), -20, 20),  # carries
        sparse,
        sized(ends, -126, -110),  # subnormals beside normal numbers
        ends * 2.0**-126,  # subnormals only
        sized(ends, 110, 128),
        np.where(np.abs(ends) < 0.1, np.finfo(np.float32).max, ends),
        np.zeros((2, width)),
        undefined,
    ]
    return np.concatenate(parts).clip(-3.4028234e38, 3.4028234e38).astype(np.float32)


def block_of(text: str) -> int:
    return parse_format(text).block


class TestFormats:
    def test_every_preset_is_what_the_reference_has_under_its_name(self):
        assert {name: reference_of(PRESETS[name]) for name in QUANTIZING} == FORMATS


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # -2.0 * 2**127 is fp32's minus infinity
@pytest.mark.parametrize("text", ALL)
class TestWeights:
    """quantize.py, in numpy."""

    def test_every_fp16_alone(self, text: str):
        form = parse_format(text)
        values = EVERY_FP16.reshape(-1, 1)
        assert_same(emulator_quantize(values, form, 1), quantize(values, reference_of(form)).values(), values)

    @pytest.mark.parametrize("blocks", [fp16_blocks, fp32_blocks])
    def test_blocks(self, text: str, blocks):
        form = parse_format(text)
        rows = blocks(form.block)
        assert_same(emulator_quantize(rows, form, 1), quantize(rows, reference_of(form)).values(), rows)

    def test_any_axis_and_a_short_tail(self, text: str):
        form = parse_format(text)
        rows = fp32_blocks(form.block + 3)
        want = quantize(rows, reference_of(form)).values()
        assert_same(emulator_quantize(np.ascontiguousarray(rows.T), form, 0), want.T, rows.T)


@pytest.mark.parametrize("text", ALL)
class TestActivations:
    """The rewritten graph, run by ONNX Runtime with all of its optimizations."""

    def test_every_fp16_alone(self, text: str):
        form = parse_format(text)
        want = quantize(EVERY_FP16.reshape(-1, 1), reference_of(form)).values().ravel()
        assert_same(quantized_alone_by_the_graph(EVERY_FP16, form), want, EVERY_FP16)

    @pytest.mark.parametrize("blocks", [fp16_blocks, fp32_blocks])
    def test_blocks(self, text: str, blocks):
        form = parse_format(text)
        rows = blocks(form.block)
        want = quantize(rows, reference_of(form)).values()
        assert_same_in_the_graph(quantized_by_the_graph(rows, form), want, rows)

    def test_blocks_that_are_never_negative(self, text: str):
        form = parse_format(text)
        rows = np.abs(np.concatenate([fp16_blocks(form.block), fp32_blocks(form.block)]))
        want = quantize(rows, reference_of(form)).values()
        assert_same_in_the_graph(quantized_by_the_graph(rows, form, relu=True), want, rows)

    def test_a_short_tail(self, text: str):
        form = parse_format(text)
        rows = fp32_blocks(form.block + 3)
        rows = rows[np.isfinite(rows).all(axis=1)]
        want = quantize(rows, reference_of(form)).values()
        defined = np.isfinite(want).all(axis=1)
        assert_same_in_the_graph(quantized_by_the_graph(rows, form)[defined], want[defined], rows[defined])


def network_values(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def channels_first(values: np.ndarray) -> np.ndarray:
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


def assert_layer(got: np.ndarray, sums: Sums) -> None:
    """Equal where the order is free, within n additions' error elsewhere."""
    want, free = channels_first(sums.exact()), channels_first(sums.order_is_free())
    assert_same(got[free], want[free], want[free])
    assert (np.abs(got.astype(float) - want) <= channels_first(sums.tolerance())).all()


CONVOLUTIONS = {
    "3x3": (32, 8, 3, {"pad": 1}),
    "1x1": (48, 8, 1, {}),
    "strided": (32, 8, 3, {"pad": 1, "stride": 2}),
    "channels no multiple of the block": (40, 8, 3, {"pad": 1}),
    "fewer channels than the block": (3, 8, 3, {"pad": 1, "stride": 2}),
    "grouped": (64, 8, 3, {"pad": 1, "groups": 2}),
    "grouped, channels no multiple of the block": (40, 8, 1, {"groups": 2}),
    "depthwise": (16, 16, 3, {"pad": 1, "groups": 16}),
}


def convolution(channels: int, outputs: int, size: int, stride: int = 1, pad: int = 0, groups: int = 1):
    """(x, weights, plain model)"""
    x = network_values(2, channels, 6, 6, seed=channels)
    weights = network_values(outputs, channels // groups, size, size, seed=outputs) / 4
    attributes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": groups}
    return x, weights, model("Conv", x, weights, **attributes)


@pytest.mark.parametrize("text", [*QUANTIZING, "bfp(m=3,e=8,b=16,rounding=away)", "bfp(m=3,e=8,b=16,on_carry=bump)"])
class TestLayers:
    @pytest.mark.parametrize("case", CONVOLUTIONS)
    def test_convolutions(self, text: str, case: str):
        channels, outputs, size, attributes = CONVOLUTIONS[case]
        x, weights, plain = convolution(channels, outputs, size, **attributes)
        form = parse_format(text)
        assert_layer(run_emulated(plain, x, Numerics(form)), conv(x, weights, reference_of(form), **attributes))

    @pytest.mark.parametrize("features", [10, 64, 150])
    def test_matrix_products(self, text: str, features: int):
        x, weights = network_values(4, features, seed=1), network_values(6, features, seed=2)
        form = parse_format(text)
        sums = linear(x, weights, reference_of(form))
        assert_layer(run_emulated(model("MatMul", x, weights.T), x, Numerics(form)), sums)
        assert_layer(run_emulated(model("Gemm", x, weights, transB=1), x, Numerics(form)), sums)
        assert_layer(run_emulated(model("Gemm", x, weights.T), x, Numerics(form)), sums)


@pytest.mark.parametrize("text", ["msfp12", "msfp16", "bfp(m=5,e=8,b=128)"])
@pytest.mark.parametrize("case", ["3x3", "fewer channels than the block", "grouped", "depthwise"])
def test_im2col_blocks_run_over_the_taps(text: str, case: str):
    channels, outputs, size, attributes = CONVOLUTIONS[case]
    x, weights, plain = convolution(channels, outputs, size, **attributes)
    form = parse_format(text.replace(")", ",axis=im2col)") if "(" in text else f"{text}(axis=im2col)")
    sums = conv(x, weights, reference_of(form), im2col=True, **attributes)
    assert_layer(run_emulated(plain, x, Numerics(form)), sums)


@pytest.mark.parametrize("text", QUANTIZING)
@pytest.mark.parametrize("case", CONVOLUTIONS)
class TestReports:
    def test_a_layer_is_called_exact_only_where_the_bound_holds_for_every_output(self, text: str, case: str):
        channels, outputs, size, attributes = CONVOLUTIONS[case]
        x, weights, plain = convolution(channels, outputs, size, **attributes)
        form = parse_format(text)
        (layer,) = emulated(plain, Numerics(form)).layers
        assert layer.name == "layer"
        assert layer.block == min(form.block, weights.shape[1])
        assert layer.numerics in ("exact", "order-dependent")
        if layer.numerics == "exact":
            assert conv(x, weights, reference_of(form), **attributes).order_is_free().all()

    def test_a_layer_is_called_exact_for_its_inputs_only_where_it_gives_the_exact_sum(self, text: str, case: str):
        channels, outputs, size, attributes = CONVOLUTIONS[case]
        x, weights, plain = convolution(channels, outputs, size, **attributes)
        form = parse_format(text)
        y, exact = run_watched(plain, x, Numerics(form))
        if exact:
            assert_same(y, channels_first(conv(x, weights, reference_of(form), **attributes).exact()), y)
        else:
            assert text.startswith("mx") or case == "depthwise"  # where values of any size meet in one sum


ELEMENTWISE = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("elementwise", ELEMENTWISE)
class TestElementWise:
    def test_a_sum_with_its_bias_is_rounded_once(self, elementwise: str):
        x, weights = network_values(4, 64, seed=1), network_values(6, 64, seed=2)
        bias = np.round(network_values(6, seed=3) * 16) / 16  # on the products' grid, so that no order rounds
        form = parse_format("msfp12")
        sums = linear(x, weights, reference_of(form))
        assert sums.order_is_free().all()
        want = np.maximum((sums.exact() + bias).astype(ELEMENTWISE[elementwise]).astype(np.float32), 0)
        plain = model("Gemm", x, weights, bias, relu="after", transB=1)
        assert_same(run_emulated(plain, x, Numerics(form, elementwise)), want, want)

    @pytest.mark.parametrize("text", ["msfp12", "brainwave-a10", "bfp(m=3,e=8,b=128)"])
    def test_a_small_network_is_its_layers_one_after_the_other(self, elementwise: str, text: str):
        form, narrow = parse_format(text), ELEMENTWISE[elementwise]
        x = network_values(1, 16, 6, 6, seed=1)
        shapes = ((32, 16, 3, 3), (8, 32, 3, 3), (8, 32, 1, 1))
        weights = tuple(network_values(*shape, seed=seed) / 4 for seed, shape in enumerate(shapes))

        def layer(values: np.ndarray, kernel: np.ndarray, pad: int) -> np.ndarray:
            sums = conv(values, kernel, reference_of(form), pad=pad)
            assert sums.order_is_free().all()
            return channels_first(sums.exact()).astype(narrow).astype(np.float32)

        middle = np.maximum(layer(x, weights[0], 1), 0)
        want = (layer(middle, weights[1], 1) + layer(middle, weights[2], 0)).astype(narrow).astype(np.float32)
        assert_same(run_emulated(residual_model(x, weights), x, Numerics(form, elementwise)), want, want)


@pytest.mark.parametrize(("overflow", "highest"), [("ieee", np.inf), ("saturate", 65504)])
def test_what_fp16_cannot_hold_is_infinite_or_its_largest_number(overflow: str, highest: float):
    x, weights = np.array([[1024], [-1024], [8]], np.float32), np.array([[128]], np.float32)
    got = run_emulated(model("Gemm", x, weights), x, Numerics(parse_format("msfp12"), "fp16", overflow))
    assert got.ravel().tolist() == [highest, -highest, 1024]


class TestGoldenVectors:
    @pytest.mark.parametrize("name", QUANTIZING)
    def test_the_emulator_quantizes_to_them(self, name: str):
        for input_name, values in golden_inputs().items():
            got = emulator_quantize(values, PRESETS[name], 0)
            assert_same(got, golden_blocks()[name][input_name], values)

    @pytest.mark.parametrize("case", golden_layers(), ids=lambda case: f"{case.op} {case.weights.shape}")
    def test_the_emulator_computes_their_layers(self, case):
        groups, stride, pad = (case.attributes.get(key, low) for key, low in (("groups", 1), ("stride", 1), ("pad", 0)))
        if case.op == "conv":
            attributes = {"group": groups, "strides": [stride] * 2, "pads": [pad] * 4}
            plain = model("Conv", case.x, case.weights, **attributes)
        else:
            plain = model("MatMul", case.x, case.weights.T)
        for name, want in case.exact.items():
            got = run_emulated(plain, case.x, Numerics(PRESETS[name]))
            turned = got.transpose(0, 2, 3, 1) if got.ndim == 4 else got
            assert_same(turned.ravel(), want, want)


def test_fp32_changes_nothing():
    x, _, plain = convolution(20, 8, 3, pad=1)
    assert np.array_equal(run_emulated(plain, x, Numerics(PRESETS["fp32"])), run(plain, x))


def test_the_reference_covers_every_bfp_preset():
    assert all(isinstance(FORMATS[name], Bfp) == hasattr(PRESETS[name], "exponent") for name in QUANTIZING)
