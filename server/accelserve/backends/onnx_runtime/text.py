"""Strings, which are bytes here and UTF-8 text in ONNX."""

from collections.abc import Mapping, Sequence

import numpy as np

from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor


def with_text(model: str, inputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The inputs, those of `names` as text. Given bytes, the library would feed their Python literal, "b'...'".

    model: for messages. Raises ScoringError(INVALID) for bytes that are no UTF-8.
    """
    feed = dict(inputs)
    for name in names:
        try:
            feed[name] = _as_text(inputs[name])
        except (UnicodeDecodeError, AttributeError) as error:
            message = f'{model} "{name}": ONNX strings are UTF-8 text: {error}'
            raise ScoringError(Kind.INVALID, message) from error
    return feed


def _as_text(tensor: Tensor) -> Tensor:
    """bytes to str, element by element; any shape."""
    text = np.empty(tensor.shape, object)
    text.ravel()[:] = [element.decode() for element in tensor.ravel().tolist()]
    return text


def as_bytes(tensor: Tensor) -> Tensor:
    """str to bytes, element by element; any shape."""
    data = np.empty(tensor.shape, object)
    data.ravel()[:] = [element.encode() for element in tensor.ravel().tolist()]
    return data
