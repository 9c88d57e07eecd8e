"""Layers of the slow reference: against rational numbers and golden vectors, and where the order of adding shows."""

from fractions import Fraction

import numpy as np
import pytest
from golden_vectors import GoldenLayer, golden_layers, same_values
from reference_formats import FORMATS, Bfp, quantize, quantize_axis
from reference_layers import Sums, conv, linear, nearest_fp32

OPS = {"linear": linear, "conv": conv}


def random_values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exact_dot(a: np.ndarray, b: np.ndarray) -> Fraction:
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a.flat, b.flat, strict=True)), Fraction(0))


class TestNearestFp32:
    @pytest.mark.parametrize("exponent", [-170, -149, -120, 0, 103, 104, 120])
    def test_whole_numbers_round_as_the_hardware_does(self, exponent: int):
        rng = np.random.default_rng(1)
        whole = [int(n) for n in rng.integers(-(2**50), 2**50, 200)] + [0, 2**24 + 1, 2**24 + 3, 3, 2**25 - 1, 2**24]
        with np.errstate(over="ignore"):
            want = np.array([np.float32(np.ldexp(float(n), exponent)) for n in whole])
        assert np.array_equal(nearest_fp32(np.array(whole, object), np.full(len(whole), exponent)), want)


class TestLinear:
    @pytest.mark.parametrize("name", FORMATS)
    def test_the_exact_sum_is_that_of_the_quantized_values(self, name: str):
        x, weights = random_values(3, 50), random_values(4, 50, seed=1)
        a, w = quantize(x, FORMATS[name]).values(), quantize(weights, FORMATS[name]).values()
        want = [[float(exact_dot(row, kernel)) for kernel in w] for row in a]
        assert same_values(linear(x, weights, FORMATS[name]).exact(), np.array(want, np.float32))

    def test_a_block_with_nan_makes_the_outputs_it_meets_nan(self):
        x = random_values(2, 50)
        x[1, 3] = np.nan
        outputs = linear(x, random_values(4, 50), FORMATS["msfp12"]).exact()
        assert np.isnan(outputs).tolist() == [[False] * 4, [True] * 4]


class TestConv:
    @pytest.mark.parametrize(
        ("channels", "outputs", "size", "attributes"),
        [
            (32, 4, 3, {"pad": 1}),
            (20, 4, 3, {"pad": 1, "stride": 2}),
            (3, 4, 3, {}),
            (40, 3, 1, {}),
            (8, 8, 3, {"groups": 8}),
            (40, 4, 3, {"groups": 2, "pad": 1}),
        ],
    )
    def test_every_output_is_the_dot_product_of_its_quantized_patch(self, channels, outputs, size, attributes):
        groups, stride, pad = (attributes.get(name, low) for name, low in (("groups", 1), ("stride", 1), ("pad", 0)))
        x, weights = random_values(1, channels, 5, 5), random_values(outputs, channels // groups, size, size, seed=1)
        got = conv(x, weights, FORMATS["msfp12"], **attributes).exact()
        parts = np.split(x, groups, axis=1)  # a group's blocks are its own
        quantized = [quantize_axis(part, FORMATS["msfp12"], 1) for part in parts]
        kernels = quantize_axis(weights, FORMATS["msfp12"], 1)
        for index in np.ndindex(got.shape):
            _, row, column, output = index
            plane = np.pad(quantized[output * groups // outputs][0], [(0, 0), (pad, pad), (pad, pad)])
            patch = plane[:, row * stride :, column * stride :][:, :size, :size]
            assert got[index] == np.float32(float(exact_dot(patch, kernels[output])))

    def test_im2col_blocks_run_on_from_tap_to_tap(self):
        x, weights = random_values(1, 3, 4, 4), random_values(2, 3, 3, 3, seed=1)
        got = conv(x, weights, FORMATS["msfp12"], im2col=True)
        patch = x[0, :, 1:4, :3].transpose(1, 2, 0).reshape(1, 27)
        rows = weights.transpose(0, 2, 3, 1).reshape(2, 27)
        assert got.steps.shape[-1] == 2
        assert np.array_equal(got.exact()[0, 1, 0], linear(patch, rows, FORMATS["msfp12"]).exact()[0])


class TestTheOrderOfAdding:
    def test_is_free_where_all_sums_stay_below_2_to_the_24_of_the_finest_step(self):
        sums = linear(random_values(20, 96), random_values(20, 96, seed=1), FORMATS["msfp12"])
        assert sums.order_is_free().all()
        assert np.array_equal(sums.in_order(), sums.exact())

    def test_shows_where_blocks_differ_much_in_size(self):
        sizes = np.float32(2.0) ** np.repeat([0, -13, -26, -13], 16)
        x, weights = random_values(20, 64) * sizes, random_values(20, 64, seed=1)
        sums = linear(x.astype(np.float32), weights, FORMATS["msfp16"])
        differs = sums.in_order() != sums.exact()
        assert differs.any()
        assert not sums.order_is_free()[differs].any()
        assert (np.abs(sums.in_order().astype(float) - sums.exact()) <= sums.tolerance()).all()

    def test_of_two_steps_is_known_to_the_bit(self):
        # 1 + 2**-24 is a tie in fp32 and goes to the even 1; exactly, 1 + 2**-24 + 2**-24 is not
        x, ones = np.array([[1, 2.0**-24, 2.0**-24]], np.float32), np.ones((1, 3), np.float32)
        sums = linear(x, ones, Bfp(3, 8, 1))
        assert sums.in_order().item() == 1.0
        assert sums.exact().item() == 1.0 + 2.0**-23
        assert not sums.order_is_free().any()


class TestGoldenVectors:
    @pytest.mark.parametrize("case", golden_layers(), ids=lambda case: f"{case.op} {case.weights.shape}")
    def test_the_reference_still_gives_them(self, case: GoldenLayer):
        for name in case.exact:
            sums: Sums = OPS[case.op](case.x, case.weights, FORMATS[name], **case.attributes)
            assert same_values(sums.exact().ravel(), case.exact[name])
            assert same_values(sums.in_order().ravel(), case.in_order[name])
