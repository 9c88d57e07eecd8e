"""Writes tests/golden/fpga/blocks.json and layers.json from the slow reference (tests/backends/fpga_reference).

Run from the repository root:

    .venv/bin/python tests/golden/record_fpga.py

Numbers are the bit patterns of fp32 in hex, sixteen to a line. The vectors are what other implementations of the
formats can be checked with, and they hold the reference itself: a change of it that changes a bit is seen.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "backends" / "fpga_reference"))

from reference_formats import FORMATS, MXINT8_WITH_LOWEST_CODE, Bfp, Mx, quantize
from reference_layers import Sums, conv, linear

FOLDER = Path(__file__).parent / "fpga"
PER_LINE = 16
LAYER_FORMATS = ("msfp12", "msfp16", "brainwave-a10", "mxint8", "mxfp8_e4m3", "mxfp4_e2m1")
VARIANTS: dict[str, Bfp | Mx] = {
    "bfp(m=3,e=8,b=16,rounding=away)": Bfp(3, 8, 16, rounding="away"),
    "bfp(m=3,e=8,b=16,rounding=floor)": Bfp(3, 8, 16, rounding="floor"),
    "bfp(m=3,e=8,b=16,on_carry=bump)": Bfp(3, 8, 16, on_carry="bump"),
    "bfp(m=5,e=5,b=16,on_carry=bump)": Bfp(5, 5, 16, on_carry="bump"),
    "mxint8 with -2.0": MXINT8_WITH_LOWEST_CODE,
}


def ordinary(rng: np.random.Generator) -> np.ndarray:
    """[432]: what networks hold, with ties, powers of two and zeros; 27 blocks of 16 of different sizes."""
    values = rng.standard_normal((27, 16)) * np.exp2(rng.integers(-6, 7, (27, 1)))
    values[3] = np.arange(16) / 8 - 15 / 16  # ties of 3 bits: sixteenths below one
    values[4] = (2 * np.arange(16) + 1) / 256 + 1  # ties of 7 bits
    values[5] = np.exp2(np.arange(-8, 8))
    values[6] = -np.exp2(np.arange(-8, 8))
    values[7] = 0
    values[8, 1:] = 0
    values[9] = np.where(np.arange(16) % 2, 1.9999, -1.9999)  # rounds up to the next power of two
    values[10, 0] = -0.0
    values[26, 8:] = 2.0 ** np.arange(-24, -16)
    return values.astype(np.float32).ravel()


def extreme(rng: np.random.Generator) -> np.ndarray:
    """[192]: blocks of 32 at both ends of fp32's range, subnormals, the largest values, one NaN, one infinity."""
    values = np.zeros((6, 32), np.float32)
    values[0] = rng.uniform(-1, 1, 32) * np.float32(3.4e38)
    values[0, 7] = np.finfo(np.float32).max
    values[1] = rng.uniform(-1, 1, 32) * 2.0**-120
    values[2] = rng.uniform(-1, 1, 32) * 2.0**-125  # a normal largest value, subnormals beside it
    values[3] = rng.integers(0, 2**22, 32) * 2.0**-149  # subnormals only
    values[4] = rng.standard_normal(32)
    values[4, 3] = np.nan
    values[5] = rng.standard_normal(32)
    values[5, 20] = -np.inf
    return values.ravel()


def hexadecimal(values: np.ndarray) -> list[str]:
    words = [f"{word:08x}" for word in np.ascontiguousarray(values, np.float32).view(np.uint32).ravel()]
    return [" ".join(words[start : start + PER_LINE]) for start in range(0, len(words), PER_LINE)]


def blocks(rng: np.random.Generator) -> dict:
    inputs = {"ordinary": ordinary(rng), "extreme": extreme(rng)}
    return {
        "inputs": {name: hexadecimal(values) for name, values in inputs.items()},
        "quantized": {
            form_name: {name: hexadecimal(quantize(values, form).values()) for name, values in inputs.items()}
            for form_name, form in (FORMATS | VARIANTS).items()
        },
    }


def layers(rng: np.random.Generator) -> Iterator[dict]:
    """Small layers: a linear one, a convolution whose channels are no multiple of the block, a depthwise one."""
    yield layer(linear, rng.standard_normal((2, 40)), rng.standard_normal((3, 40)))
    yield layer(conv, rng.standard_normal((1, 20, 4, 4)), rng.standard_normal((2, 20, 3, 3)), stride=2, pad=1)
    yield layer(conv, rng.standard_normal((1, 4, 4, 4)), rng.standard_normal((4, 1, 3, 3)), groups=4)


def layer(op: Callable[..., Sums], wide_x: np.ndarray, wide_weights: np.ndarray, **attributes: int) -> dict:
    """Outputs are channels last, as the reference gives them: [..., outputs], [n, h, w, outputs]."""
    x, weights = wide_x.astype(np.float32), wide_weights.astype(np.float32)
    sums = {name: op(x, weights, FORMATS[name], **attributes) for name in LAYER_FORMATS}
    return {
        "op": op.__name__,
        "attributes": attributes,
        "x": {"shape": x.shape, "bits": hexadecimal(x)},
        "weights": {"shape": weights.shape, "bits": hexadecimal(weights)},
        "exact": {name: hexadecimal(each.exact()) for name, each in sums.items()},
        "in_order": {name: hexadecimal(each.in_order()) for name, each in sums.items()},
    }


def main() -> None:
    rng = np.random.default_rng(2026)
    FOLDER.mkdir(exist_ok=True)
    for name, vectors in {"blocks": blocks(rng), "layers": list(layers(rng))}.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
