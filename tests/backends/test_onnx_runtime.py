from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper
from played_cuda import THE_GPU, Cudart, PlayedRuntime, gpu_host, host

import model_builders
from accelserve.backends.base import Batch, Device, DeviceState, ModelArtifact, SessionOptions
from accelserve.backends.cuda.probe import LIBRARIES
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.onnx_runtime.options import CPU, CUDA
from accelserve.backends.onnx_runtime.signature import read_signature
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

A_GPU_HOST = gpu_host()


def load(path: Path, backend=None, device: Device | None = None, **options):
    backend = backend or OnnxRuntimeBackend()
    device = device or backend.inventory().devices[0]
    artifact, settings = ModelArtifact("m", 3, "onnx", path), SessionOptions(**options)
    prepared = backend.prepare(artifact, device, settings, None, lambda what, done: None)
    return backend.load(prepared, device, settings, None)


def ask(session, rows: int | None = None, **inputs):
    outputs = tuple(session.signatures["serving_default"].outputs)
    rows = rows or len(next(iter(inputs.values())))
    return session.run(Batch("serving_default", inputs, outputs, rows)).outputs


def floats(*rows) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def affine(tmp_path_factory) -> Path:
    return model_builders.onnx_affine(tmp_path_factory.mktemp("affine") / "m.onnx")


def test_a_model_answers(affine):
    assert ask(load(affine), x=floats([1], [2], [5]))["y"].tolist() == [[2.5], [3.0], [4.5]]


def test_settings_for_a_gpu_do_not_keep_a_model_from_the_cpu(affine):
    extra = {"strict_placement": True, "cuda_graphs": True, "gpu_memory_limit_bytes": 1}
    assert ask(load(affine, extra=extra), x=floats([1]))["y"].tolist() == [[2.5]]


def test_the_signature_is_read_with_free_sizes_as_minus_one(tmp_path):
    session = load(model_builders.onnx_image(tmp_path / "m.onnx", 8, 6))
    signature = session.signatures["serving_default"]
    assert str(signature.inputs["image"]) == "uint8[-1,8,6,3]"
    assert str(signature.outputs["scores"]) == "float32[-1,3]"
    assert signature.batched


def test_a_scalar_cannot_be_told_from_an_unknown_rank(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ()))
    assert session.signatures["serving_default"].inputs["x"].shape is None
    assert ask(session, rows=1, x=np.array(3, np.float32))["y"].item() == 3


@pytest.mark.parametrize("name", ["FLOAT16", "DOUBLE", "BOOL", "INT8", "INT64", "UINT8", "UINT64"])
def test_a_tensor_comes_back_in_its_own_type(tmp_path, name):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", getattr(TensorProto, name)))
    spec = session.signatures["serving_default"].inputs["x"]
    x = np.array([[0, 1], [1, 1]]).astype(spec.dtype.numpy)
    y = ask(session, x=x)["y"]
    assert y.dtype == x.dtype
    assert y.tolist() == x.tolist()


def test_strings_are_bytes_on_both_sides(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.STRING))
    x = np.array([["é".encode(), b""], [b"a\0b", b"c"]], object)
    assert ask(session, x=x)["y"].tolist() == x.tolist()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.STRING))
    with pytest.raises(ScoringError, match=r'm:3 "x".*UTF-8') as refusal:
        ask(session, x=np.array([[b"\xff", b""]], object))
    assert refusal.value.kind is Kind.INVALID


def test_a_type_that_cannot_cross_the_python_api_is_refused_at_load(tmp_path):
    with pytest.raises(ScoringError, match=r'm:3 "x".*tensor\(bfloat16\).*float32') as refusal:
        load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.BFLOAT16))
    assert refusal.value.kind is Kind.PRECONDITION


def test_an_output_that_is_no_tensor_is_left_out_while_others_remain(caplog):
    def arg(name, of):
        return SimpleNamespace(name=name, type=of, shape=[None, 2])

    outputs = [arg("label", "tensor(int64)"), arg("probabilities", "seq(map(int64,tensor(float)))")]
    signature = read_signature("m:3", [arg("x", "tensor(float)")], outputs)
    assert list(signature.outputs) == ["label"]
    assert "probabilities" in caplog.text


@pytest.mark.parametrize(
    "x", [floats([1, 2]), floats(1), np.ones((1, 1)), np.array([[1 + 2j]])], ids=["shape", "rank", "dtype", "no type"]
)
def test_an_input_that_does_not_fit_is_the_clients_mistake(affine, x):
    session = load(affine)
    with pytest.raises(ScoringError, match="m:3") as refusal:
        ask(session, x=x)
    assert refusal.value.kind is Kind.INVALID
    assert "\n" not in refusal.value.message
    assert "ONNXRuntimeError" not in refusal.value.message


def test_a_shape_that_an_operator_refuses_is_the_clients_mistake(tmp_path):
    session = load(reshape_to_two_rows(tmp_path / "m.onnx"))
    with pytest.raises(ScoringError, match="cannot be reshaped") as refusal:
        ask(session, x=floats([1, 2, 3]))
    assert refusal.value.kind is Kind.INVALID
    assert "/onnxruntime_src" not in refusal.value.message


def reshape_to_two_rows(path: Path) -> Path:
    import onnx

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "m"])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [2, -1])],
    )
    opset = [helper.make_opsetid("", model_builders.OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=model_builders.IR_VERSION), path)
    return path


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07"])
def test_a_broken_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ScoringError, match="m:3 does not load: ") as refusal:
        load(tmp_path / "m.onnx")
    assert refusal.value.kind is Kind.PRECONDITION
    assert "\n" not in refusal.value.message


def test_the_placement_counts_nodes_by_provider(affine):
    assert dict(load(affine).placement.nodes) == {CPU: 2}


@pytest.mark.parametrize(
    "extra", [{"turbo": True}, {"spinning": 1}, {"gpu_memory_limit_bytes": True}], ids=["unknown", "int", "bool"]
)
def test_a_setting_that_is_unknown_or_of_another_type_is_refused(affine, extra):
    with pytest.raises(ScoringError) as refusal:
        load(affine, extra=extra)
    assert refusal.value.kind is Kind.INVALID


def test_waiting_threads_leave_the_core_to_others_unless_told_to_spin(affine):
    runtime = PlayedRuntime()
    backend = OnnxRuntimeBackend(runtime, A_GPU_HOST)
    load(affine, backend, THE_GPU)
    assert runtime.entries["session.intra_op.allow_spinning"] == "0"
    load(affine, backend, THE_GPU, extra={"spinning": True})
    assert runtime.entries["session.intra_op.allow_spinning"] == "1"


def test_the_cpu_build_explains_why_there_is_no_gpu():
    runtime = PlayedRuntime()
    runtime.built = [CPU]
    inventory = OnnxRuntimeBackend(runtime, host({})).inventory()
    assert [device.id for device in inventory.devices] == ["cpu:0"]
    build, driver = inventory.missing[DeviceKind.GPU]
    assert build == f"onnxruntime-gpu is not installed (the CPU build onnxruntime {runtime.__version__} is)"
    assert driver == "NVIDIA driver library libcuda.so.1 not found"


def test_the_gpu_build_on_a_gpu_host_offers_the_gpu_after_preloading_its_libraries():
    runtime = PlayedRuntime()
    inventory = OnnxRuntimeBackend(runtime, A_GPU_HOST).inventory()
    assert [device.id for device in inventory.devices] == ["cpu:0", "gpu:0"]
    assert inventory.missing == {}
    assert runtime.preloaded == 1


def test_what_preloading_prints_is_kept_from_the_commands_own_output(capsys):
    runtime = PlayedRuntime()
    runtime.preload_dlls = lambda: print("Failed to load libcublas.so.13")
    OnnxRuntimeBackend(runtime, host({})).inventory()
    assert capsys.readouterr().out == ""


def test_the_gpu_build_on_a_bare_host_names_driver_and_libraries():
    missing = OnnxRuntimeBackend(PlayedRuntime(), host({})).inventory().missing[DeviceKind.GPU]
    assert len(missing) == 1 + len(LIBRARIES)


def test_a_gpu_session_lists_cuda_alone_and_allows_no_fallback(affine):
    runtime = PlayedRuntime()
    load(affine, OnnxRuntimeBackend(runtime, A_GPU_HOST), THE_GPU, extra={"gpu_memory_limit_bytes": 2**30})
    ((name, settings),) = runtime.opened[0]["providers"]
    assert name == CUDA
    assert settings["device_id"] == "0"
    assert settings["gpu_mem_limit"] == "1073741824"
    assert runtime.opened[0]["enable_fallback"] is False


def test_a_gpu_session_that_landed_on_the_cpu_is_refused(affine):
    backend = OnnxRuntimeBackend(PlayedRuntime(providers=[CPU]), A_GPU_HOST)
    with pytest.raises(ScoringError, match="m:3 needs gpu:0") as refusal:
        load(affine, backend, THE_GPU)
    assert refusal.value.kind is Kind.DEVICE_MISSING


@pytest.mark.parametrize("runs_nodes", [CPU, CUDA])
def test_a_gpu_session_tells_where_its_nodes_run(affine, runs_nodes):
    cudart = Cudart()
    runtime = PlayedRuntime(cudart=cudart)
    runtime.runs_nodes = runs_nodes
    session = load(affine, OnnxRuntimeBackend(runtime, gpu_host(cudart)), THE_GPU)
    assert session.placement.nodes == {runs_nodes: 1}


def test_a_gpu_that_vanished_since_it_was_chosen_is_refused(affine):
    backend = OnnxRuntimeBackend(PlayedRuntime(), host(dict.fromkeys(LIBRARIES, object())))
    with pytest.raises(ScoringError, match=r"libcuda\.so\.1 not found") as refusal:
        load(affine, backend, THE_GPU)
    assert refusal.value.kind is Kind.DEVICE_MISSING


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 100: no CUDA-capable device is detected", Kind.DEVICE_MISSING),
        ("CUDA failure 2: out of memory", Kind.DEVICE_MEMORY),
        ("Protobuf parsing failed.", Kind.PRECONDITION),
    ],
)
def test_a_gpu_session_that_does_not_open_says_whose_fault_it_is(affine, text, kind):
    backend = OnnxRuntimeBackend(PlayedRuntime(failure=RuntimeError(text)), A_GPU_HOST)
    with pytest.raises(ScoringError, match=text) as refusal:
        load(affine, backend, THE_GPU)
    assert refusal.value.kind is kind


def test_a_gpu_lost_in_a_run_is_reported_by_the_health(affine):
    cudart = Cudart()
    runtime = PlayedRuntime(cudart=cudart)
    backend = OnnxRuntimeBackend(runtime, gpu_host(cudart))
    session = load(affine, backend, THE_GPU)
    assert backend.health(THE_GPU).state is DeviceState.READY
    runtime.run_failures.append(RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0"))
    with pytest.raises(ScoringError) as failure:
        ask(session, x=floats([1]))
    assert failure.value.kind is Kind.DEVICE_LOST
    assert backend.health(THE_GPU).state is DeviceState.LOST


def test_a_device_that_is_not_there_is_absent():
    backend = OnnxRuntimeBackend(loader=host({}))
    assert backend.health(THE_GPU).state is DeviceState.ABSENT
