"""What the conformance kit asks of the back end `onnx_runtime`."""

from collections.abc import Mapping
from pathlib import Path

from accelserve.backends.base import Backend, ModelArtifact
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor


class OnnxRuntimeSample(BackendConformance):
    """A network on the CPU."""

    may_lack = (DeviceKind.GPU,)

    def make_backend(self) -> Backend:
        return OnnxRuntimeBackend()

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("classifier", 1, "onnx", onnx_classifier(folder / "model.onnx"))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"images": rows_of_floats(rows, 16)}


class OnnxRuntimeOnGpuSample(OnnxRuntimeSample):
    device_kind = DeviceKind.GPU
    tolerance = (1e-2, 1e-3)  # TF32
