"""What `[backend]` says to the emulated card."""

import pytest

from accelserve.backends.fpga_emulator.latency_model import CARDS
from accelserve.backends.fpga_emulator.options import SETTINGS, read_options
from accelserve.errors import Kind, ScoringError


def test_nothing_said_is_msfp12_one_row_at_a_time_and_no_waiting():
    options = read_options("m:1", {})
    assert str(options.numerics) == "bfp(m=3,e=8,b=16)"
    assert (options.max_batch, options.flash_s, options.pace, options.card) == (1, 0.0, False, CARDS["brainwave-a10"])


def test_every_setting_that_is_listed_is_taken():
    given = {
        **{"format": "msfp16", "elementwise": "fp16", "fp16_overflow": "saturate"},
        **{"max_batch": 4, "flash_s": 2, "pace": True, "device_outputs": "features"},
        **{"card": "brainwave-s10", "packing": "aligned", "tiles": 3, "native_dim": 64, "lanes": 8, "clock_mhz": 200},
        **{"calibration": 1.0, "overhead_us": 5, "link_gb_per_s": 4},
    }
    assert set(given) == set(SETTINGS)
    options = read_options("m:1", given)
    assert str(options.numerics) == "bfp(m=7,e=8,b=16)+fp16-saturate"
    assert options.device_outputs == ("features",)
    assert (options.card.clock_hz, options.card.overhead_s, options.card.link_bytes_per_s) == (
        *(200e6, pytest.approx(5e-6), 4e9),
    )


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"formt": "msfp12"}, 'm:1: the FPGA emulator has no setting "formt"; it has format, '),
        ({"format": "bfp(m=0,e=8,b=16)"}, "m:1: number format: mantissa (m): want a whole number from 1"),
        ({"format": "bfp(m=3,e=8,b=0)"}, "block (b)"),
        ({"format": "bfp(m=3,e=9,b=16)"}, "exponent (e): want 5 or 8 bits, got 9"),
        ({"format": 12}, "number format"),
        ({"elementwise": "fp8"}, "elementwise: want fp32 or fp16 or bf16, got fp8"),
        ({"max_batch": 0}, '"max_batch": want a whole number above 0, got 0'),
        ({"max_batch": True}, '"max_batch"'),
        ({"pace": "yes"}, '"pace": want true or false'),
        ({"flash_s": -1}, '"flash_s": want a number, 0 or above, got -1'),
        ({"flash_s": float("inf")}, '"flash_s"'),
        ({"card": "u250"}, '"card": want brainwave-a10 or brainwave-s10'),
        ({"packing": "tight"}, '"packing": want packed or aligned or ideal'),
        ({"tiles": 1.5}, '"tiles": want a whole number above 0'),
        ({"clock_mhz": 0}, '"clock_mhz"'),
        ({"device_outputs": []}, '"device_outputs"'),
    ],
)
def test_what_does_not_fit_is_refused_by_name(extra, named):
    with pytest.raises(ScoringError) as refusal:
        read_options("m:1", extra)
    assert refusal.value.kind is Kind.INVALID
    assert named in refusal.value.message
