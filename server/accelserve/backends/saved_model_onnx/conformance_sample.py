"""What the conformance kit asks of `saved_model_onnx` and `cut_model`: a SavedModel, converted now or before."""

from collections.abc import Mapping
from pathlib import Path

from accelserve.backends.base import Backend, ModelArtifact
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.conversion import ConversionOptions, run_conversion
from accelserve.backends.saved_model_onnx.backend import SavedModelOnnxBackend
from accelserve.backends.tf_session.conformance_sample import saved_classifier
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor


class SavedModelOnnxSample(BackendConformance):
    """Converted in a process of its own, as a server does: it takes a while."""

    may_lack = (DeviceKind.GPU,)

    def make_backend(self) -> Backend:
        return SavedModelOnnxBackend()

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("classifier", 1, "saved_model", saved_classifier(folder))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"images": rows_of_floats(rows, 16)}


class CutModelSample(SavedModelOnnxSample):
    """As `accelserve convert` leaves it."""

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        source = saved_classifier(folder.with_name("saved_model"))
        run_conversion("classifier:1", source, folder, ConversionOptions(), lambda what, done: None)
        return ModelArtifact("classifier", 1, "cut", folder)
