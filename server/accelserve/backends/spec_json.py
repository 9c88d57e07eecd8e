"""A signature's tensors in the JSON of converted models."""

from collections.abc import Mapping
from typing import Any

from accelserve.tensors import BY_NAME, TensorSpec


def spec_to_json(spec: TensorSpec, value: str) -> dict[str, Any]:
    """value: the name of the tensor in the part that takes or gives it."""
    shape = None if spec.shape is None else list(spec.shape)
    return {"dtype": spec.dtype.name, "shape": shape, "tensor_name": spec.tensor_name, "value": value}


def spec_from_json(key: str, spec: Mapping[str, Any]) -> TensorSpec:
    """key: the signature's. Raises KeyError for what `spec_to_json` has not written."""
    shape = None if spec["shape"] is None else tuple(spec["shape"])
    return TensorSpec(key, BY_NAME[spec["dtype"]], shape, spec["tensor_name"])
