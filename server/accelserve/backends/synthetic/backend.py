"""Models made of arithmetic, delays and failures, described in a TOML file: for tests, drills and benchmarks."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from accelserve.backends.base import (
    API_VERSION,
    ArtifactCache,
    Batch,
    BatchResult,
    Capabilities,
    Device,
    DeviceLease,
    DeviceState,
    Health,
    Inventory,
    ModelArtifact,
    Placement,
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import check_batch, label
from accelserve.backends.host import cpu_device
from accelserve.backends.lease import require_lease
from accelserve.backends.run_gate import RunGate
from accelserve.backends.synthetic.spec import SyntheticSpec, read_spec
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor

Sleep = Callable[[float], None]  # seconds
FILE_NAME = "synthetic.toml"


class SyntheticBackend:
    """Format "synthetic" on one device, the CPU unless told otherwise."""

    name = "synthetic"
    api_version = API_VERSION

    def __init__(
        self, sleep: Sleep = time.sleep, device: Device | None = None, capabilities: Capabilities | None = None
    ) -> None:
        """sleep: how delays pass. device, capabilities: to play a device with limits (exclusive, one row a run)."""
        self._sleep = sleep
        self._device = device or cpu_device()
        self._capabilities = capabilities or Capabilities(formats=frozenset({"synthetic"}), deterministic=True)
        self._lost = False

    def inventory(self) -> Inventory:
        return Inventory((self._device,))

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        return self._capabilities

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Read and check the description. Raises ScoringError(PRECONDITION)."""
        spec = read_spec(label(artifact), _file(artifact.path))
        progress("description read", 1.0)
        return Prepared(artifact, spec)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> "SyntheticSession":
        model, spec = label(prepared.artifact), prepared.payload
        require_lease(model, device, lease)
        if options.extra:
            raise ScoringError(Kind.INVALID, f"{model}: synthetic has no settings, got {', '.join(options.extra)}")
        if spec.load_delay_ms:
            self._sleep(spec.load_delay_ms / 1e3)
        if spec.load_error:
            raise ScoringError(Kind[spec.load_error_kind.upper()], f"{model} does not load: {spec.load_error}")
        if spec.sticky_loss and self._lost:
            raise ScoringError(Kind.DEVICE_LOST, f"{model} does not load: {device.id} was lost in this process")
        return SyntheticSession(model, spec, device, self._sleep, self._note_lost)

    def health(self, device: Device) -> Health:
        if self._lost:
            return Health(DeviceState.LOST, "lost as the model asked for")
        if device.id == self._device.id:
            return Health(DeviceState.READY)
        return Health(DeviceState.ABSENT, f"{device.id} is not found")

    def _note_lost(self) -> None:
        self._lost = True


class SyntheticSession:
    """One description at work; runs may overlap."""

    def __init__(
        self, model: str, spec: SyntheticSpec, device: Device, sleep: Sleep, note_lost: Callable[[], None]
    ) -> None:
        self.signatures: Mapping[str, Signature] = MappingProxyType({spec.signature.name: spec.signature})
        self.device = device
        self.placement = Placement({"synthetic": 1})
        self._model = model
        self._spec = spec
        self._sleep = sleep
        self._note_lost = note_lost
        self._gate = RunGate(model)
        self._lock = threading.Lock()
        self._random = random.Random(spec.seed)
        self._runs = 0
        self._lost = False

    def run(self, batch: Batch) -> BatchResult:
        check_batch(self._model, self.signatures, batch)
        with self._gate:
            number, delay_s = self._begin(batch)
            if delay_s:
                self._sleep(delay_s)
            self._fail_if_asked(number, batch)
            factor = 2 if self._spec.behaviour == "double" else 1
            outputs = {name: _times(batch.inputs[self._spec.source_of[name]], factor) for name in batch.outputs}
            return BatchResult(outputs, self._item_errors(batch))

    def close(self) -> None:
        self._gate.close()

    def lose_device(self) -> None:
        """From now on the device is lost: what runs fails, and what comes after it."""
        self._lost = True
        self._note_lost()

    def _begin(self, batch: Batch) -> tuple[int, float]:
        """The run's number, from 1, and how long it takes in seconds."""
        spec = self._spec
        with self._lock:
            self._runs += 1
            jitter_ms = self._random.uniform(0, spec.jitter_ms)
            if spec.delay_if_contains is not None and not _contains(batch, spec.delay_if_contains):
                return self._runs, 0.0
            return self._runs, (spec.delay_ms + spec.delay_per_row_ms * batch.rows + jitter_ms) / 1e3

    def _fail_if_asked(self, number: int, batch: Batch) -> None:
        spec = self._spec
        if self._lost or (spec.lose_device_after is not None and number > spec.lose_device_after):
            self._note_lost()
            raise ScoringError(Kind.DEVICE_LOST, f"{self._model}: {self.device.id} was lost, as asked for")
        if spec.fail_every is not None and number % spec.fail_every == 0:
            raise ScoringError(Kind.INTERNAL, f"{self._model}: run {number} failed, as asked for")
        guilty = spec.fail_if_contains
        if guilty is not None and _contains(batch, guilty):
            raise ScoringError(Kind.INVALID, f"{self._model}: the input contains {guilty}")

    def _item_errors(self, batch: Batch) -> dict[int, ScoringError]:
        guilty = self._spec.item_error_if_contains
        if guilty is None:
            return {}
        rows = {row for tensor in batch.inputs.values() for row in self._rows_with(tensor, guilty)}
        message = f"{self._model}: the row contains {guilty}"
        return {row: ScoringError(Kind.INVALID, message) for row in sorted(rows) if row < batch.rows}

    def _rows_with(self, tensor: Tensor, number: float) -> list[int]:
        found = _equals(tensor, number)
        if not next(iter(self.signatures.values())).batched:
            return [0] if found.any() else []
        return [int(row) for row in np.flatnonzero(found.reshape(len(found), -1).any(axis=1))]


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _contains(batch: Batch, number: float) -> bool:
    return any(bool(np.any(_equals(tensor, number))) for tensor in batch.inputs.values())


def _equals(tensor: Tensor, number: float) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    return np.asarray(tensor == number, np.bool_)


def _times(tensor: Tensor, factor: int) -> Tensor:
    """A new array: an answer never shares memory with the question."""
    if factor == 1:
        return tensor.copy()
    doubled: Tensor = (tensor + tensor).astype(tensor.dtype, copy=False)  # type: ignore[operator]
    return doubled
