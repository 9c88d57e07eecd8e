"""What the conformance kit asks of it."""

from accelserve.backends.base import DeviceState, Health, ModelArtifact
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.devices import DeviceKind
from accelserve_matmul8.backend import Matmul8Backend


class Matmul8Sample(BackendConformance):
    device_kind = DeviceKind.FPGA_EMULATOR
    make_backend = staticmethod(Matmul8Backend)

    def sample_artifact(self, folder):
        return ModelArtifact("classifier", 1, "onnx", onnx_classifier(folder / "model.onnx", softmax=False))

    def sample_inputs(self, rows):
        return {"images": rows_of_floats(rows, 16)}

    def inputs_with_a_bad_row(self):
        return {"images": (rows_of_floats(3, 16) * [[1], [float("inf")], [1]]).astype("float32")}, 1

    def lose_device(self, session):
        session.backend.state = Health(DeviceState.LOST, "it was pulled out")
