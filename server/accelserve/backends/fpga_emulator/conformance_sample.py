"""What the conformance kit asks of the back end `fpga_emulator`."""

from collections.abc import Mapping
from pathlib import Path

from accelserve.backends.base import Backend, ModelArtifact, Session, SessionOptions
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.backends.fpga_emulator.backend import FpgaEmulatorBackend
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor


class FpgaEmulatorSample(BackendConformance):
    device_kind = DeviceKind.FPGA_EMULATOR

    def make_backend(self) -> Backend:
        self._backend = FpgaEmulatorBackend()
        return self._backend

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("classifier", 1, "onnx", onnx_classifier(folder / "model.onnx"))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"images": rows_of_floats(rows, 16)}

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, extra={"format": "msfp12", "max_batch": 8}, max_batch_size=8)

    def lose_device(self, session: Session) -> None:
        self._backend.lose("the drill pulled the card")
