"""What the conformance kit asks of the back end `vitis_fpga`; skipped, with the reason, on a host without a card."""

from collections.abc import Mapping
from pathlib import Path

from accelserve.backends.base import Backend, ModelArtifact
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.backends.vitis_fpga.backend import VitisFpgaBackend
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor


class VitisFpgaSample(BackendConformance):
    device_kind = DeviceKind.FPGA
    may_lack = (DeviceKind.FPGA,)
    tolerance = (1e-2, 1e-2)  # int8

    def make_backend(self) -> Backend:
        return VitisFpgaBackend()

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("classifier", 1, "onnx", onnx_classifier(folder / "model.onnx"))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"images": rows_of_floats(rows, 16)}
