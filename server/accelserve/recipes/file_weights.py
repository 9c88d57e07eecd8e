"""The user's weights, fitted to a network: everything that does not fit is told at once."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelserve.errors import Kind, ScoringError
from accelserve.recipes.catalog import Recipe
from accelserve.recipes.keras_names import keras_name
from accelserve.recipes.network import Parameter
from accelserve.recipes.weight_files import Arrays
from accelserve.recipes.writing import Told

_TOLD = 20  # of one kind of problem


class FileWeights:
    """Values of a file's arrays under slim's names. Checked by `check` before `array` is asked."""

    description: str

    def __init__(self, arrays: Arrays, *paths: Path) -> None:
        self._arrays = arrays
        self.description = ", ".join(path.name or str(path) for path in paths)

    def classes(self, recipe: Recipe) -> int | None:
        """How many the file's classifier tells apart; None when it has none."""
        shape = self._arrays.shapes.get(self._name(recipe.head))
        return shape[0] // recipe.head_group if shape else None

    def check(self, parameters: list[Parameter], told: Told) -> None:
        """Raises ScoringError(PRECONDITION) naming every array that is missing, too many, of the wrong shape, or not
        made of finite numbers. Reads all of them once."""
        wanted = {self._name(parameter.name): parameter for parameter in parameters}
        shapes = self._arrays.shapes
        missing = [f"missing: {name} {_shape(wanted[name].shape)}" for name in wanted if name not in shapes]
        extra = [f"not in the network: {name} {_shape(shapes[name])}" for name in sorted(shapes.keys() - wanted.keys())]
        found = {name: parameter for name, parameter in wanted.items() if name in shapes}
        wrong = [
            f"{name}: want {_shape(parameter.shape)}, got {_shape(shapes[name])}"
            for name, parameter in found.items()
            if not _fits(parameter, shapes[name])
        ]
        problems = [*_some(missing), *_some(extra), *_some(wrong), *_some(list(self._bad_values(found, told)))]
        if problems:
            head = f"the weights of {self.description} do not fit ({len(found)} of {len(wanted)} arrays are there):"
            raise ScoringError(Kind.PRECONDITION, "\n  ".join([head, *problems]))

    def array(self, parameter: Parameter) -> NDArray[np.float32]:
        values = self._arrays.read(self._name(parameter.name))
        return np.asarray(values, np.float32).reshape(parameter.shape)

    def _name(self, parameter: str) -> str:
        return keras_name(parameter) if self._arrays.keras else parameter

    def _bad_values(self, found: Mapping[str, Parameter], told: Told) -> Iterator[str]:
        total = sum(4 * parameter.count for parameter in found.values())
        done = 0
        for name, parameter in found.items():
            values = self._arrays.read(name)
            if not np.issubdtype(values.dtype, np.floating):
                yield f"{name}: want floats, got {values.dtype}"
            elif bad := _not_finite(values):
                yield f"{name}: {bad} of {values.size} values are not finite float32 numbers"
            elif name.endswith("moving_variance") and (values < 0).any():
                yield f"{name}: a variance cannot be negative, got {values.min():g}"
            done += 4 * parameter.count
            told("checking weights", done, total)


def _not_finite(values: NDArray[Any]) -> int:
    with np.errstate(over="ignore"):  # a double that is too large for float32 becomes infinite, and is counted
        return int(values.size - np.isfinite(values.astype(np.float32)).sum())


def _fits(parameter: Parameter, shape: tuple[int, ...]) -> bool:
    """A dense layer's [inputs, outputs] are the same numbers as a convolution's that covers its whole picture."""
    flat = (math.prod(parameter.shape[:-1]), parameter.shape[-1])
    return shape == parameter.shape or (len(parameter.shape) == 4 and shape == flat)


def _some(problems: list[str]) -> list[str]:
    more = len(problems) - _TOLD
    return [*problems[:_TOLD], *([f"and {more} more of these"] if more > 0 else [])]


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
