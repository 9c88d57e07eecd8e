import ml_dtypes
import numpy as np
import pytest
from fpga_graphs import FORMATS, planted

from accelserve.backends.fpga_emulator.formats import BlockFloat, parse_format
from accelserve.backends.fpga_emulator.quantize import quantize

CASTS = {
    "mxfp8_e4m3": ml_dtypes.float8_e4m3fn,
    "mxfp8_e5m2": ml_dtypes.float8_e5m2,
    "mxfp6_e3m2": ml_dtypes.float6_e3m2fn,
    "mxfp6_e2m3": ml_dtypes.float6_e2m3fn,
    "mxfp4_e2m1": ml_dtypes.float4_e2m1fn,
}
SYMMETRIC = [text for text in FORMATS if "twos-complement" not in text]


@pytest.mark.parametrize(
    ("format", "given", "wanted"),
    [
        ("msfp12", [1.0, 0.25, 0.125, 0.375, -0.375, 0.0], [1.0, 0.25, 0.0, 0.5, -0.5, 0.0]),  # step 1/4, ties to even
        ("msfp12(rounding=away)", [1.0, 0.125, -0.375, 0.124], [1.0, 0.25, -0.5, 0.0]),
        ("msfp12(rounding=floor)", [1.0, 0.249, -0.499, -0.5], [1.0, 0.0, -0.25, -0.5]),
        ("msfp11", [1.99, -1.99, 0.7], [1.5, -1.5, 0.5]),  # what would round up past the top saturates
        ("msfp11(on_carry=bump)", [1.99, -1.5, 0.7], [2.0, -2.0, 1.0]),
        ("mxint8(codes=twos-complement)", [1.999, -1.999], [127 / 64, -2.0]),
        ("brainwave-s10", [2.0**-15, 2.0**-16], [0.0, 0.0]),
        ("brainwave-s10", [1e9, 3e4, -1.0], [1.5 * 2**15, 1.0 * 2**15, 0.0]),
        ("mxfp4_e2m1", [7.9, 2.5, -0.3, 0.24, 5.0], [6.0, 2.0, -0.5, 0.0, 4.0]),
    ],
)
def test_blocks_worked_out_by_hand(format, given, wanted):
    np.testing.assert_array_equal(quantize(np.array(given, np.float32), parse_format(format), 0), wanted)


@pytest.mark.parametrize("format", CASTS)
def test_mx_is_what_ml_dtypes_makes_of_scaled_elements(format):
    fmt, x = parse_format(format), planted((64, 96))
    blocks = x.reshape(64, 3, 32)
    largest = np.abs(blocks).max(axis=-1, keepdims=True).astype(np.float64)
    scale = np.ldexp(1.0, np.where(largest == 0, 0, np.frexp(largest)[1] - 1 - fmt.element.emax))
    limited = np.clip(blocks / scale, -fmt.element.largest, fmt.element.largest).astype(np.float32)
    wanted = limited.astype(CASTS[format]).astype(np.float64) * scale
    np.testing.assert_array_equal(quantize(x, fmt, 1), wanted.reshape(x.shape))


@pytest.mark.parametrize("format", FORMATS)
def test_quantized_twice_is_quantized_once(format):
    once = quantize(planted((40, 33)), parse_format(format), 1)
    again = quantize(once, parse_format(format), 1)
    # -2^m is a code of its own exponent only: alone at the top it takes the next one, whose grid is coarser.
    kept = ~(np.abs(once) != np.abs(again)) if "twos-complement" not in format else np.abs(once - again) <= np.abs(once)
    assert kept.all()


@pytest.mark.parametrize("format", SYMMETRIC)
def test_the_opposite_of_a_block_becomes_the_opposite(format):
    x = planted((40, 33))
    np.testing.assert_array_equal(quantize(-x, parse_format(format), 1), -quantize(x, parse_format(format), 1))


@pytest.mark.parametrize("format", [text for text in FORMATS if "e=5" not in text and "brainwave" not in text])
@pytest.mark.parametrize("power", [-60, -1, 3, 50])
def test_scaling_by_a_power_of_two_commutes(format, power):
    x = planted((40, 33))
    scaled = quantize(np.ldexp(x, power), parse_format(format), 1)
    np.testing.assert_array_equal(scaled, np.ldexp(quantize(x, parse_format(format), 1), power))


@pytest.mark.parametrize("format", [text for text in FORMATS if isinstance(parse_format(text), BlockFloat)])
def test_an_error_is_at_most_half_a_step_unless_the_value_saturates(format):
    fmt, x = parse_format(format), planted((64, 16))[:, : parse_format(format).block]
    q = quantize(x, fmt, 1).astype(np.float64)
    largest = np.abs(x[:, : fmt.block]).max(axis=1, keepdims=True)
    step = np.ldexp(1.0, np.frexp(largest)[1] - 1 - (fmt.mantissa - 1)) * (2 if fmt.on_carry == "bump" else 1)
    first = slice(0, fmt.block)  # the first block of each row
    error, saturated = np.abs(q - x)[:, first], np.abs(x[:, first]) > fmt.top * step
    flushed = largest < 2.0**-14 if fmt.exponent == 5 else np.zeros_like(largest, bool)
    limit = step if fmt.rounding == "floor" else step / 2
    assert ((error <= limit) | saturated | flushed).all()


@pytest.mark.parametrize("format", FORMATS)
def test_larger_values_never_become_smaller_ones(format):
    x = np.sort(planted((1, 200)).ravel())
    x = np.concatenate([[8.0], x]).astype(np.float32)[None]
    wide = parse_format(format)
    for block in np.split(x[0, 1:], 40):
        row = quantize(np.concatenate([[8.0], block[: max(wide.block - 1, 1)]]).astype(np.float32), wide, 0)
        assert (np.diff(row[1:]) >= 0).all() if wide.block > 1 else True


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_blocks_lie_along_the_axis_and_the_last_may_be_short(axis):
    x, fmt = planted((20, 18, 17)), parse_format("msfp12")
    moved = np.moveaxis(x, axis, -1)
    parts = [quantize(part, fmt, -1) for part in (moved[..., :16], moved[..., 16:])]
    np.testing.assert_array_equal(quantize(x, fmt, axis), np.moveaxis(np.concatenate(parts, axis=-1), -1, axis))


def test_zeros_have_no_sign_and_subnormals_are_zeros():
    tiny = np.array([-0.0, 1e-40, -1e-40, 0.0], np.float32)
    for x in (tiny, np.concatenate([tiny, [2.0**-126]]).astype(np.float32)):
        for format in FORMATS:
            q = quantize(x, parse_format(format), 0)
            assert not q[:4].any()
            assert not np.signbit(q[:4]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_with_what_is_no_number_is_none_and_its_neighbours_are_untouched(bad):
    x = planted((3, 48))
    x[1, 20] = bad
    q, clean = (
        quantize(x, parse_format("msfp12"), 1),
        quantize(np.nan_to_num(x, nan=0, posinf=0, neginf=0), parse_format("msfp12"), 1),
    )
    assert np.isnan(q[1, 16:32]).all()
    q[1, 16:32] = clean[1, 16:32] = 0
    np.testing.assert_array_equal(q, clean)


def test_nothing_comes_of_nothing_and_the_source_is_left_alone():
    assert quantize(np.zeros((0, 4), np.float32), parse_format("msfp12"), 1).shape == (0, 4)
    x = planted((4, 20))
    before = x.copy()
    assert quantize(x, parse_format("fp32"), 1) is not x
    quantize(x, parse_format("msfp12"), 1)
    np.testing.assert_array_equal(x, before)
