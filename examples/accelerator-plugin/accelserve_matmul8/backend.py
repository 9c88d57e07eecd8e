"""One emulated unit of 64 x 64 multipliers of 8-bit numbers, at 200 MHz."""

from hashlib import sha256

import numpy as np

from accelserve.backends import base
from accelserve.backends.batch_check import check_batch, label
from accelserve.backends.lease import require_lease
from accelserve.backends.run_gate import RunGate
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, DEFAULT_SIGNATURE, Signature, TensorSpec
from accelserve_matmul8.model import Layer, read_model

UNIT = base.Device("fpga-emulator:matmul8", DeviceKind.FPGA_EMULATOR, "matmul8", exclusive=True, emulated=True)
SIDE, CYCLE_NS = 64, 5


class Matmul8Backend:
    name, api_version = "matmul8", 1
    state = base.Health(base.DeviceState.READY)

    def inventory(self):
        return base.Inventory((UNIT,), {DeviceKind.FPGA: ("a matmul8 card: this example emulates one",)})

    def capabilities(self, device, options):
        return base.Capabilities(frozenset({"onnx"}), "int8", max_batch=8, models_per_device=1, deterministic=True)

    def prepare(self, artifact, device, options, cache, progress):
        source, result, layers = read_model(label(artifact), artifact.path)
        digest = sha256(b"matmul8 1.0" + artifact.path.read_bytes()).hexdigest()
        folder = cache.folder(digest, lambda empty: np.savez(empty / "layers.npz", *sum(layers, ())))
        progress("quantized", 1.0)
        return base.Prepared(artifact, (source, result, folder / "layers.npz"), digest)

    def load(self, prepared, device, options, lease):
        model = label(prepared.artifact)
        require_lease(model, device, lease)
        if options.extra:
            raise ScoringError(Kind.INVALID, f"{model}: matmul8 has no settings, got {', '.join(options.extra)}")
        return Matmul8Session(self, model, *prepared.payload)

    def health(self, device):
        return self.state


class Matmul8Session:
    device, placement = UNIT, base.Placement({"matmul8": 1})

    def __init__(self, backend, model, source, result, file):
        with np.load(file) as arrays:
            parts = list(arrays.values())
        self.backend, self.model, self.source, self.result = backend, model, source, result
        self.layers = [Layer(*parts[at : at + 4]) for at in range(0, len(parts), 4)]
        shapes = {source: (-1, len(parts[0])), result: (-1, len(self.layers[-1].bias))}
        specs = {name: {name: TensorSpec(name, BY_NAME["float32"], shape, name)} for name, shape in shapes.items()}
        self.signatures = {DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, specs[source], specs[result])}
        self.gate = RunGate(model)

    def run(self, batch):
        check_batch(self.model, self.signatures, batch)
        with self.gate:
            values, cycles = np.nan_to_num(batch.inputs[self.source], posinf=0, neginf=0), 0
            bad = np.flatnonzero(~np.isfinite(batch.inputs[self.source][: batch.rows]).all(axis=1))
            errors = {int(row): ScoringError(Kind.INVALID, f"{self.model}: NaN or infinity in the row") for row in bad}
            for layer in self.layers:
                values = _multiply(values, layer)
                cycles += SIDE * int(np.prod([-(-size // SIDE) for size in layer.weights.shape]))
            if self.backend.state.state is base.DeviceState.LOST:
                raise ScoringError(Kind.DEVICE_LOST, f"{self.model}: {UNIT.id}: {self.backend.state.reason}")
            return base.BatchResult({self.result: values}, errors, len(values) * cycles * CYCLE_NS)

    def close(self):
        self.gate.close()


def _multiply(values, layer):
    """Each row has a step of its own, so that no row feels its neighbours; sums are exact 32-bit integers."""
    step = np.maximum(np.abs(values).max(axis=1, keepdims=True), np.float32(1e-30)) / np.float32(127)
    sums = np.rint(values / step).astype(np.int32) @ layer.weights.astype(np.int32)
    return np.maximum(sums.astype(np.float32) * (step * layer.step) + layer.bias, layer.least)
