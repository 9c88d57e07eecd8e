"""An ONNX session's inputs and outputs as a signature."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, DEFAULT_SIGNATURE, DType, Shape, Signature, TensorSpec

logger = logging.getLogger("accelserve.backends")

# ONNX Runtime's type strings that its Python API can feed and read back as numpy arrays. It can feed bfloat16 as an
# OrtValue but not read it ("No corresponding Numpy type"); complex, float8 and 4-bit types do not pass its API at all.
_TYPES: Mapping[str, DType] = MappingProxyType(
    {
        f"tensor({onnx_name})": BY_NAME[name]
        for onnx_name, name in {
            "float": "float32",
            "double": "float64",
            **{n: n for n in ("float16", "bool", "string", "int8", "int16", "int32", "int64")},
            **{n: n for n in ("uint8", "uint16", "uint32", "uint64")},
        }.items()
    }
)


class NodeArg(Protocol):
    """ONNX Runtime's description of an input or output. shape: numbers, symbols and None; [] also for unknown rank."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def read_signature(model: str, inputs: Sequence[NodeArg], outputs: Sequence[NodeArg]) -> Signature:
    """The one signature of an ONNX model.

    Outputs that are no tensors (scikit-learn's ZipMap) are left out with a warning while others remain.
    Raises ScoringError(PRECONDITION) for an input, or for all outputs, of a type that cannot cross the Python API.
    """
    refused = [arg for arg in inputs if arg.type not in _TYPES]
    kept = [arg for arg in outputs if arg.type in _TYPES]
    if refused or not kept:
        raise ScoringError(Kind.PRECONDITION, _refusal(model, refused[0] if refused else outputs[0]))
    for arg in outputs:
        if arg.type not in _TYPES:
            logger.warning('%s: output "%s" is left out: its type %s is not supported', model, arg.name, arg.type)
    return Signature(DEFAULT_SIGNATURE, _specs(inputs), _specs(kept))


def _refusal(model: str, arg: NodeArg) -> str:
    remedy = "convert the model to have float32 inputs and outputs (keep_io_types) or plain tensors"
    return f'{model} "{arg.name}": ONNX Runtime\'s Python API cannot pass {arg.type}: {remedy}'


def _specs(args: Sequence[NodeArg]) -> Mapping[str, TensorSpec]:
    return MappingProxyType(
        {arg.name: TensorSpec(arg.name, _TYPES[arg.type], _shape(arg.shape), arg.name) for arg in args}
    )


def _shape(shape: Sequence[int | str | None]) -> Shape | None:
    """Symbols become -1. ONNX Runtime says [] both for a scalar and for an unknown rank: None refuses neither."""
    if not shape:
        return None
    return tuple(size if isinstance(size, int) else -1 for size in shape)
