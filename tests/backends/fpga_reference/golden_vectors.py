"""Reads tests/golden/fpga, which tests/golden/record_fpga.py wrote."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[2] / "golden" / "fpga"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GoldenLayer:
    """exact, in_order: by format float32 [..., outputs], channels last."""

    op: str
    attributes: Mapping[str, int]
    x: Floats
    weights: Floats
    exact: Mapping[str, Floats]
    in_order: Mapping[str, Floats]


def golden_inputs() -> dict[str, Floats]:
    return {name: from_hexadecimal(lines) for name, lines in _read("blocks")["inputs"].items()}


def golden_blocks() -> dict[str, dict[str, Floats]]:
    """By format, by name of the input: what it is quantized to."""
    quantized = _read("blocks")["quantized"]
    return {form: {name: from_hexadecimal(lines) for name, lines in each.items()} for form, each in quantized.items()}


def golden_layers() -> list[GoldenLayer]:
    return [
        GoldenLayer(
            case["op"],
            case["attributes"],
            *(from_hexadecimal(case[name]["bits"]).reshape(case[name]["shape"]) for name in ("x", "weights")),
            *({form: from_hexadecimal(lines) for form, lines in case[name].items()} for name in ("exact", "in_order")),
        )
        for case in _read("layers")
    ]


def from_hexadecimal(lines: Sequence[str]) -> Floats:
    words = " ".join(lines).split()
    return np.array([int(word, 16) for word in words], np.uint32).view(np.float32)


def _read(name: str):
    return json.loads((FOLDER / f"{name}.json").read_text())


def same_values(got: NDArray, want: NDArray) -> bool:
    """Equal to the last bit; zeros have no sign, NaN equals NaN."""
    return got.shape == want.shape and np.array_equal(got, want, equal_nan=True)
