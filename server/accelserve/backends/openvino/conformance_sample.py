"""What the conformance kit asks of the back end `openvino`."""

from collections.abc import Mapping
from pathlib import Path

from accelserve.backends.base import Backend, ModelArtifact
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.backends.openvino.backend import OpenVinoBackend
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor


class OpenVinoSample(BackendConformance):
    """A network on the CPU."""

    may_lack = (DeviceKind.FPGA,)

    def make_backend(self) -> Backend:
        return OpenVinoBackend()

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("classifier", 1, "onnx", onnx_classifier(folder / "model.onnx"))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"images": rows_of_floats(rows, 16)}


class OpenVinoOnFpgaSample(OpenVinoSample):
    """The same on an FPGA; skipped, with the reason, where there is none."""

    device_kind = DeviceKind.FPGA
    tolerance = (1e-2, 1e-2)  # block floating point
