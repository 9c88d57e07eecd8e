"""An ONNX model in float16, and how far its answers are from those of the original.

Inputs and outputs keep their types. The error is measured on the CPU, on generated samples, with every value rounded to
float16 (`rounding.py`). A GPU adds in another order, so its own error differs a little.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from google.protobuf.message import EncodeError

from accelserve.backends.onnx_runtime.signature import read_signature
from accelserve.convert.compare import difference
from accelserve.convert.rounding import rounding
from accelserve.models.self_check import sample_shape
from accelserve.tensors import Tensor, TensorSpec

_ROWS = 4
_FATAL_ONLY = 4  # every failure is raised; on stderr it would only be told twice
_LARGEST_PROTO_BYTES = 2**31 - 2**20  # protobuf's own limit, less room for what is no weight


class NotConverted(Exception):
    """The model has no usable float16 form; the text says why."""


@dataclass(frozen=True, slots=True)
class Float16Report:
    """relative_error: largest |fp16 - fp32| of an output over its largest |fp32|; the output that has it is the worst.

    source_bytes, target_bytes: with external data.
    """

    relative_error: float
    worst_output: str
    rows: int
    source_bytes: int
    target_bytes: int


def to_float16(source: Path, target: Path) -> Float16Report:
    """Write `target` and measure it against `source`.

    Raises NotConverted where the converter or ONNX Runtime refuses, or no sample of ours gives numbers to compare.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)  # a line for each tiny weight
    try:
        model = onnx.load(source)
        source_bytes = byte_size(model)
        large = source_bytes > _LARGEST_PROTO_BYTES
        half = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=large)
    except Exception as error:
        raise NotConverted(f"the converter gave up: {type(error).__name__}: {error}") from error
    target_bytes = byte_size(half)
    _save(half, target)
    _session(target)  # it has to load
    worst, relative = _measure(source)
    return Float16Report(relative, worst, _ROWS, source_bytes, target_bytes)


def byte_size(model: Any) -> int:
    """Of the model with its weights, which protobuf itself does not count beyond 2 GiB: then of the weights alone."""
    try:
        return int(model.ByteSize())
    except EncodeError:
        return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def _save(model: Any, path: Path) -> None:
    """With its weights in a file beside it where the format has no room for them."""
    import onnx

    outside = byte_size(model) > _LARGEST_PROTO_BYTES
    onnx.save_model(model, path, save_as_external_data=outside, location=f"{path.name}.data" if outside else None)


def _measure(source: Path) -> tuple[str, float]:
    """The worst output and its error."""
    full = _session(source)
    try:
        signature = read_signature(source.name, full.get_inputs(), full.get_outputs())
        names = list(signature.outputs)
        feed = {name: _sample(spec) for name, spec in signature.inputs.items()}
        wanted, got = full.run(names, feed), _run_rounded(source, names, feed)
    except NotConverted:
        raise
    except Exception as error:
        raise NotConverted(f"its error cannot be measured: {error}") from error
    errors = [(name, _error(w, g)) for name, w, g in zip(names, wanted, got, strict=True) if w.dtype.kind in "fiu"]
    if not errors:
        raise NotConverted("its error cannot be measured: no output is of numbers")
    return max(errors, key=lambda error: error[1])


def _run_rounded(source: Path, names: list[str], feed: dict[str, Tensor]) -> list[Tensor]:
    import onnx

    model = onnx.load(source)
    if byte_size(model) <= _LARGEST_PROTO_BYTES:  # beyond it the types of inner values stay unknown: weights alone
        model = onnx.shape_inference.infer_shapes(model)
    with TemporaryDirectory() as folder:
        _save(rounding(model), Path(folder) / "rounding.onnx")
        answers: list[Tensor] = _session(Path(folder) / "rounding.onnx").run(names, feed)
        return answers


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise NotConverted(f"ONNX Runtime does not load {path.name}: {error}") from error


def _error(wanted: Tensor, got: Tensor) -> float:
    """Infinite where fp16 overflows and fp32 does not, or the shapes differ. A class number counts as a number."""
    return difference(got.astype(np.float64), wanted.astype(np.float64))


def _sample(spec: TensorSpec) -> Tensor:
    """Floats of a normal distribution, bytes of all values, other integers 0 and 1; the same in every process."""
    if spec.dtype.is_string:
        raise NotConverted(f'its error cannot be measured: input "{spec.name}" is of strings')
    generator = np.random.default_rng(20190501)
    shape = () if spec.shape is None else sample_shape(spec, _ROWS)
    if spec.dtype.numpy.kind == "f":
        return np.asarray(generator.standard_normal(shape), spec.dtype.numpy)
    return np.asarray(generator.integers(0, 256 if spec.dtype.name == "uint8" else 2, shape), spec.dtype.numpy)
