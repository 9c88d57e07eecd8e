"""A network with its weights as a model folder: NAME/1/model.onnx and NAME/accelserve.toml."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from accelserve import __version__
from accelserve.recipes.network import Network, Parameter
from accelserve.wire.onnx_pb2 import ModelProto, TensorProto

OPSET = 17
_IR_VERSION = 8
_FLOAT = 1
_INLINE_BYTES = 256 * 2**20
"""A model with more weights keeps them in a file beside it: protobuf ends at 2 GiB, and holds all in memory before."""
_ALIGNMENT = 4096  # so that a runtime can map each tensor
DATA_FILE = "model.onnx.data"

Told = Callable[[str, int, int], None]
"""Called with what is being done, bytes done, bytes in all."""


class Weights(Protocol):
    """Where values come from. description: for the model's metadata."""

    description: str

    def array(self, parameter: Parameter) -> NDArray[np.float32]:
        """The values, in the parameter's checkpoint shape."""
        ...


def write_model(network: Network, weights: Weights, metadata: Mapping[str, str], folder: Path, told: Told) -> int:
    """Write `folder`/model.onnx, and its weights beside it where they are many; at most one tensor is held then.

    Returns the bytes written. Raises OSError.
    """
    total = sum(4 * parameter.count for parameter in network.parameters)
    model = _model(network, metadata)
    path = folder / "model.onnx"
    if total <= _INLINE_BYTES:
        done = 0
        for parameter in network.parameters:
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(_tensor(parameter))
            tensor.raw_data = as_onnx(parameter, weights.array(parameter)).tobytes()
            done += 4 * parameter.count
            told("weights", done, total)
        total = 0
    else:
        with (folder / DATA_FILE).open("wb") as stream:
            model.graph.initializer.extend(_beside(network, weights, stream, told, total))
            total = stream.tell()
    with path.open("wb") as stream:
        total += stream.write(model.SerializeToString(deterministic=True))
    return total


def as_onnx(parameter: Parameter, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values as the graph has them (`Parameter.form`)."""
    turned = values.transpose(3, 2, 0, 1) if parameter.form == "image" else values.reshape(parameter.onnx_shape)
    return np.ascontiguousarray(turned, "<f4")


def _beside(network: Network, weights: Weights, stream: BinaryIO, told: Told, total: int) -> list[TensorProto]:
    tensors, done = [], 0
    for parameter in network.parameters:
        stream.seek(-(-stream.tell() // _ALIGNMENT) * _ALIGNMENT)
        tensor, offset = _tensor(parameter), stream.tell()
        stream.write(as_onnx(parameter, weights.array(parameter)).data)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", DATA_FILE), ("offset", offset), ("length", 4 * parameter.count)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        done += 4 * parameter.count
        told("weights", done, total)
    return tensors


def _tensor(parameter: Parameter) -> TensorProto:
    return TensorProto(name=parameter.name, data_type=_FLOAT, dims=parameter.onnx_shape)


def _model(network: Network, metadata: Mapping[str, str]) -> ModelProto:
    """All but the weights."""
    model = ModelProto(ir_version=_IR_VERSION, producer_name="accelserve", producer_version=__version__)
    model.opset_import.add(version=OPSET)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    graph = model.graph
    graph.name = network.name
    graph.input.append(network.input())
    graph.output.extend(network.outputs)
    graph.node.extend(network.nodes)
    graph.initializer.extend(network.constants)
    return model
