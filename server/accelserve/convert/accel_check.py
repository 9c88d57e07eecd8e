"""Whether the parts of a model made for an FPGA answer as the whole did: asked in ONNX Runtime, in float32."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from accelserve.backends.accel_onnx.accel_model import AccelModel
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import TensorSpec
from accelserve.wire.onnx_pb2 import ModelProto

TOLERANCE = 1e-5  # of an output's largest value: parts are fused otherwise than the whole
_FREE_SIDE = 8  # of an axis of any size
_SPREAD = 64.0  # of the values asked: pixels less their mean are of this size

Values = dict[str, NDArray[np.generic]]


def largest_error(name: str, whole: ModelProto, folder: Path, model: AccelModel, specs: Sequence[TensorSpec]) -> float:
    """The largest difference of an output over its largest value, for one batch of noise.

    specs: the whole graph's inputs, by tensor name. Raises ScoringError(PRECONDITION) when it is above the tolerance,
    or when either cannot be run.
    """
    noise = np.random.default_rng(0)
    asked: Values = {spec.name: _noise(spec, noise) for spec in specs}
    try:
        wanted = _run(whole.SerializeToString(), asked, {value.name: value.name for value in whole.graph.output})
        values = dict(asked)
        for part in model.parts:
            fed = {port: values[value] for port, value in part.feeds.items()}
            values |= _run(str(folder / part.file), fed, part.fetches)
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        message = f"{name}: the graph does not run in ONNX Runtime: {error}"
        raise ScoringError(Kind.PRECONDITION, message) from error
    errors = {output: _apart(values[output], wanted[output]) for output in wanted}
    worst = max(errors, key=lambda output: (np.isnan(errors[output]), errors[output]))
    if not errors[worst] <= TOLERANCE:
        message = f'{name}: output "{worst}" of the parts differs by {errors[worst]:.2g} from the whole model\'s'
        raise ScoringError(Kind.PRECONDITION, f"{message}, tolerance {TOLERANCE:g}", reason="differs")
    return errors[worst]


def _noise(spec: TensorSpec, noise: np.random.Generator) -> NDArray[np.generic]:
    shape = [2 if axis == 0 else _FREE_SIDE for axis in range(len(spec.shape or ()))]
    shape = [free if side == -1 else side for free, side in zip(shape, spec.shape or (), strict=True)]
    return (noise.standard_normal(shape) * _SPREAD).astype(spec.dtype.numpy)


def _run(graph: str | bytes, inputs: Mapping[str, NDArray[np.generic]], fetches: Mapping[str, str]) -> Values:
    """fetches: output -> the name to give it under."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    answers = session.run(list(fetches), dict(inputs))
    return {value: np.asarray(answer) for value, answer in zip(fetches.values(), answers, strict=True)}


def _apart(got: NDArray[np.generic], wanted: NDArray[np.generic]) -> float:
    if got.shape != wanted.shape or not got.size:
        return 0.0 if got.shape == wanted.shape else float("nan")
    largest = float(np.abs(wanted.astype(np.float64)).max())
    return float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()) / (largest or 1.0)
