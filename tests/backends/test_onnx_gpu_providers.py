"""Which provider and which numerics a GPU session gets, on played CUDA; TensorRT and what it lacks."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from played_cuda import Cudart, PlayedRuntime, gpu_host
from played_gpu import Gpu, ask, floats

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import SessionOptions
from accelserve.backends.cuda.probe import TENSORRT_LIBRARIES
from accelserve.backends.onnx_runtime.gpu import OnnxGpu
from accelserve.backends.onnx_runtime.options import CPU, CUDA, TENSORRT
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError


def test_tensorrt_is_listed_before_cuda_and_keeps_its_engines_in_the_cache(affine, tmp_path):
    gpu = Gpu(**{name.replace(".", "__"): object() for name in TENSORRT_LIBRARIES})
    session = gpu.load(affine, cache=FolderArtifactCache(tmp_path), provider="tensorrt")
    (first, settings), (second, _) = gpu.runtime.opened[0]["providers"]
    assert (first, second) == (TENSORRT, CUDA)
    assert settings["trt_engine_cache_enable"] == "1"
    assert Path(settings["trt_engine_cache_path"]).parent == tmp_path
    assert Path(settings["trt_engine_cache_path"]).is_dir()
    assert ask(session, floats(1)).item() == 2.5


def test_tensorrt_without_its_library_is_refused_by_the_librarys_name(gpu, affine, tmp_path):
    with pytest.raises(
        ScoringError, match=r"libnvinfer\.so\.10 not found \(pip install 'tensorrt-cu13<11'\)"
    ) as refusal:
        gpu.load(affine, cache=FolderArtifactCache(tmp_path), provider="tensorrt")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_a_tensorrt_session_that_landed_on_cuda_is_refused(affine, tmp_path):
    gpu = Gpu(**{name.replace(".", "__"): object() for name in TENSORRT_LIBRARIES})
    gpu.runtime._providers = [CUDA, CPU]
    with pytest.raises(ScoringError, match=f"could not start {TENSORRT} and took {CUDA}") as refusal:
        gpu.load(affine, cache=FolderArtifactCache(tmp_path), provider="tensorrt")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_a_tensorrt_session_of_which_tensorrt_runs_nothing_is_refused(affine, tmp_path):
    gpu = Gpu(**{name.replace(".", "__"): object() for name in TENSORRT_LIBRARIES})
    gpu.runtime.runs_nodes = CUDA
    with pytest.raises(ScoringError, match="TensorRT runs none of its nodes") as refusal:
        gpu.load(affine, cache=FolderArtifactCache(tmp_path), provider="tensorrt")
    assert refusal.value.kind is Kind.PRECONDITION


def test_tensorrts_python_package_is_loaded_where_no_loader_path_has_it(affine, tmp_path):
    folder = tmp_path / "tensorrt_libs"
    folder.mkdir()
    for name in TENSORRT_LIBRARIES:
        (folder / name).touch()
    cudart = Cudart()
    loaded = gpu_host(cudart, **{str(folder / name).replace(".", "__"): object() for name in TENSORRT_LIBRARIES})
    package = SimpleNamespace(submodule_search_locations=[str(folder)])
    gpu = OnnxGpu(PlayedRuntime(cudart=cudart), loaded, lambda name: package if name == "tensorrt_libs" else None)
    assert gpu.tensorrt_gaps() == ()
    assert OnnxGpu(PlayedRuntime(cudart=cudart), loaded, lambda name: None).tensorrt_gaps() != ()


def test_the_features_name_the_library_that_tensorrt_lacks(gpu):
    features = gpu.backend.features()
    assert features["fp16"] == ()
    assert len(features["TensorRT"]) == len(TENSORRT_LIBRARIES)


def test_a_build_without_tensorrt_says_so(gpu):
    gpu.runtime.built = [CUDA, CPU]
    assert gpu.backend.features()["TensorRT"] == ("onnxruntime 1.31.1 is built without the TensorRT provider",)


@pytest.mark.parametrize(
    ("extra", "kind", "numerics"),
    [
        ({}, DeviceKind.GPU, "tf32"),
        ({"tf32": False}, DeviceKind.GPU, "fp32"),
        ({"precision": "fp16"}, DeviceKind.GPU, "fp16"),
        ({}, DeviceKind.CPU, "fp32"),
        ({"precision": "fp16"}, DeviceKind.CPU, "fp16"),
    ],
)
def test_the_capabilities_tell_the_numerics(gpu, extra, kind, numerics):
    device = next(d for d in gpu.backend.inventory().devices if d.kind is kind)
    assert gpu.backend.capabilities(device, SessionOptions(extra=extra)).numerics == numerics
