"""OpenVINO on the CPU, for real: equal to ONNX Runtime, in the numbers that it tells, and gone when it is closed."""

import gc
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from small_networks import scorer

import model_builders
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.host import cpu_device
from accelserve.backends.openvino.backend import OpenVinoBackend
from accelserve.backends.openvino.conformance_sample import OpenVinoSample
from accelserve.backends.openvino.library import installed_openvino
from accelserve.backends.openvino.options import cpu_properties, read_options
from accelserve.errors import Kind, ScoringError

CPU = cpu_device()


@pytest.fixture(scope="module")
def backend():
    return OpenVinoBackend()


@pytest.fixture
def load(backend, tmp_path):
    sessions = []

    def load_one(path, **extra):
        options, artifact = SessionOptions(threads=1, extra=extra), ModelArtifact("m", 3, "onnx", path)
        cache = FolderArtifactCache(tmp_path / "cache")
        prepared = backend.prepare(artifact, CPU, options, cache, lambda what, done: None)
        sessions.append(backend.load(prepared, CPU, options, None))
        return sessions[-1]

    yield load_one
    for session in sessions:
        session.close()


def ask(session, rows: int = 1, **inputs):
    outputs = tuple(session.signatures["serving_default"].outputs)
    return session.run(Batch("serving_default", inputs, outputs, rows)).outputs


class TestOpenVino(OpenVinoSample):
    pass


# --- equal to ONNX Runtime


def models(folder):
    """Name, file and inputs of each."""
    random = np.random.default_rng(0)
    floats = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    yield "affine", model_builders.onnx_affine(folder / "affine.onnx"), {"x": floats(3, 1)}
    yield "mlp", model_builders.onnx_mlp(folder / "mlp.onnx"), {"images": floats(3, 784)}
    pixels = random.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    yield "image", model_builders.onnx_image(folder / "image.onnx"), {"image": pixels}
    for op in ("LSTM", "GRU"):
        yield op, model_builders.onnx_recurrent(folder / f"{op}.onnx", op), {"x": floats(3, 5, 2)}
    yield "external", model_builders.onnx_external(folder / "e" / "m.onnx", "w.bin"), {"images": floats(2, 784)}
    yield "scorer", scorer(folder / "s.onnx", TensorProto.FLOAT, 3, 4, 6), {"image": floats(2, 3, 4, 6)}
    for number, dtype in ((1, "f4"), (2, "u1"), (3, "i1"), (5, "i2"), (6, "i4"), (7, "i8"), (9, "?"), (10, "f2")):
        path = model_builders.onnx_identity(folder / f"identity{number}.onnx", number)
        yield f"identity {dtype}", path, {"x": random.integers(0, 2, (3, 2)).astype(dtype)}


def test_it_answers_as_onnx_runtime_does(load, tmp_path):
    for name, path, inputs in models(tmp_path):
        wanted = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [each.name for each in wanted.get_outputs()]
        got = ask(load(path), len(next(iter(inputs.values()))), **inputs)
        for output, value in zip(names, wanted.run(names, inputs), strict=True):
            assert got[output].dtype == value.dtype, name
            np.testing.assert_allclose(got[output], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_an_answer_is_not_the_librarys_memory(load, tmp_path):
    session = load(model_builders.onnx_affine(tmp_path / "m.onnx"))
    first = ask(session, x=np.array([[1]], np.float32))["y"]
    ask(session, x=np.array([[5]], np.float32))
    session.close()
    assert first.tolist() == [[2.5]]


def test_no_rows_are_answered_with_none(load, tmp_path):
    session = load(model_builders.onnx_image(tmp_path / "m.onnx"))
    assert ask(session, 0, image=np.zeros((0, 8, 8, 3), np.uint8))["scores"].shape == (0, 3)


# --- in the numbers that it tells


def test_fp32_is_computed_in_fp32_also_where_the_cpu_has_bf16(load, backend, tmp_path):
    load(model_builders.onnx_mlp(tmp_path / "m.onnx"))
    assert backend.capabilities(CPU, SessionOptions()).numerics == "fp32"


def test_a_precision_that_is_asked_for_is_computed_in_or_refused(load, backend, tmp_path):
    """On a CPU without bf16 the library computes in fp32 and says nothing."""
    path = model_builders.onnx_mlp(tmp_path / "m.onnx")
    core = installed_openvino().Core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        load(path, precision="bf16")
        assert backend.capabilities(CPU, SessionOptions(extra={"precision": "bf16"})).numerics == "bf16"
    else:
        with pytest.raises(ScoringError, match='precision = "bf16" was asked for'):
            load(path, precision="bf16")


def test_a_model_that_would_run_in_less_than_it_tells_is_refused(load, backend, tmp_path, monkeypatch):
    from accelserve.backends.openvino import backend as module

    monkeypatch.setattr(module, "executed", lambda compiled: {"f32": 2, "bf16": 3})
    with pytest.raises(ScoringError, match='precision = "fp32" was asked for, and this CPU would compute in bf16'):
        load(model_builders.onnx_mlp(tmp_path / "m.onnx"))


def test_activations_are_not_quantized_on_the_way_and_no_core_is_claimed():
    properties = cpu_properties(read_options("m", {}), SessionOptions(threads=3))
    assert properties == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 3,
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "ENABLE_CPU_PINNING": False,
    }


def test_a_number_that_would_wrap_around_is_refused(load, tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.INT64))
    with pytest.raises(ScoringError, match='m:3 "x": OpenVINO computes int64 as int32') as refusal:
        ask(session, x=np.array([[2**40, 1]]))
    assert refusal.value.kind is Kind.INVALID
    assert ask(session, x=np.array([[2**31 - 1, -(2**31)]]))["y"].tolist() == [[2**31 - 1, -(2**31)]]


def test_a_model_of_float64_is_refused(load, tmp_path):
    with pytest.raises(ScoringError, match="computes float64 in float32") as refusal:
        load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.DOUBLE))
    assert refusal.value.kind is Kind.PRECONDITION


# --- what does not load


def test_a_broken_file_is_refused_in_one_line(load, tmp_path):
    path = model_builders.onnx_mlp(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:500] + b"\xff" * 20)
    with pytest.raises(ScoringError, match=r"^m:3 cannot be read as an ONNX model") as refusal:
        load(path)
    assert refusal.value.kind is Kind.PRECONDITION


def test_weights_that_are_gone_are_told_without_the_librarys_source_paths(load, tmp_path):
    path = model_builders.onnx_external(tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ScoringError, match=r"^m:3 does not load: ") as refusal:
        load(path)
    assert "Exception from" not in refusal.value.message


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"precison": "fp32"}, 'openvino has no setting "precison"; it has precision'),
        ({"precision": "int8"}, 'setting "precision" wants "fp32" or "bf16" or "fp16"'),
        ({"max_batch": True}, 'setting "max_batch" wants a whole number above 0'),
        ({"properties": "x"}, 'setting "properties" wants a table'),
    ],
)
def test_a_wrong_setting_is_refused_by_name(extra, words):
    with pytest.raises(ScoringError, match=words) as refusal:
        read_options("m", extra)
    assert refusal.value.kind is Kind.INVALID


# --- gone when it is closed


def test_memory_and_files_return_when_a_model_is_closed(backend, load, tmp_path):
    path = model_builders.onnx_mlp(tmp_path / "m.onnx", features=2048, hidden=2048)  # 16 MB of weights
    load(path).close()
    gc.collect()
    before = resident_bytes(), open_files()
    for _ in range(6):
        session = load(path)
        ask(session, images=np.zeros((1, 2048), np.float32))
        session.close()
    gc.collect()
    after = resident_bytes(), open_files()
    assert after[0] - before[0] < 3 * 16 * 2**20, "six models of 16 MB were kept"
    assert after[1] <= before[1]


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- telemetry


def test_the_library_counts_nobody_and_writes_nothing_home(tmp_path):
    """Imported plainly it makes an id for Google Analytics in ~/intel, and starts a thread that sends."""
    code = (
        "import threading, sys;"
        "from accelserve.backends.openvino.library import installed_openvino;"
        "core = installed_openvino().Core();"
        f"core.compile_model(core.read_model({str(model_builders.onnx_affine(tmp_path / 'm.onnx'))!r}), 'CPU');"
        "print([t.name for t in threading.enumerate()], 'openvino_telemetry.main' in sys.modules)"
    )
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['MainThread'] False"
    assert list(home.iterdir()) == []
