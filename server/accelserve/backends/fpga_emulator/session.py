"""A model resident on the emulated card: what a card would have that a CPU has not, around `CardSession`."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from accelserve.backends.accel_onnx.card_session import CardSession, Failures, OnCard
from accelserve.backends.base import Batch, BatchResult, DecodedInput
from accelserve.backends.fpga_emulator.latency_model import LayerWork
from accelserve.backends.fpga_emulator.options import EmulatorOptions
from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

logger = logging.getLogger("accelserve.backends")


class EmulatorSession:
    """Models the device's time, lets it pass where `pace` says so, and is lost when the card is.

    nonfinite_values: how many infinities and NaNs the device's part has made since the session opened.
    """

    def __init__(
        self,
        loaded: OnCard,
        work: tuple[LayerWork, ...] | None,
        options: EmulatorOptions,
        failures: Failures,
        clock: Clock,
        lost: Callable[[], str],
    ) -> None:
        """work: for the latency model, None without one. lost: why the device is gone, "" while it is there."""
        self._card = CardSession(replace(loaded, on_device=self._run_device), failures)
        self.signatures = self._card.signatures
        self.device = loaded.device
        self.placement = loaded.placement
        self.remarks = loaded.remarks
        self.nonfinite_values = 0
        self._name = loaded.name
        self._compute = loaded.on_device
        self._work = work
        self._options = options
        self._clock = clock
        self._lost = lost
        self._closing = threading.Event()
        self._own = threading.local()  # .modelled_ns: of this thread's run

    def take_decoded(self, signature: str) -> DecodedInput:
        """Of a converted model whose pictures the server decodes."""
        return self._card.take_decoded(signature)

    def run(self, batch: Batch) -> BatchResult:
        """As `Session.run`; with `pace` the device takes the modelled time at least."""
        self._own.modelled_ns = 0
        self._check_device()
        result = self._card.run(batch)
        self._check_device()
        return replace(result, modelled_device_ns=self._own.modelled_ns or None)

    def close(self) -> None:
        self._closing.set()
        self._card.close()

    def _run_device(self, names: Sequence[str], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        started_ns = self._clock.now_ns()
        made = self._compute(names, inputs)
        self._count_nonfinite(made)
        self._own.modelled_ns = self._modelled_ns(inputs, made)
        if self._options.pace and self._own.modelled_ns:
            self._closing.wait(max(0, self._own.modelled_ns - self._clock.now_ns() + started_ns) / 1e9)
        return made

    def _modelled_ns(self, inputs: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> int:
        if self._work is None:
            return 0
        rows = max((len(tensor) for tensor in inputs.values() if tensor.ndim), default=1)
        moved = sum(tensor.nbytes for tensor in (*inputs.values(), *made.values()))
        return rows * self._options.card.run_ns(self._work, moved // max(rows, 1))

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

    def _check_device(self) -> None:
        """Raises ScoringError(DEVICE_LOST)."""
        if reason := self._lost():
            raise ScoringError(Kind.DEVICE_LOST, f"{self._name}: {self.device.id} is lost: {reason}")
