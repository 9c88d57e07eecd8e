"""A model resident on one device that runs one batch after the other, whichever library drives it."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from accelserve.backends.accel_onnx.accel_model import DEVICE_FILE, AccelModel, Part, decoded_input
from accelserve.backends.accel_onnx.running import AccelRunner, Run
from accelserve.backends.base import Batch, BatchResult, DecodedInput, Device, Placement
from accelserve.backends.batch_check import check_batch
from accelserve.backends.onnx_runtime.empty import one_row_for_none, without_rows
from accelserve.backends.run_gate import RunGate
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor

TAIL_PLACE = "CPU (host's tail)"


@dataclass(frozen=True, slots=True)
class OnCard:
    """What was loaded. name: "model:version", for messages. on_device, on_host: how the two parts are run.

    rows: the most of one run; None: any number. padded: the device runs exactly that many. remarks: as `Remarked`.
    """

    name: str
    model: AccelModel
    device: Device
    placement: Placement
    on_device: Run
    on_host: Run | None = None
    rows: int | None = None
    padded: bool = True
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failures:
    """kind: whose fault a failed run is. words: its reason in one line. note_lost: told when the device is gone."""

    kind: Callable[[Exception], Kind]
    words: Callable[[Exception], str]
    note_lost: Callable[[Device, str], None]


def undivided(signature: Signature) -> AccelModel:
    """A model of which all runs on the device, under its own names."""
    inputs, outputs = {key: key for key in signature.inputs}, {key: key for key in signature.outputs}
    return AccelModel(signature, inputs, outputs, Part(DEVICE_FILE, inputs, outputs))


class CardSession:
    """One model on one device. Runs of several threads wait for each other: the device has one of everything."""

    def __init__(self, loaded: OnCard, failures: Failures) -> None:
        signature = loaded.model.signature
        self.signatures: Mapping[str, Signature] = MappingProxyType({signature.name: signature})
        self.device = loaded.device
        self.placement = loaded.placement
        self.remarks = loaded.remarks
        self._name = loaded.name
        self._model = loaded.model
        self._rows = loaded.rows
        self._padded = loaded.padded
        self._runner: AccelRunner | None = AccelRunner(loaded.model, loaded.on_device, loaded.on_host)
        self._failures = failures
        self._asked = dict(self.signatures)
        self._gate = RunGate(loaded.name)
        self._one_at_a_time = threading.Lock()

    def take_decoded(self, signature: str) -> DecodedInput:
        """Of a converted model whose pictures the server decodes."""
        taken = decoded_input(self._model)
        self._asked[taken.signature.name] = taken.signature
        return taken

    def run(self, batch: Batch) -> BatchResult:
        signature = check_batch(self._name, self._asked, batch)
        if any(spec.dtype.is_string for spec in signature.inputs.values()):
            message = f"{self._name}: pictures are decoded before they reach the device"
            raise ScoringError(Kind.UNSUPPORTED, message)
        if row := one_row_for_none(signature, batch):
            return without_rows(self.run(row))
        missing = self._missing_rows(signature, batch)
        with self._gate, self._one_at_a_time:
            if not missing:
                return BatchResult(self._call(batch.outputs, batch.inputs))
            return BatchResult(self._call_padded(batch, missing))

    def close(self) -> None:
        if self._gate.close():
            self._runner = None

    def _missing_rows(self, signature: Signature, batch: Batch) -> int:
        """How many to pad with. Raises ScoringError(INVALID) for more rows than the device takes at once."""
        if self._rows is None or not signature.batched:
            return 0
        rows = len(next(iter(batch.inputs.values())))
        if rows > self._rows:
            message = f"{self._name}: want at most {self._rows} rows in a run on {self.device.id}, got {rows}"
            raise ScoringError(Kind.INVALID, message)
        return self._rows - rows if self._padded else 0

    def _call_padded(self, batch: Batch, missing: int) -> Mapping[str, Tensor]:
        """With the last row repeated, whose answers are cut off."""
        padded = {
            name: np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)])
            for name, tensor in batch.inputs.items()
        }
        return {name: tensor[:-missing] for name, tensor in self._call(batch.outputs, padded).items()}

    def _call(self, outputs: tuple[str, ...], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        assert self._runner is not None
        try:
            return self._runner.run(inputs, outputs)
        except ScoringError:
            raise
        except Exception as error:
            kind, reason = self._failures.kind(error), self._failures.words(error)
            if kind is Kind.DEVICE_LOST:
                self._failures.note_lost(self.device, reason)
            raise ScoringError(kind, f"{self._name}: {reason}") from error
