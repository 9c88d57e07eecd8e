"""What a caller hands in becomes tensors; what a model's metadata says of its signatures."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from accelserve.tensors import DEFAULT_SIGNATURE, Tensor

DEFAULT_TIMEOUT_S = 30.0
_INT32 = np.iinfo(np.int32)
_Described = TypeVar("_Described")
_Value = TypeVar("_Value")


class Told(NamedTuple, Generic[_Value]):
    """An answer, and what was said beside it: HTTP's headers or gRPC's trailing metadata, names in lower case."""

    value: _Value
    headers: Mapping[str, str]


def as_tensor(value: Any) -> Tensor:
    """What a caller has at hand, as a tensor.

    An array is taken as it is. `bytes` or `str` become a string tensor of shape [1], a list of them one of [n]. Python
    floats become float32 and ints int32 where they fit, else int64: the choice of TensorFlow's `make_tensor_proto`.
    """
    if isinstance(value, bytes | str):
        return as_tensor([value])
    # Strings not through numpy's own string types: "S" drops zero bytes at the end, and a JPEG may have some.
    tensor = np.asarray(value, np.object_ if isinstance(_first_leaf(value), bytes | str) else None)
    if tensor.dtype.kind in "SUO":
        return _strings(tensor)
    if isinstance(value, np.ndarray | np.generic):
        return tensor
    if tensor.dtype == np.float64:
        return tensor.astype(np.float32)
    if tensor.dtype == np.int64 and tensor.size and _INT32.min <= tensor.min() and tensor.max() <= _INT32.max:
        return tensor.astype(np.int32)
    return tensor


def _first_leaf(value: Any) -> Any:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return value


def _strings(tensor: Tensor) -> Tensor:
    items = [item.encode() if isinstance(item, str) else item for item in tensor.ravel().tolist()]
    if not all(isinstance(item, bytes) for item in items):
        raise ValueError("want an array, or nested lists of equal lengths, of numbers or of strings")
    strings = np.empty(tensor.size, np.object_)
    strings[:] = items
    return strings.reshape(tensor.shape)


def find_signature(known: Mapping[str, _Described], name: str) -> _Described | None:
    """As the server finds it: by name; for "" `serving_default`, else the only one."""
    found = known.get(name or DEFAULT_SIGNATURE)
    if found is None and not name and len(known) == 1:
        return next(iter(known.values()))
    return found
