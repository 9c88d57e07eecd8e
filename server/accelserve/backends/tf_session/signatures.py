"""SignatureDefs (protobuf messages of TensorFlow, which is not imported here) as signatures."""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_TF, Shape, Signature, Tensor, TensorSpec

logger = logging.getLogger("accelserve.backends")

_REF = 100  # DT_FLOAT_REF = DT_FLOAT + 100: a TF1 variable itself; a session run reads its value
_INIT_OP = "__saved_model_init_op"  # TF2's name for its initialisation, which the loader has run; no question to ask


def read_signatures(
    model: str,
    definitions: Mapping[str, Any],
    to_array: Callable[[Any], Tensor],
    refused: dict[str, str] | None = None,
) -> dict[str, Signature]:
    """The signatures by name, in the order of their names (a protobuf map has none), inputs and outputs likewise.

    to_array: tf.make_ndarray. A signature with a sparse, composite or otherwise unsupported tensor is left out with a
    warning; refused is filled with their names and reasons. Raises ScoringError(PRECONDITION) when none is left.
    """
    signatures: dict[str, Signature] = {}
    refused = {} if refused is None else refused
    for name in sorted(set(definitions) - {_INIT_OP}):
        try:
            signatures[name] = _signature(name, definitions[name], to_array)
        except _Unsupported as error:
            refused[name] = str(error)
            logger.warning('%s: signature "%s" is left out: %s', model, name, error)
    if not signatures:
        reasons = "; ".join(f'signature "{name}" is left out: {why}' for name, why in refused.items())
        raise ScoringError(Kind.PRECONDITION, f"{model} has no usable signature: {reasons or 'none at all'}")
    return signatures


class _Unsupported(Exception):
    """Why a signature cannot be served; caught by `read_signatures`."""


def _signature(name: str, definition: Any, to_array: Callable[[Any], Tensor]) -> Signature:
    if not definition.outputs:
        raise _Unsupported("it has no outputs")
    return Signature(
        name,
        _specs(definition.inputs),
        _specs(definition.outputs),
        definition.method_name,
        MappingProxyType({key: to_array(definition.defaults[key]) for key in sorted(definition.defaults)}),
        strict_shapes=False,
    )


def _specs(infos: Mapping[str, Any]) -> Mapping[str, TensorSpec]:
    return MappingProxyType({name: _spec(name, infos[name]) for name in sorted(infos)})


def _spec(name: str, info: Any) -> TensorSpec:
    encoding = info.WhichOneof("encoding")
    if encoding != "name":
        raise _Unsupported(f'tensor "{name}" is {encoding or "without a name"}, not a dense tensor')
    dtype = BY_TF.get(info.dtype % _REF)
    if dtype is None:
        raise _Unsupported(f'tensor "{name}" has the TensorFlow data type number {info.dtype}')
    return TensorSpec(name, dtype, _shape(info.tensor_shape), info.name)


def _shape(shape: Any) -> Shape | None:
    return None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
