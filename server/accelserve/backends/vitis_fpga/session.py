"""A model resident on an FPGA through ONNX Runtime's VitisAI provider; the library itself is not imported here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from accelserve.backends.base import Batch, BatchResult, Device, Placement
from accelserve.backends.batch_check import check_batch
from accelserve.backends.onnx_runtime.empty import one_row_for_none, without_rows
from accelserve.backends.onnx_runtime.errors import one_line
from accelserve.backends.run_gate import RunGate
from accelserve.backends.vitis_fpga.errors import kind_of
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor

Run = Callable[[tuple[str, ...], Mapping[str, Tensor]], Mapping[str, Tensor]]
"""(outputs wanted, inputs of exactly `rows` rows) -> those outputs."""


class VitisSession:
    """One model on one card; runs are made one after the other. rows: of every run, which fewer are padded to."""

    def __init__(
        self,
        model: str,
        signature: Signature,
        device: Device,
        placement: Placement,
        run: Run,
        rows: int,
        remarks: tuple[str, ...],
        note_lost: Callable[[Device, str], None],
    ) -> None:
        self.signatures: Mapping[str, Signature] = MappingProxyType({signature.name: signature})
        self.device = device
        self.placement = placement
        self.remarks = remarks
        self._model = model
        self._rows = rows
        self._run: Run | None = run
        self._note_lost = note_lost
        self._gate = RunGate(model)

    def run(self, batch: Batch) -> BatchResult:
        signature = check_batch(self._model, self.signatures, batch)
        if row := one_row_for_none(signature, batch):
            return without_rows(self.run(row))
        with self._gate:
            if not signature.batched:
                return BatchResult(self._call(batch.outputs, batch.inputs))
            rows = len(next(iter(batch.inputs.values())))
            self._check_rows(rows)
            padded = {name: _pad(tensor, self._rows) for name, tensor in batch.inputs.items()}
            return BatchResult({name: tensor[:rows] for name, tensor in self._call(batch.outputs, padded).items()})

    def close(self) -> None:
        if self._gate.close():
            self._run = None

    def _check_rows(self, rows: int) -> None:
        if rows > self._rows:
            raise ScoringError(Kind.INVALID, f"{self._model}: want at most {self._rows} rows, got {rows}")

    def _call(self, outputs: tuple[str, ...], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        assert self._run is not None
        try:
            return self._run(outputs, inputs)
        except Exception as error:
            kind, reason = kind_of(error), one_line(error)
            if kind is Kind.DEVICE_LOST:
                self._note_lost(self.device, reason)
            raise ScoringError(kind, f"{self._model}: {reason}") from error


def runner(session: Any) -> Run:
    """The library's session as a function."""

    def run(outputs: tuple[str, ...], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return dict(zip(outputs, session.run(list(outputs), dict(inputs)), strict=True))

    return run


def _pad(tensor: Tensor, rows: int) -> Tensor:
    """As many rows as the model was compiled for: the last one repeated."""
    missing = rows - len(tensor)
    return np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)]) if missing else tensor
