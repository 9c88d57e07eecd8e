"""Whether a CPU runs a batch whole or row by row: measured once, when the model loads.

Most models gain from a batch, or do not care. One whose operators hand on more than the cache holds loses by it: what
an operator has written is gone before the next one reads it. A graph that makes floats of pictures by itself (600 KB a
row) took 218 µs of CPU a row in a batch of 8 and 163 row by row; small dense layers took 8 and 33. Joining requests
counts: of rows of 600 KB, which a model only averages, it takes as long as their run.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from accelserve.tensors import Signature, Tensor

Run = Callable[[Sequence[str], Mapping[str, Tensor]], Sequence[Tensor]]  # output names, inputs -> outputs

_ROWS = 8  # what is measured: more rows only make the difference larger
_TRIES = 5  # of which the fastest counts, one way and the other in turn
_WORTH_IT = 0.85  # row by row has to take less than this part of the time
_MOST_NS = 2_000_000  # of a row: what computes for longer has little to gain, and would load longer
_MOST_FIRST_NS = 10 * _MOST_NS  # of the first run, which also allocates
_MOST_BYTES = 2**26  # of a batch that nobody sent


def gains_row_by_row(
    run: Run, signature: Signature, most_rows: int, now_ns: Callable[[], int] = time.perf_counter_ns
) -> bool:
    """run: the library's, which may fail on zeros; then a batch stays whole. most_rows: that a batch may have."""
    rows = min(_ROWS, most_rows)
    batch = _zeros(signature, rows)
    if batch is None or rows < 2:
        return False
    try:
        return _measured(run, tuple(signature.outputs), batch, rows, now_ns)
    except Exception:  # the loader runs it next, and tells what is wrong
        return False


def run_row_by_row(run: Run, names: Sequence[str], inputs: Mapping[str, Tensor], rows: int) -> list[Tensor] | None:
    """The outputs of [rows, ...] inputs, joined; None where they do not make `rows` rows of one shape."""
    parts = [run(names, {name: tensor[at : at + 1] for name, tensor in inputs.items()}) for at in range(rows)]
    joined = []
    for tensors in zip(*parts, strict=True):
        shape = tensors[0].shape
        if shape[:1] != (1,) or any(each.shape != shape for each in tensors):
            return None
        joined.append(np.concatenate(tensors))
    return joined


def _measured(
    run: Run, names: Sequence[str], batch: Mapping[str, Tensor], rows: int, now_ns: Callable[[], int]
) -> bool:
    """Requests of one row each, as they come: joined and run, or run one after the other."""
    requests = [{name: tensor[at : at + 1].copy() for name, tensor in batch.items()} for at in range(rows)]

    def alone() -> int:
        return _took_ns(lambda: run(names, requests[0]), now_ns)

    def whole() -> int:
        return _took_ns(lambda: run(names, _joined(requests)), now_ns)

    def apart() -> int:
        return _took_ns(lambda: [run(names, request) for request in requests], now_ns)

    if alone() > _MOST_FIRST_NS or min(alone() for _ in range(3)) > _MOST_NS:
        return False
    if run_row_by_row(run, names, batch, rows) is None:
        return False
    whole()
    took = [(whole(), apart()) for _ in range(_TRIES)]
    return min(ns for _, ns in took) < _WORTH_IT * min(ns for ns, _ in took)


def _joined(requests: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def _took_ns(work: Callable[[], Any], now_ns: Callable[[], int]) -> int:
    started_ns = now_ns()
    work()
    return now_ns() - started_ns


def _zeros(signature: Signature, rows: int) -> dict[str, Tensor] | None:
    """None where a batch cannot be made up: no batch axis, an open size, strings, too many bytes."""
    made = {}
    for name, spec in signature.inputs.items() if signature.batched else ():
        inner = spec.shape[1:] if spec.shape is not None else (-1,)
        if spec.dtype.is_string or min(inner, default=0) < 0:
            return None
        if rows * math.prod(inner) * spec.dtype.numpy.itemsize > _MOST_BYTES:
            return None
        made[name] = np.full((rows, *inner), 0, spec.dtype.numpy)  # in memory of its own, which np.zeros has not
    return made or None
