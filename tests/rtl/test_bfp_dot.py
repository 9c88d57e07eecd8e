"""Our dot unit in Verilog, simulated with Verilator, gives the whole numbers of the slow reference, bit for bit."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from reference_formats import FORMATS, Bfp, Blocks, Integers, quantize
from reference_layers import dots

FOLDER = Path(__file__).parent
VERILOG = FOLDER / "bfp_dot.v"
SIZES = ("msfp12", "msfp16")
LANES = 16
BIAS = 127
UNOPTIMIZED = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"  # compiling takes longer than simulating

MISSING = [tool for tool in ("verilator", "make", "g++") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.rtl,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"RTL NOT CHECKED: no {', '.join(MISSING)} (Debian: apt-get install verilator make g++)",
    ),
]


@dataclass(frozen=True, slots=True)
class Operand:
    """One block for each case. mantissas: int64 [cases, LANES]; exponents: int64 [cases], biased.

    minus_zeros: where the sign is set though the magnitude is zero.
    """

    mantissas: Integers
    exponents: Integers
    minus_zeros: bool = False

    def words(self, mantissa_bits: int) -> np.ndarray:
        """uint32 [cases, n]: the lanes side by side, lane 0 lowest; each its sign above its magnitude."""
        signs = (self.mantissas < 0) | (self.minus_zeros & (self.mantissas == 0))
        lanes = np.abs(self.mantissas) | (signs.astype(np.int64) << mantissa_bits)
        width = LANES * (mantissa_bits + 1)
        bits = lanes[:, :, None] >> np.arange(mantissa_bits + 1) & 1
        packed = np.packbits(bits.reshape(len(lanes), width).astype(np.uint8), axis=1, bitorder="little")
        return np.ascontiguousarray(packed).view("<u4")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The unit simulated, in each size: a program. Both are built at the same time."""
    folders = {name: tmp_path_factory.mktemp(name) for name in SIZES}
    builds = {name: subprocess.Popen(build_command(name, folder)) for name, folder in folders.items()}
    assert {name: build.wait(timeout=300) for name, build in builds.items()} == dict.fromkeys(SIZES, 0)
    return {name: folder / "Vbfp_dot" for name, folder in folders.items()}


def build_command(name: str, folder: Path) -> list[str]:
    return [
        *("verilator", "--cc", "--exe", "--build", "--Mdir", str(folder), "-MAKEFLAGS", UNOPTIMIZED),
        *parameters(FORMATS[name]),
        *(str(FOLDER / "bench.cpp"), str(VERILOG)),
    ]


def parameters(form: Bfp) -> tuple[str, ...]:
    return f"-GLANES={LANES}", f"-GMANTISSA={form.mantissa}", f"-GEXPONENT={form.exponent}"


def simulate(program: Path, form: Bfp, a: Operand, w: Operand) -> tuple[Integers, Integers]:
    """(sum, exponent) of every case."""
    heads = np.stack([a.exponents, w.exponents], axis=1).astype("<u4")
    cases = np.concatenate([heads, a.words(form.mantissa), w.words(form.mantissa)], axis=1)
    done = subprocess.run([program], input=cases.tobytes(), capture_output=True, check=True, timeout=120)
    sums, exponents = np.frombuffer(done.stdout, "<u4").reshape(-1, 2).astype(np.int64).T
    sign = 1 << (2 * form.mantissa + (LANES - 1).bit_length())
    return (sums ^ sign) - sign, exponents


def operand(blocks: Blocks, form: Bfp) -> Operand:
    return Operand(blocks.mantissas[:, 0], blocks.steps[:, 0] + (form.mantissa - 1) + BIAS)


def random_blocks(cases: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((cases, LANES)) * np.exp2(rng.integers(-60, 61, (cases, 1)))
    values[:, ::3] *= np.exp2(-rng.integers(0, 9, (cases, 6)))
    values[::50] = 0
    return values.astype(np.float32)


def corners(largest: int) -> Iterator[list[int]]:
    """Mantissas at their ends, in every combination of sign that matters, and one lane alone, for each lane."""
    yield [largest] * LANES
    yield [-largest] * LANES
    yield [largest, -largest] * (LANES // 2)
    yield [0] * LANES
    yield list(range(-LANES // 2, LANES // 2)) if largest >= LANES // 2 else [1] * LANES
    for lane in range(LANES):
        yield [largest if lane == i else 0 for i in range(LANES)]


@pytest.mark.parametrize("name", SIZES)
def test_random_blocks_give_the_integers_of_the_reference(units: dict[str, Path], name: str):
    form = FORMATS[name]
    a, w = (quantize(random_blocks(5000, seed), form) for seed in (1, 2))
    sums, exponents = simulate(units[name], form, operand(a, form), operand(w, form))
    for case in range(len(sums)):
        want = dots(one(a, case), one(w, case))
        assert sums[case] == want.partials.item()
        if sums[case]:
            assert exponents[case] - 2 * BIAS - 2 * (form.mantissa - 1) == want.steps.item()


def one(blocks: Blocks, case: int) -> Blocks:
    """The block of one case, as the only row."""
    rows = slice(case, case + 1)
    return Blocks(blocks.mantissas[rows], blocks.steps[rows], blocks.undefined[rows], blocks.length)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("minus_zeros", [False, True])
def test_corner_blocks_give_exact_sums_and_a_sign_of_zero_changes_nothing(units, name: str, minus_zeros: bool):
    form = FORMATS[name]
    blocks = np.array(list(corners(form.largest)))
    a, w = (mantissas.reshape(-1, LANES) for mantissas in np.broadcast_arrays(blocks[:, None], blocks[None]))
    exponents = np.resize([0, 1, 127, 254, 255], len(a))
    sums, added = simulate(
        units[name], form, Operand(a, exponents, minus_zeros), Operand(w, exponents[::-1], minus_zeros)
    )
    assert np.array_equal(sums, (a * w).sum(axis=1))
    assert np.array_equal(added, exponents + exponents[::-1])


@pytest.mark.parametrize("name", SIZES)
def test_the_linter_has_nothing_to_say(name: str):
    command = ["verilator", "--lint-only", "-Wall", *parameters(FORMATS[name]), str(VERILOG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
