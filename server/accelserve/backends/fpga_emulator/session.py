"""A model resident on the emulated card; the library that runs its graphs is not imported here."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from accelserve.backends.accel_onnx.accel_model import AccelModel, decoded_input
from accelserve.backends.accel_onnx.running import AccelRunner, Run
from accelserve.backends.base import Batch, BatchResult, DecodedInput, Device, Placement
from accelserve.backends.batch_check import check_batch
from accelserve.backends.fpga_emulator.latency_model import LayerWork
from accelserve.backends.fpga_emulator.options import EmulatorOptions
from accelserve.backends.onnx_runtime.empty import one_row_for_none, without_rows
from accelserve.backends.onnx_runtime.errors import kind_of, one_line
from accelserve.backends.run_gate import RunGate
from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor

logger = logging.getLogger("accelserve.backends")


@dataclass(frozen=True, slots=True)
class Resident:
    """What a session is made of. device, tail: how the graphs run. work: for the latency model, None without one."""

    model: AccelModel
    device: Run
    tail: Run | None
    work: tuple[LayerWork, ...] | None
    placement: Placement
    remarks: tuple[str, ...]


class EmulatorSession:
    """Runs go one after the other, as on a card.

    nonfinite_values: how many infinities and NaNs the device's part has made since the session opened.
    """

    def __init__(
        self,
        name: str,
        resident: Resident,
        device: Device,
        options: EmulatorOptions,
        clock: Clock,
        lost: Callable[[], str],
    ) -> None:
        """name: "model:version", for messages. lost: why the device is gone, "" while it is there."""
        model = resident.model
        self.signatures: Mapping[str, Signature] = MappingProxyType({model.signature.name: model.signature})
        self.device = device
        self.placement = resident.placement
        self.remarks = resident.remarks
        self.nonfinite_values = 0
        self._name = name
        self._resident = resident
        self._options = options
        self._clock = clock
        self._lost = lost
        self._asked = dict(self.signatures)
        self._runner = AccelRunner(model, self._run_device, resident.tail)
        self._closing = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._modelled_ns = 0
        self._gate = RunGate(name)

    def take_decoded(self, signature: str) -> DecodedInput:
        """Of a converted model whose pictures the server decodes."""
        taken = decoded_input(self._resident.model)
        self._asked[taken.signature.name] = taken.signature
        return taken

    def run(self, batch: Batch) -> BatchResult:
        """As `Session.run`; with `pace` it returns when the modelled time has passed."""
        signature = check_batch(self._name, self._asked, batch)
        if any(spec.dtype.is_string for spec in signature.inputs.values()):
            message = f"{self._name}: pictures are decoded before they reach the device"
            raise ScoringError(Kind.UNSUPPORTED, message)
        if row := one_row_for_none(signature, batch):
            return without_rows(self.run(row))
        self._check_rows(signature, batch)
        with self._gate, self._one_at_a_time:
            return self._run(batch)

    def close(self) -> None:
        self._closing.set()
        self._gate.close()

    def _run(self, batch: Batch) -> BatchResult:
        started_ns = self._clock.now_ns()
        self._modelled_ns = 0
        try:
            self._check_device()
            outputs = self._runner.run(batch.inputs, batch.outputs)
            self._check_device()
        except ScoringError:
            raise
        except Exception as error:
            raise ScoringError(kind_of(error), f"{self._name}: {one_line(error)}") from error
        modelled_ns = self._modelled_ns
        if self._options.pace and modelled_ns:
            self._closing.wait(max(0, modelled_ns - self._clock.now_ns() + started_ns) / 1e9)
        return BatchResult(outputs, modelled_device_ns=modelled_ns or None)

    def _run_device(self, names: Sequence[str], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        made = self._resident.device(names, inputs)
        self._count_nonfinite(made)
        work = self._resident.work
        if work is not None:
            rows = max((len(tensor) for tensor in inputs.values() if tensor.ndim), default=1)
            moved = sum(tensor.nbytes for tensor in (*inputs.values(), *made.values()))
            self._modelled_ns = rows * self._options.card.run_ns(work, moved // max(rows, 1))
        return made

    def _count_nonfinite(self, made: Mapping[str, Tensor]) -> None:
        count = sum(int(t.size - np.count_nonzero(np.isfinite(t))) for t in made.values() if t.dtype.kind == "f")
        if count and not self.nonfinite_values:
            logger.warning(
                "%s: the emulated card made %d infinities or NaNs in one run: values are beyond its format; "
                "accelserve_nonfinite_values counts them",
                self._name,
                count,
            )
        self.nonfinite_values += count

    def _check_rows(self, signature: Signature, batch: Batch) -> None:
        """Raises ScoringError(INVALID) for more rows than the card takes at once."""
        rows = len(next(iter(batch.inputs.values()))) if signature.batched else 1
        if rows > self._options.max_batch:
            message = (
                f"{self._name}: want at most {self._options.max_batch} rows in a run on {self.device.id}, got {rows}"
            )
            raise ScoringError(Kind.INVALID, message)

    def _check_device(self) -> None:
        """Raises ScoringError(DEVICE_LOST)."""
        if reason := self._lost():
            raise ScoringError(Kind.DEVICE_LOST, f"{self._name}: {self.device.id} is lost: {reason}")
