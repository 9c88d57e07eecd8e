"""Batches without elements, which ONNX Runtime (1.31) answers wrongly, refuses, or does not survive.

Without rows, Conv and Resize answer with other inner sizes and Reshape refuses; LSTM and GRU end the process
(`std::terminate`) on the CPU, whichever of their axes is empty. A client's request must not be able to do that.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from accelserve.backends.base import Batch, BatchResult
from accelserve.backends.onnx_runtime.assignment import assigned_nodes
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor, describe_tensor

_RECURRENT = frozenset({"GRU", "LSTM"})
_MOST_ELEMENTS = 2**24  # of a row that nobody sent: a shape without rows may claim any size in a few bytes


def recurrent_ops(session: Any) -> tuple[str, ...]:
    """Which operators of the library's session, its loops and conditions included, take no empty axis."""
    return tuple(sorted({node.op_type for _, node in assigned_nodes(session)} & _RECURRENT))


def one_row_for_none(signature: Signature, batch: Batch) -> Batch | None:
    """The batch with one row of zeros, whose outputs `without_rows` cuts to none; None for a batch with rows.

    Raises ScoringError(INVALID) for rows that are too large to be made up.
    """
    for tensor in batch.inputs.values():  # a generator for `any` costs half a microsecond, before every run
        if tensor.shape[:1] != (0,):
            return None
    if not signature.batched:
        return None
    return replace(batch, inputs={name: _zero_row(name, tensor) for name, tensor in batch.inputs.items()}, rows=1)


def without_rows(result: BatchResult) -> BatchResult:
    return replace(result, outputs={name: tensor[:0] for name, tensor in result.outputs.items()})


def check_not_empty(model: str, inputs: Mapping[str, Tensor], recurrent: tuple[str, ...]) -> None:
    """Raises ScoringError(INVALID) for an empty axis that would reach a recurrent operator."""
    for name, tensor in inputs.items() if recurrent else ():
        if not tensor.size:
            message = (
                f'{model} "{name}": {" and ".join(recurrent)} want at least one step, got {describe_tensor(tensor)}'
            )
            raise ScoringError(Kind.INVALID, message)


def _zero_row(name: str, tensor: Tensor) -> Tensor:
    shape = (1, *tensor.shape[1:])
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ScoringError(Kind.INVALID, f'"{name}": {describe_tensor(tensor)} has no rows, and too large ones')
    return np.full(shape, b"", object) if tensor.dtype == object else np.zeros(shape, tensor.dtype)
