import numpy as np
import pytest
from fpga_graphs import FORMATS, identity_conv, planted, rewritten, run

from accelserve.backends.fpga_emulator.formats import parse_format
from accelserve.backends.fpga_emulator.quantize import quantize

OTHERS = ("msfp12", "bfp(m=3,e=8,b=16,rounding=away)", "mxfp8_e5m2")


@pytest.mark.parametrize("format", FORMATS)
def test_activations_are_quantized_as_weights_are(format):
    x = planted((2, 40, 5, 13))  # 40: blocks with a tail for most formats
    y = run(rewritten(identity_conv(40), format), x)
    np.testing.assert_array_equal(y, quantize(x, parse_format(format), 1))


@pytest.mark.parametrize("format", FORMATS)
def test_values_that_are_never_negative_take_the_short_way_to_the_same_numbers(format):
    x = planted((1, 32, 4, 9))
    y = run(rewritten(identity_conv(32, before="Relu"), format), x)
    np.testing.assert_array_equal(y, quantize(np.maximum(x, 0), parse_format(format), 1))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("exponent", [-140, -127, -126, -122, -100, -16, -14, 14, 15, 16, 90])
def test_every_magnitude_is_quantized_alike(format, exponent):
    with np.errstate(over="ignore", under="ignore"):
        x = np.ldexp(planted((1, 32, 4, 9)), exponent)
    fmt, y = parse_format(format), run(rewritten(identity_conv(32), format), x)
    wanted = quantize(x, fmt, 1)
    # Subnormals beside normal values are the exception that rewrite_blocks tells.
    near = np.abs(x).max(axis=1, keepdims=True) < 2.0 ** (24 - 126)
    subnormal = near & (np.abs(x) < np.finfo(np.float32).tiny)
    np.testing.assert_array_equal(np.where(subnormal, 0, y), np.where(subnormal, 0, wanted))
    assert np.abs(y - wanted).max() <= np.finfo(np.float32).tiny


@pytest.mark.parametrize("format", ["msfp12", "mxint8", "mxfp8_e4m3"])
def test_what_is_too_large_for_the_arithmetic_becomes_nan_and_never_a_wrong_number(format):
    x = np.ones((1, 16, 1, 4), np.float32)
    x[0, 0, 0] = [2.0**102, 2.0**127, 3.4028235e38, -3e38]
    y = run(rewritten(identity_conv(16), format), x)
    wanted = quantize(x, parse_format(format), 1)
    assert np.isfinite(wanted).all()
    np.testing.assert_array_equal(y[..., 0], wanted[..., 0])
    assert np.isnan(y[..., 1:]).all()


@pytest.mark.parametrize(
    "format", ["brainwave-a10", "bfp(m=3,e=5,b=16,rounding=away)", "bfp(m=3,e=5,b=4,rounding=floor)"]
)
def test_five_bits_of_exponent_saturate_all_that_is_finite(format):
    x = np.ones((1, 16, 1, 4), np.float32)
    x[0, 0, 0] = [2.0**104, 2.0**127, 3.4028235e38, -3.4028235e38]
    np.testing.assert_array_equal(run(rewritten(identity_conv(16), format), x), quantize(x, parse_format(format), 1))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_with_a_number_that_is_none_becomes_nan(format, bad):
    x = planted((1, 32, 2, 8))
    x[0, 3, 1, 2] = bad
    y, wanted = run(rewritten(identity_conv(32), format), x), quantize(x, parse_format(format), 1)
    assert np.isnan(wanted[0, 3, 1, 2])
    touched = np.isnan(wanted).any(axis=1, keepdims=True)  # an output sums over all channels, NaN times 0 is NaN
    assert np.isnan(y[np.broadcast_to(touched, y.shape)]).all()
    np.testing.assert_array_equal(np.where(touched, 0, y), np.where(touched, 0, wanted))


@pytest.mark.parametrize("format", OTHERS)
@pytest.mark.parametrize("opset", [13, 15, 18, 21, 23])
def test_every_operator_set_gives_the_same(format, opset):
    x = planted((1, 20, 3, 4))
    np.testing.assert_array_equal(
        run(rewritten(identity_conv(20, opset), format), x), quantize(x, parse_format(format), 1)
    )


@pytest.mark.parametrize("format", OTHERS)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_no_optimizer_changes_a_bit(format, level):
    x = planted((2, 32, 6, 7))
    np.testing.assert_array_equal(
        run(rewritten(identity_conv(32), format), x, level), quantize(x, parse_format(format), 1)
    )
