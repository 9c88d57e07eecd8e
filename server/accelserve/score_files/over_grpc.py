"""Files by gRPC's Predict: bytes as a string tensor, .npy files as the arrays that they hold."""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from accelserve.client import GrpcClient, ServerError
from accelserve.codecs.json_text import json_bytes
from accelserve.errors import ExitCode, ScoringError
from accelserve.score_files.asking import FileBody, Question, RefusalError, Reply, refusal_of, spent_of
from accelserve.tensors import Tensor


class GrpcAsker:
    """client: of this asker alone. now_s: a clock."""

    def __init__(self, client: GrpcClient, address: str, question: Question, now_s: Callable[[], float]) -> None:
        self._client = client
        self._address = address
        self._question = question
        self._now_s = now_s
        self._input = question.input

    def close(self) -> None:
        self._client.close()

    def ask(self, files: Sequence[FileBody]) -> Reply:
        question = self._question
        inputs, rows = _joined(files)
        try:
            self._input = self._input or self._only_input()
            started_s = self._now_s()
            told = self._client.predict_told(
                {self._input: inputs},
                model=question.model,
                output_filter=[question.output] if question.output else [],
                timeout_s=question.timeout_s,
            )
        except ServerError as error:
            refusal = refusal_of(error)
            raise RefusalError(
                refusal.status,
                f"{self._address}: {refusal.message}" if refusal.unreached else refusal.message,
                refusal.ends_with,
                refusal.unreached,
                refusal.again_s,
            ) from error
        spent = spent_of(told.headers, (self._now_s() - started_s) * 1000)
        return Reply(_answers(told.value, rows), spent, told.headers.get("x-accelserve-device", ""))

    def _only_input(self) -> str:
        names = self._client.input_names(self._question.model, timeout_s=self._question.timeout_s)
        if len(names) != 1:
            there = ", ".join(names) or "none that it tells"
            raise RefusalError("WHICH INPUT", f"say --input NAME; the model's inputs: {there}", ExitCode.USAGE)
        return names[0]


def _joined(files: Sequence[FileBody]) -> tuple[Tensor, list[int | None]]:
    """One tensor, and each file's rows in it; None for a file that is one row. Raises RefusalError."""
    if not any(file.is_array for file in files):
        strings = np.empty(len(files), np.object_)
        strings[:] = [file.body for file in files]
        return strings, [None] * len(files)
    arrays = [_array(file) for file in files]
    if len(arrays) == 1:
        return arrays[0], [len(arrays[0]) if arrays[0].ndim else None]
    if len({(array.dtype, array.shape[1:]) for array in arrays}) > 1 or not all(array.ndim for array in arrays):
        raise RefusalError("NO BATCH", "files of different types or shapes: score them with --batch 1")
    return np.concatenate(arrays), [len(array) for array in arrays]


def _array(file: FileBody) -> Tensor:
    if not file.is_array:
        raise RefusalError("NO BATCH", "arrays and other files at once: score them with --batch 1")
    try:
        array = np.load(io.BytesIO(file.body), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RefusalError("NO ARRAY", f"not a .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise RefusalError("NO ARRAY", "an archive of several arrays, and one is wanted")
    return array


def _answers(outputs: dict[str, Tensor], rows: Sequence[int | None]) -> list[Any]:
    """Each file's part of the outputs, as HTTP answers it. Raises RefusalError."""
    wanted = sum(1 if count is None else count for count in rows)
    if len(rows) > 1 and any(not tensor.ndim or len(tensor) != wanted for tensor in outputs.values()):
        raise RefusalError("NO ROWS", f"the outputs have not {wanted} rows each: score the files with --batch 1")
    answers, at = [], 0
    for count in rows:
        end = at + (1 if count is None else count)
        parts = {name: _plain(_part(tensor, at, end, count is None, len(rows) > 1)) for name, tensor in outputs.items()}
        answers.append(next(iter(parts.values())) if len(parts) == 1 else parts)
        at = end
    return answers


def _part(tensor: Tensor, at: int, end: int, single: bool, shared: bool) -> Tensor:
    if single and tensor.ndim and len(tensor) >= end and (shared or len(tensor) == 1):
        return np.asarray(tensor[at])
    return tensor[at:end] if shared else tensor


def _plain(tensor: Tensor) -> Any:
    """As HTTP's answer reads."""
    try:
        return json.loads(json_bytes(tensor))
    except ScoringError as error:
        raise RefusalError("NO JSON", error.message) from error
