from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from small_networks import scorer

import model_builders
import saved_models
from accelserve.backends.base import Backend, ModelArtifact, SessionOptions
from accelserve.backends.conformance import BackendConformance, PictureConformance, rows_of_floats
from accelserve.backends.cuda.probe import find_devices
from accelserve.backends.fpga_emulator.conformance_sample import FpgaEmulatorSample
from accelserve.backends.onnx_runtime.conformance_sample import OnnxRuntimeOnGpuSample, OnnxRuntimeSample
from accelserve.backends.saved_model_onnx.backend import SavedModelOnnxBackend
from accelserve.backends.saved_model_onnx.conformance_sample import CutModelSample, SavedModelOnnxSample
from accelserve.backends.synthetic.conformance_sample import ExclusiveSyntheticSample, SyntheticSample
from accelserve.backends.tf_session.conformance_sample import TfSessionSample
from accelserve.devices import DeviceKind
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Tensor

WHY_NO_GPU = ", ".join(find_devices().missing)


@pytest.mark.skipif(bool(WHY_NO_GPU), reason=f"the kit does not run on a GPU: {WHY_NO_GPU}")
def test_the_kit_runs_on_the_gpu_of_this_host():
    """One line in the report stands for the whole class on a host without a GPU."""
    assert TestOnnxRuntimeOnGpu.__test__


class TestSynthetic(SyntheticSample):
    """As `pytest --pyargs accelserve.backends.conformance --backend synthetic`; so are the other samples."""


class TestExclusiveSynthetic(ExclusiveSyntheticSample):
    pass


class TestFpgaEmulator(FpgaEmulatorSample):
    pass


class TestOnnxRuntime(OnnxRuntimeSample):
    pass


class TestOnnxRuntimeOnGpu(OnnxRuntimeOnGpuSample):
    __test__ = not WHY_NO_GPU


class TestBoundOnnxRuntime(TestOnnxRuntime):
    """The way that batches take on a GPU, in the CPU's memory."""

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=8, extra={"io_binding": True})


class TestOnnxRuntimeOnPictures(PictureConformance, TestOnnxRuntime):
    preprocessing = Preprocessing((4, 6), layout="NCHW", mean=(120.0, 117.0, 104.0), scale=(0.017, 0.018, 0.019))

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("scorer", 1, "onnx", scorer(folder / "model.onnx", TensorProto.FLOAT, 3, 4, 6))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"image": rows_of_floats(rows, 72).reshape(rows, 3, 4, 6)}


class TestBoundOnnxRuntimeOnPictures(TestOnnxRuntimeOnPictures):
    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=8, extra={"io_binding": True})


class TestOnnxRuntimeOnPicturesOnGpu(TestOnnxRuntimeOnPictures):
    __test__ = not WHY_NO_GPU
    device_kind = DeviceKind.GPU
    tolerance = (1e-2, 1e-3)  # TF32

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=5, batch_sizes=(1, 5), extra={"cuda_graphs": True})


class TestOnnxRuntimeOnGpuWithGraphs(TestOnnxRuntimeOnGpu):
    __test__ = not WHY_NO_GPU

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=5, batch_sizes=(1, 5), extra={"cuda_graphs": True})


@pytest.mark.tensorflow
class TestTfSession(TfSessionSample):
    pass


@pytest.mark.tensorflow
class TestTfSessionOnPictures(TestTfSession):
    def sample_artifact(self, folder: Path) -> ModelArtifact:
        path = model_builders.saved_model_jpeg(folder)
        return ModelArtifact("pictures", 1, "saved_model", path)

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        pictures = [model_builders.jpeg((20 * row, 100, 200)) for row in range(rows)]
        return {"images": np.array(pictures, object)}


@pytest.mark.tensorflow
class TestSavedModelOnnx(BackendConformance):
    """A SavedModel with a host part, a dense part and a tail; converted in this process."""

    may_lack = (DeviceKind.GPU,)

    def make_backend(self) -> Backend:
        return SavedModelOnnxBackend(convert=saved_models.convert_here)

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        path = saved_models.word_tables(folder)
        return ModelArtifact("words", 1, "saved_model", path)

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        words = [[word.encode() for word in saved_models.WORDS[row : row + 2] * 2] for row in range(rows)]
        return {"words": np.array(words, object)}


@pytest.mark.tensorflow
class TestDenseSavedModelOnnx(SavedModelOnnxSample):
    """A SavedModel that is a network alone, in the memory that ONNX Runtime binds; converted in this process."""

    def make_backend(self) -> Backend:
        return SavedModelOnnxBackend(convert=saved_models.convert_here)

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=8, extra={"io_binding": True})


@pytest.mark.tensorflow
class TestCutModel(CutModelSample):
    pass
