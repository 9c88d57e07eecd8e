"""A compiled OpenVINO model as a function of arrays: zero copies in, copies out, and numbers that it would not keep."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from accelserve.backends.accel_onnx.accel_model import Part
from accelserve.backends.accel_onnx.running import Run
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

# The CPU computes these as int32, and what does not fit wraps around unsaid (2**40 becomes 0).
_INT32 = np.iinfo(np.int32)
_NARROWED = {"i64": ("int64", _INT32.min, _INT32.max), "u64": ("uint64", 0, _INT32.max)}


def runner(model: str, compiled: Any, part: Part) -> Run:
    """One request of the library; runs must not overlap.

    Inputs are read where they lie; outputs are copied, since their memory is the library's and the next run's.
    Raises ScoringError(PRECONDITION) for a name that the library does not have.
    """
    inputs = _indices(model, part.feeds, compiled.inputs)
    outputs = _indices(model, part.fetches, compiled.outputs)
    types = {name: compiled.inputs[number].get_element_type().get_type_name() for name, number in inputs.items()}
    narrowed = {name: each for name, each in types.items() if each in _NARROWED}
    request = compiled.create_infer_request()

    def run(wanted: Sequence[str], given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for name, each in narrowed.items():
            _check_range(model, name, each, given[name])
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


def join(device: Any, part: Part, tail: Any, rest: Part) -> None:
    """Tell the tail's graph the shapes that the device's makes: a file need not, and the library wants a rank."""
    made = {name: port.get_partial_shape() for port in device.outputs for name in port.get_names()}
    values = {value: made[port] for port, value in part.fetches.items() if port in made}
    tail.reshape({port: values[value] for port, value in rest.feeds.items() if value in values})


def _indices(model: str, names: Iterable[str], ports: Sequence[Any]) -> dict[str, int]:
    """Name -> number of the port; the library may give one port several names."""
    found = {name: number for number, port in enumerate(ports) for name in port.get_names()}
    for name in names:
        if name not in found:
            there = ", ".join(f'"{each}"' for each in sorted(found))
            raise ScoringError(Kind.PRECONDITION, f'{model}: OpenVINO has no "{name}"; it has {there}')
    return {name: found[name] for name in names}


def _check_range(model: str, name: str, element_type: str, tensor: Tensor) -> None:
    dtype, least, most = _NARROWED[element_type]
    if tensor.size and (tensor.min() < least or tensor.max() > most):
        message = f'{model} "{name}": OpenVINO computes {dtype} as int32: want {least} to {most}'
        raise ScoringError(Kind.INVALID, f"{message}, got {tensor.min()} to {tensor.max()}")
