import pytest

from accelserve.backends.fpga_emulator.formats import PRESETS, BlockFloat, Fp32, MxFloat, Numerics, parse_format
from accelserve.errors import Kind, ScoringError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bfp(m=3,e=8,b=16)", BlockFloat(3, 8, 16)),
        (" BFP( b=128, m=5, e=5 ) ", BlockFloat(5, 5, 128)),
        ("bfp(m=7,e=8,b=32,rounding=away,on_carry=bump,axis=im2col)", BlockFloat(7, 8, 32, "away", "bump", "im2col")),
        ("bfp(m=2,e=8,b=16,rounding=floor)", BlockFloat(2, 8, 16, "floor")),
        ("msfp12", BlockFloat(3, 8, 16)),
        ("msfp16", BlockFloat(7, 8, 16)),
        ("msfp11(rounding=away)", BlockFloat(2, 8, 16, "away")),
        ("brainwave-a10", BlockFloat(5, 5, 128)),
        ("brainwave-s10", BlockFloat(2, 5, 400)),
        ("mxint8", BlockFloat(7, 8, 32)),
        ("mxint8(codes=twos-complement)", BlockFloat(7, 8, 32, codes="twos-complement")),
        ("fp32", Fp32()),
    ],
)
def test_a_text_names_a_format(text, wanted):
    assert parse_format(text) == wanted


@pytest.mark.parametrize("text", [*PRESETS, "mxfp4_e2m1(axis=im2col)", "msfp13(rounding=floor,axis=im2col)"])
def test_the_text_of_a_format_names_it_again(text):
    assert parse_format(str(parse_format(text))) == parse_format(text)


def test_a_preset_tells_its_full_text():
    assert str(parse_format("msfp12")) == "bfp(m=3,e=8,b=16)"
    assert str(parse_format("brainwave-s10(rounding=away)")) == "bfp(m=2,e=5,b=400,rounding=away)"
    assert str(parse_format("mxfp6_e3m2")) == "mxfp6_e3m2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bfp(m=0,e=8,b=16)", "mantissa (m): want a whole number from 1 to 15, got 0"),
        ("bfp(m=16,e=8,b=16)", "mantissa (m): want a whole number from 1 to 15, got 16"),
        ("bfp(m=3,e=8,b=0)", "block (b): want a whole number from 1 to 65536, got 0"),
        ("bfp(m=3,e=8,b=-16)", "block (b): want a whole number from 1 to 65536, got -16"),
        ("bfp(m=3,e=9,b=16)", "exponent (e): want 5 or 8 bits, got 9"),
        ("bfp(m=3,e=0,b=16)", "exponent (e): want 5 or 8 bits, got 0"),
        ("bfp(m=3.5,e=8,b=16)", "mantissa (m): want a whole number, got 3.5"),
        ("bfp(m=3,e=8)", "format: want block (b) too, as in bfp(m=3,e=8,b=16), got bfp(m=3,e=8)"),
        ("bfp", "format: want mantissa (m), exponent (e), block (b) too"),
        ("bfp(m=3,e=8,b=16,m=4)", "m: want one value, got two in"),
        ("bfp(3,8,16)", "format: want fields of the form key=value, divided by commas, got bfp(3,8,16)"),
        ("bfp(m=3,e=8,b=16,rounding=up)", "rounding: want even or away or floor, got up"),
        ("bfp(m=3,e=8,b=16,on_carry=wrap)", "on_carry: want saturate or bump, got wrap"),
        ("bfp(m=3,e=8,b=16,axis=row)", "axis: want channel or im2col, got row"),
        ("bfp(m=3,e=8,b=16,bias=3)", "bias: want a field of bfp: m, e, b, rounding"),
        ("mxfp4_e2m1(rounding=away)", "rounding: want a field of mxfp4_e2m1: axis, got rounding=away"),
        ("fp32(axis=im2col)", "axis: want no field, fp32 has none, got axis=im2col"),
        ("msfp99", "format: want bfp(m=3,e=8,b=16) or one of fp32, msfp11"),
        ("", "format: want bfp("),
        ("bfp(m=3,e=8,b=16", "format: want bfp("),
        ("bfp(m=99999999999999999999,e=8,b=16)", "mantissa (m): want a whole number"),
    ],
)
def test_what_is_out_of_range_is_refused_by_field_wanted_and_got(text, message):
    with pytest.raises(ScoringError) as refused:
        parse_format(text)
    assert refused.value.kind is Kind.INVALID
    assert message in refused.value.message


def test_formats_built_by_hand_are_checked_as_well():
    with pytest.raises(ScoringError, match="mantissa"):
        BlockFloat(0)
    with pytest.raises(ScoringError, match="elementwise: want fp32 or fp16 or bf16, got fp8"):
        Numerics(Fp32(), "fp8")  # type: ignore[arg-type]
    with pytest.raises(ScoringError, match="fp16_overflow: want ieee or saturate, got wrap"):
        Numerics(Fp32(), "fp16", "wrap")  # type: ignore[arg-type]


def test_a_label_tells_format_and_elementwise_arithmetic():
    msfp12 = parse_format("msfp12")
    assert str(Numerics(msfp12)) == "bfp(m=3,e=8,b=16)"
    assert str(Numerics(msfp12, "bf16")) == "bfp(m=3,e=8,b=16)+bf16"
    assert str(Numerics(msfp12, "fp16", "saturate")) == "bfp(m=3,e=8,b=16)+fp16-saturate"


def test_packed_bits_count_the_shared_exponent():
    assert parse_format("msfp12").packed_bits(16) == 72
    assert parse_format("msfp12").packed_bits(17) == 84
    assert parse_format("mxint8").packed_bits(32) == 264
    assert parse_format("mxfp4_e2m1").packed_bits(32) == 136


def test_only_the_original_s_five_bit_exponents_are_called_a_guess():
    assert "not public" in parse_format("brainwave-a10").remark
    assert parse_format("msfp12").remark == ""


def test_the_elements_of_mx_are_those_of_its_table():
    for text, emin, emax, largest in [
        ("mxfp8_e4m3", -6, 8, 448),
        ("mxfp8_e5m2", -14, 15, 57344),
        ("mxfp6_e3m2", -2, 4, 28),
        ("mxfp6_e2m3", 0, 2, 7.5),
        ("mxfp4_e2m1", 0, 2, 6),
    ]:
        mx = parse_format(text)
        assert isinstance(mx, MxFloat)
        assert (mx.element.emin, mx.element.emax, mx.element.largest) == (emin, emax, largest)
