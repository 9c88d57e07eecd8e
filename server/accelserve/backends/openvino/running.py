"""A compiled OpenVINO model as a function of arrays: zero copies in, copies out, and numbers that it would not keep."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accelserve.backends.accel_onnx.card_session import Run
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor, TensorSpec

# The CPU computes these as int32, and what does not fit wraps around unsaid (2**40 becomes 0).
_INT32 = np.iinfo(np.int32)
_NARROWED = {"int64": (_INT32.min, _INT32.max), "uint64": (0, _INT32.max)}


def runner(model: str, compiled: Any, signature: Signature) -> Run:
    """One request of the library; runs must not overlap.

    Inputs are read where they lie; outputs are copied, since their memory is the library's and the next run's.
    Raises ScoringError(PRECONDITION) for a name that the library does not have.
    """
    inputs = _indices(model, signature.inputs, compiled.inputs)
    outputs = _indices(model, signature.outputs, compiled.outputs)
    narrowed = {name: spec for name, spec in signature.inputs.items() if spec.dtype.name in _NARROWED}
    request = compiled.create_infer_request()

    def run(wanted: tuple[str, ...], given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for name, spec in narrowed.items():
            _check_range(model, spec, given[name])
        request.infer({inputs[name]: tensor for name, tensor in given.items()}, share_inputs=True, share_outputs=True)
        return {name: np.array(request.get_output_tensor(outputs[name]).data) for name in wanted}

    return run


def types_of(model: str, graph: Any) -> frozenset[str]:
    """The library's names of the graph's own types.

    Raises ScoringError(PRECONDITION) for a graph of numbers that the CPU does not compute in.
    """
    found = set()
    for op in graph.get_ordered_ops():
        for port in op.outputs():
            name = port.get_element_type().get_type_name()
            if name in ("f64", "string"):
                what = "computes float64 in float32" if name == "f64" else "takes no strings"
                message = f'{model}: layer "{op.get_friendly_name()}": OpenVINO {what}: leave runtime = "openvino" out'
                raise ScoringError(Kind.PRECONDITION, message)
            found.add(name)
    return frozenset(found)


def _indices(model: str, specs: Mapping[str, TensorSpec], ports: Sequence[Any]) -> dict[str, int]:
    """Name -> number of the port; the library may give one port several names."""
    found = {name: number for number, port in enumerate(ports) for name in port.get_names()}
    for name in specs:
        if name not in found:
            there = ", ".join(f'"{each}"' for each in sorted(found))
            raise ScoringError(Kind.PRECONDITION, f'{model}: OpenVINO has no "{name}"; it has {there}')
    return {name: found[name] for name in specs}


def _check_range(model: str, spec: TensorSpec, tensor: Tensor) -> None:
    least, most = _NARROWED[spec.dtype.name]
    if tensor.size and (tensor.min() < least or tensor.max() > most):
        message = f'{model} "{spec.name}": OpenVINO computes {spec.dtype} as int32: want {least} to {most}'
        raise ScoringError(Kind.INVALID, f"{message}, got {tensor.min()} to {tensor.max()}")
