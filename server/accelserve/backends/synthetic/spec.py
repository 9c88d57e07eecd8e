"""The description of a synthetic model: what its TOML file may say."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, DEFAULT_SIGNATURE, Signature, TensorSpec

BEHAVIOURS = ("echo", "double")
LOAD_ERROR_KINDS = ("precondition", "device_memory", "device_missing", "conflict")


@dataclass(frozen=True, slots=True)
class SyntheticSpec:
    """What a synthetic model does. Times are in milliseconds; runs are counted from 1.

        behaviour = "double"
        delay_ms = 2.0
        [inputs.x]
        dtype = "float32"
        shape = [-1, 4]
        output = "y"          # the input's own name when left out

    behaviour: "echo" answers with the inputs, "double" with twice the inputs (bool and strings cannot).
    delay_ms + delay_per_row_ms * rows + uniform(0, jitter_ms): how long a run takes; `seed` makes the jitter repeat.
    delay_if_contains: only batches with an element of this value take that long, all others no time.
    fail_every: every n-th run fails as INTERNAL. lose_device_after: all runs after the n-th fail as DEVICE_LOST.
    fail_if_contains: a batch with an element of this value fails whole, as INVALID. item_error_if_contains: a row with
    an element of this value is reported as that row's own error. load_error: loading fails with this reason, and with
    load_error_kind, PRECONDITION when it says nothing. sticky_loss: no model is loaded again in a process that has lost
    the device, as after an error that CUDA calls sticky.
    """

    signature: Signature
    source_of: Mapping[str, str]  # output -> input
    behaviour: str = "echo"
    delay_ms: float = 0.0
    delay_per_row_ms: float = 0.0
    jitter_ms: float = 0.0
    delay_if_contains: float | None = None
    seed: int = 0
    fail_every: int | None = None
    fail_if_contains: float | None = None
    item_error_if_contains: float | None = None
    lose_device_after: int | None = None
    load_delay_ms: float = 0.0
    load_error: str = ""
    load_error_kind: str = "precondition"
    sticky_loss: bool = False


def read_spec(model: str, path: Path) -> SyntheticSpec:
    """Read a description. Raises ScoringError(PRECONDITION) naming the file and what is wrong with it."""
    try:
        return parse_spec(tomllib.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ScoringError(Kind.PRECONDITION, f"{model} does not load: {path}: {error}") from error


def parse_spec(table: Mapping[str, Any]) -> SyntheticSpec:
    """The description in a parsed TOML table. Raises ValueError."""
    settings = dict(table)
    inputs = settings.pop("inputs", None)
    if not isinstance(inputs, dict) or not inputs:
        raise ValueError("[inputs.NAME] is missing: at least one input is wanted")
    _refuse_unknown("", settings, {f.name for f in fields(SyntheticSpec)} - {"signature", "source_of"})
    for key, value in settings.items():
        _check_type(key, value)
    behaviour = settings.get("behaviour", "echo")
    if behaviour not in BEHAVIOURS:
        raise ValueError(f"behaviour must be one of {', '.join(BEHAVIOURS)}, got {behaviour!r}")
    specs = {name: _input(name, entry, behaviour) for name, entry in inputs.items()}
    source_of = {output: name for name, (_, output) in specs.items()}
    if len(source_of) < len(specs):
        raise ValueError("two inputs have one output name")
    signature = Signature(
        DEFAULT_SIGNATURE,
        MappingProxyType({name: spec for name, (spec, _) in specs.items()}),
        MappingProxyType({out: TensorSpec(out, spec.dtype, spec.shape, out) for spec, out in specs.values()}),
    )
    return SyntheticSpec(signature, MappingProxyType(source_of), **settings)


def _input(name: str, entry: Any, behaviour: str) -> tuple[TensorSpec, str]:
    """The input's spec and its output's name."""
    key = f"inputs.{name}"
    if not isinstance(entry, dict):
        raise ValueError(f"[{key}] must be a table with dtype and shape")
    _refuse_unknown(f"{key}.", entry, {"dtype", "shape", "output"})
    dtype = BY_NAME.get(entry.get("dtype", "float32"))
    if dtype is None:
        raise ValueError(f"{key}.dtype: there is no type {entry['dtype']!r}")
    if behaviour == "double" and dtype.name in ("bool", "string"):
        raise ValueError(f"{key}.dtype: {dtype} cannot be doubled")
    shape = entry.get("shape")
    if shape is not None and not (isinstance(shape, list) and all(type(n) is int and n >= -1 for n in shape)):
        raise ValueError(f"{key}.shape must be a list of sizes, -1 for any, got {shape!r}")
    output = entry.get("output", name)
    if not isinstance(output, str) or not output:
        raise ValueError(f"{key}.output must be a name, got {output!r}")
    return TensorSpec(name, dtype, None if shape is None else tuple(shape), name), output


def _refuse_unknown(prefix: str, table: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"unknown key {prefix}{unknown[0]}; known are {', '.join(sorted(known))}")


def _check_type(key: str, value: Any) -> None:
    if key in ("behaviour", "load_error"):
        fits, wanted = isinstance(value, str), "a text"
    elif key == "load_error_kind":
        fits, wanted = value in LOAD_ERROR_KINDS, f"one of {', '.join(LOAD_ERROR_KINDS)}"
    elif key == "sticky_loss":
        fits, wanted = isinstance(value, bool), "true or false"
    elif key in ("fail_every", "lose_device_after", "seed"):
        least = 1 if key == "fail_every" else 0
        fits, wanted = type(value) is int and value >= least, f"a whole number of at least {least}"
    elif key.endswith("_ms"):
        fits, wanted = type(value) in (int, float) and value >= 0, "a number of milliseconds"
    else:
        fits, wanted = type(value) in (int, float), "a number"
    if not fits:
        raise ValueError(f"{key} must be {wanted}, got {value!r}")
