"""The slow reference against the text, by examples worked by hand, by properties, and by two other implementations."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from gfloat import compute_scale_amax, quantize_block
from gfloat import formats as gfloat_formats
from golden_vectors import golden_blocks, golden_inputs, same_values
from reference_formats import (
    FORMATS,
    MXINT8_WITH_LOWEST_CODE,
    SMALLEST_NORMAL,
    Bfp,
    Mx,
    fields,
    quantize,
    quantize_axis,
)

BFP = [name for name, form in FORMATS.items() if isinstance(form, Bfp)]
MX_FLOATS = {
    "mxfp8_e4m3": ml_dtypes.float8_e4m3fn,
    "mxfp8_e5m2": ml_dtypes.float8_e5m2,
    "mxfp6_e3m2": ml_dtypes.float6_e3m2fn,
    "mxfp6_e2m3": ml_dtypes.float6_e2m3fn,
    "mxfp4_e2m1": ml_dtypes.float4_e2m1fn,
}


def single(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def of(form: Bfp | Mx, *values: float) -> list[float]:
    return quantize(single(*values), form).values().tolist()


def random_rows(rows: int, seed: int = 0) -> np.ndarray:
    """[rows, 64]: each row of its own size, some elements far smaller than the largest, some ties."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 64)) * np.exp2(rng.integers(-12, 13, (rows, 1)))
    values[:, ::5] *= np.exp2(-rng.integers(0, 30, (rows, 13)))
    values[::3] = np.round(values[::3] * 64) / 64
    return values.astype(np.float32)


class TestFields:
    def test_every_value_is_its_sign_and_significand_at_its_last_bit(self):
        values = single(1, -1.5, 3.4e38, SMALLEST_NORMAL, 2.0**-149, -3 * 2.0**-149, 0)
        sign, significand, lsb = fields(values)
        rebuilt = [int(s) * int(n) * Fraction(2) ** int(e) for s, n, e in zip(sign, significand, lsb, strict=True)]
        assert rebuilt == [Fraction(float(value)) for value in values]


class TestBlockFloatingPoint:
    def test_the_largest_value_uses_all_bits_of_the_mantissa(self):
        blocks = quantize(single(1.75, 0.25, -1), Bfp(3, 8, 16))
        assert blocks.mantissas.tolist() == [[7, 1, -4]]
        assert blocks.steps.tolist() == [-2]

    def test_ties_go_to_the_even_mantissa(self):
        assert of(Bfp(3, 8, 16), 1, 0.125, 0.375, -0.125, -0.375) == [1, 0, 0.5, 0, -0.5]

    def test_or_away_from_zero(self):
        assert of(Bfp(3, 8, 16, rounding="away"), 1, 0.125, 0.375, -0.125, -0.374) == [1, 0.25, 0.5, -0.25, -0.25]

    def test_or_every_value_towards_zero(self):
        assert of(Bfp(3, 8, 16, rounding="floor"), 1, 0.249, -0.249, -0.99) == [1, 0, 0, -0.75]

    def test_a_value_that_rounds_up_past_the_top_saturates(self):
        assert of(Bfp(2, 8, 16), 1.99, 1.2, 0.3) == [1.5, 1, 0.5]

    def test_or_bumps_the_exponent_of_the_whole_block(self):
        assert of(Bfp(2, 8, 16, on_carry="bump"), 1.99, 1.2, 0.4) == [2, 1, 0]

    def test_a_short_tail_is_a_smaller_block(self):
        assert of(Bfp(1, 8, 2), 4, 1, 1) == [4, 0, 1]

    def test_a_zero_block_is_zero_and_a_negative_zero_has_no_sign(self):
        values = quantize(single(0, -0.0), Bfp(3, 8, 16)).values()
        assert values.view(np.uint32).tolist() == [0, 0]

    def test_a_block_of_subnormals_is_zero(self):
        largest_subnormal = float(np.nextafter(np.float32(SMALLEST_NORMAL), np.float32(0)))
        assert of(Bfp(7, 8, 16), largest_subnormal, -largest_subnormal) == [0, 0]

    @pytest.mark.parametrize("name", FORMATS)
    def test_a_subnormal_beside_a_normal_value_counts_as_zero_in_every_format(self, name: str):
        if not name.startswith("brainwave"):  # these flush all of the block
            values = SMALLEST_NORMAL, SMALLEST_NORMAL / 2, -SMALLEST_NORMAL
            assert of(FORMATS[name], *values) == [SMALLEST_NORMAL, 0, -SMALLEST_NORMAL]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_nan_and_infinity_make_their_block_undefined_and_no_other(self, bad: float):
        values = of(Bfp(3, 8, 2), 1, bad, 1, 1)
        assert np.isnan(values).tolist() == [True, True, False, False]

    def test_five_exponent_bits_flush_blocks_below_their_range(self):
        just_below = float(np.nextafter(np.float32(2.0**-14), np.float32(0)))
        assert of(Bfp(5, 5, 2), 2.0**-14, 2.0**-18, just_below, 0) == [2.0**-14, 2.0**-18, 0, 0]

    def test_five_exponent_bits_saturate_above_their_range(self):
        assert of(Bfp(5, 5, 4), 2.0**16, -(2.0**100), 2.0**15, 3 * 2.0**10) == [63488, -63488, 2.0**15, 4096]

    def test_a_bump_stops_at_the_highest_of_five_bits(self):
        assert of(Bfp(2, 5, 2, on_carry="bump"), 65535.0, 1) == [49152, 0]

    def test_a_bump_into_the_range_of_five_bits_keeps_the_block(self):
        just_below = float(np.nextafter(np.float32(2.0**-14), np.float32(0)))
        assert of(Bfp(2, 5, 2, on_carry="bump"), just_below, 0) == [2.0**-14, 0]

    def test_a_bump_past_eight_bits_makes_the_block_undefined(self):
        assert np.isnan(of(Bfp(2, 8, 2, on_carry="bump"), 3.4e38, 1)).all()

    def test_the_lowest_code_of_mxint8_is_an_option(self):
        assert of(FORMATS["mxint8"], -1.999, 1.999) == [-1.984375, 1.984375]
        assert of(MXINT8_WITH_LOWEST_CODE, -1.999, 1.999) == [-2, 1.984375]

    @pytest.mark.parametrize("name", BFP)
    @pytest.mark.parametrize("rounding", ["even", "away", "floor"])
    def test_the_integers_are_those_of_fractions(self, name: str, rounding: str):
        preset = FORMATS[name]
        form = Bfp(preset.mantissa, preset.exponent, preset.block, rounding)
        rows = random_rows(12)
        assert same_values(quantize(rows, form).values(), np.array([by_fractions(row, form) for row in rows]))


def by_fractions(row: np.ndarray, form: Bfp) -> np.ndarray:
    """Rules 3 to 8 once more, one value at a time, in rational numbers. Values within the exponents' range only."""
    done = []
    for start in range(0, len(row), form.block):
        block = [Fraction(float(value)) for value in row[start : start + form.block]]
        largest = max(map(abs, block))
        low, high = form.exponents
        if largest < Fraction(2) ** low:
            done += [Fraction(0)] * len(block)
            continue
        shared = next(e for e in range(low, high + 1) if Fraction(2) ** (e + 1) > largest or e == high)
        step = Fraction(2) ** (shared - (form.mantissa - 1))
        for value in block:
            units = abs(value) / step
            whole = {
                "even": round(units),  # of a Fraction: ties to even
                "away": (2 * units + 1) // 2,
                "floor": units // 1,
            }[form.rounding]
            done.append((1 if value >= 0 else -1) * min(whole, form.largest) * step)
    return np.array([float(value) for value in done], np.float32)


class TestProperties:
    @pytest.mark.parametrize("name", FORMATS)
    def test_quantizing_twice_changes_nothing(self, name: str):
        once = quantize(random_rows(60), FORMATS[name]).values()
        assert same_values(quantize(once, FORMATS[name]).values(), once)

    @pytest.mark.parametrize("name", FORMATS)
    def test_the_sign_goes_through(self, name: str):
        rows = random_rows(60)
        assert same_values(quantize(-rows, FORMATS[name]).values(), -quantize(rows, FORMATS[name]).values())

    @pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith("brainwave")])
    def test_a_power_of_two_goes_through(self, name: str):
        rows = random_rows(60)
        scaled = quantize(rows * np.float32(2.0**20), FORMATS[name]).values()
        assert same_values(scaled, quantize(rows, FORMATS[name]).values() * np.float32(2.0**20))

    @pytest.mark.parametrize("name", FORMATS)
    def test_a_larger_value_is_never_rounded_to_a_smaller_one(self, name: str):
        rows = np.sort(random_rows(60)[:, :16], axis=-1)  # 16: one block in every format
        assert (np.diff(quantize(rows, FORMATS[name]).values(), axis=-1) >= 0).all()

    @pytest.mark.parametrize("name", BFP)
    def test_no_value_moves_by_more_than_half_a_step_unless_it_saturates(self, name: str):
        rows, form = random_rows(60)[:, :16], FORMATS[name]
        blocks = quantize(rows, form)
        saturated = np.abs(blocks.mantissas[:, 0]) == form.largest
        flushed = (blocks.mantissas == 0).all(axis=-1)
        moved = np.abs(blocks.values().astype(float) - rows)
        assert (saturated | flushed | (moved <= np.ldexp(0.5, blocks.steps))).all()

    def test_any_axis_is_cut_like_the_last(self):
        rows = random_rows(6)
        assert same_values(quantize_axis(rows.T, FORMATS["msfp12"], 0), quantize_axis(rows, FORMATS["msfp12"], 1).T)


class TestGoldenVectors:
    @pytest.mark.parametrize("name", FORMATS)
    def test_the_reference_still_gives_them(self, name: str):
        for input_name, values in golden_inputs().items():
            assert same_values(quantize(values, FORMATS[name]).values(), golden_blocks()[name][input_name])

    def test_bfp_variants_are_among_them(self):
        for text, form in {
            "bfp(m=3,e=8,b=16,rounding=away)": Bfp(3, 8, 16, rounding="away"),
            "bfp(m=3,e=8,b=16,rounding=floor)": Bfp(3, 8, 16, rounding="floor"),
            "bfp(m=3,e=8,b=16,on_carry=bump)": Bfp(3, 8, 16, on_carry="bump"),
            "bfp(m=5,e=5,b=16,on_carry=bump)": Bfp(5, 5, 16, on_carry="bump"),
            "mxint8 with -2.0": MXINT8_WITH_LOWEST_CODE,
        }.items():
            for input_name, values in golden_inputs().items():
                assert same_values(quantize(values, form).values(), golden_blocks()[text][input_name]), text


def mx_blocks(extra_rows: int = 200) -> np.ndarray:
    """[blocks, 32], finite and without subnormals, which are ours to treat (rule 8): the golden and random ones."""
    golden = [values[: len(values) // 32 * 32].reshape(-1, 32) for values in golden_inputs().values()]
    blocks = np.concatenate([*golden, random_rows(extra_rows).reshape(-1, 32)])
    blocks = blocks[np.isfinite(blocks).all(axis=-1)]
    return np.where(np.abs(blocks) < SMALLEST_NORMAL, np.float32(0), blocks)


def by_ml_dtypes(blocks: np.ndarray, element: type, emax: int) -> np.ndarray:
    """OCP MX v1.0 6.3 with the casts of ml_dtypes; e4m3fn does not saturate by itself, so all are clipped first."""
    _, exponent = np.frexp(np.abs(blocks).max(axis=-1, keepdims=True).astype(np.float64))
    scale = np.ldexp(1.0, np.clip(exponent - 1 - emax, -127, 127))
    stored = scale.astype(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    assert np.array_equal(stored, scale)
    largest = float(ml_dtypes.finfo(element).max)
    elements = np.clip(blocks / stored, -largest, largest).astype(element)
    return (elements.astype(np.float64) * stored).astype(np.float32)


class TestOtherImplementations:
    @pytest.mark.parametrize(("name", "element"), MX_FLOATS.items())
    def test_ml_dtypes_agrees_on_every_float_format(self, name: str, element: type):
        blocks, form = mx_blocks(), FORMATS[name]
        assert float(ml_dtypes.finfo(element).max) == form.largest
        assert same_values(quantize(blocks, form).values(), by_ml_dtypes(blocks, element, form.emax))

    @pytest.mark.parametrize("name", MX_FLOATS)
    def test_gfloat_agrees_on_every_float_format(self, name: str):
        blocks = mx_blocks(extra_rows=20)
        assert same_values(quantize(blocks, FORMATS[name]).values(), by_gfloat(blocks, name))

    def test_gfloat_agrees_on_mxint8_with_its_lowest_code(self):
        blocks = mx_blocks(extra_rows=20)
        assert same_values(quantize(blocks, MXINT8_WITH_LOWEST_CODE).values(), by_gfloat(blocks, "mxint8"))

    def test_and_without_it_differs_in_that_code_and_nothing_else(self):
        blocks = mx_blocks(extra_rows=20)
        ours, theirs = quantize(blocks, FORMATS["mxint8"]), by_gfloat(blocks, "mxint8")
        scale = np.ldexp(1.0, ours.steps + 6)
        lowest = theirs == -2 * scale
        assert lowest.any()
        assert np.array_equal(np.where(lowest, -127 / 64 * scale, theirs), ours.values())


def by_gfloat(blocks: np.ndarray, name: str) -> np.ndarray:
    form = getattr(gfloat_formats, f"format_info_{name}")
    rows = [quantize_block(form, row, compute_scale_amax) for row in blocks.astype(np.float64)]
    with np.errstate(over="ignore"):  # -2 * 2**127
        return np.array(rows).astype(np.float32)
