from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from accelserve.backends.base import ModelArtifact, SessionOptions
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.onnx_runtime.errors import kind_of, one_line, remedy
from accelserve.errors import Kind, ScoringError


class InvalidArgument(Exception):
    """Named as ONNX Runtime's own, which has no public place."""


class Fail(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidArgument("Invalid rank for input: x Got: 1 Expected: 2"), Kind.INVALID),
        (ValueError("Required inputs (['x']) are missing"), Kind.INVALID),
        (RuntimeError("Numpy_type 15 can't be converted to MLDataType."), Kind.INVALID),
        (Fail("running Reshape node. The input tensor cannot be reshaped to the requested shape"), Kind.INVALID),
        (Fail("running Add node. axis == 1 attempting to broadcast an axis by a dimension other than 1"), Kind.INVALID),
        (Fail("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"), Kind.DEVICE_MEMORY),
        (Fail("CUDA failure 2: out of memory ; GPU=0"), Kind.DEVICE_MEMORY),
        (MemoryError(), Kind.DEVICE_MEMORY),
        (Fail("CUDA failure 700: an illegal memory access was encountered"), Kind.DEVICE_LOST),
        (Fail("CUDA failure 719: unspecified launch failure"), Kind.DEVICE_LOST),
        (Fail("CUDA error 999: unknown error"), Kind.DEVICE_LOST),
        (Fail("device-side assert triggered"), Kind.DEVICE_LOST),
        (Fail("CUDA failure 1: invalid argument"), Kind.INTERNAL),
        (Fail("Non-zero status code returned while running Loop node"), Kind.INTERNAL),
    ],
)
def test_an_error_is_blamed_on_whom_it_belongs_to(error, kind):
    assert kind_of(error) is kind


def test_a_reason_is_one_readable_line():
    text = "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from m.onnx failed:Protobuf parsing failed.\n"
    assert one_line(Fail(text)) == "Protobuf parsing failed."


def test_a_long_reason_is_cut():
    assert len(one_line(Fail("x" * 10_000))) == 400


def model(path: Path, node, opset: int = 17, ir: int = 8, domains: tuple[str, ...] = ()) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph([node], "graph", [x], [y])
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString())
    return path


def with_external_data(path: Path) -> Path:
    weights = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", [x], [y], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(made, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def missing_data(path: Path) -> Path:
    with_external_data(path)
    (path.parent / "weights.bin").unlink()
    return path


def half_the_data(path: Path) -> Path:
    with_external_data(path)
    (path.parent / "weights.bin").write_bytes(b"1234")
    return path


def content(data: bytes):
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def identity():
    return helper.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize(
    ("write", "cause", "what_to_do"),
    [
        (lambda p: model(p, helper.make_node("NoSuchOp", ["x"], ["y"])), "NoSuchOp", "standard ONNX operators"),
        (
            lambda p: model(p, helper.make_node("Mine", ["x"], ["y"], domain="com.example"), domains=("com.example",)),
            "com.example:Mine",
            "standard ONNX operators",
        ),
        (
            lambda p: model(p, helper.make_node("Mine", ["x"], ["y"], domain="com.example")),
            "com.example",
            "standard ONNX operators",
        ),
        (lambda p: model(p, identity(), opset=99), "Opset 99", "older opset"),
        (lambda p: model(p, identity(), ir=99), "IR version: 99", "older onnx package"),
        (missing_data, "weights.bin", "copy it along"),
        (half_the_data, "External initializer: w", "copy it along"),
        (content(b""), "No graph", "fetch it again"),
        (content(b"version https://git-lfs.github.com/spec/v1\n"), "Protobuf parsing failed", "Git LFS"),
    ],
    ids=[
        "no such operator",
        "an operator of another domain",
        "a domain that is not imported",
        "a newer opset",
        "a newer file format",
        "weights left behind",
        "weights cut short",
        "an empty file",
        "a pointer of Git LFS",
    ],
)
def test_a_model_that_does_not_load_is_told_with_its_cause_and_a_remedy(tmp_path, write, cause, what_to_do):
    path = write(tmp_path / "m.onnx")
    backend = OnnxRuntimeBackend()
    device, options = backend.inventory().devices[0], SessionOptions()
    artifact = ModelArtifact("m", 3, "onnx", path)
    prepared = backend.prepare(artifact, device, options, None, lambda what, done: None)
    with pytest.raises(ScoringError) as refusal:
        backend.load(prepared, device, options, None)
    assert refusal.value.kind is Kind.PRECONDITION
    assert refusal.value.message.startswith("m:3 does not load: ")
    assert cause in refusal.value.message
    assert what_to_do in refusal.value.message
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    ("text", "what_to_do"),
    [
        ("all the graph nodes have not been assigned to CUDAExecutionProvider", "leave cuda_graphs out"),
        ("fallback to CPU EP has been explicitly disabled by the user.", "strict_placement is set"),
        ("CUDA failure 209: no kernel image is available for execution on the device", "GPU's generation"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "newer driver"),
        ("something else", ""),
    ],
)
def test_what_only_a_gpu_says_has_a_remedy_too(text, what_to_do):
    found = remedy(RuntimeError(text))
    assert what_to_do in found
    assert bool(what_to_do) == bool(found)


@pytest.mark.parametrize(
    "text",
    [
        "BFCArena::AllocateRawInternal Available memory of 1024 is smaller than requested bytes of 4096",
        "CUDA failure 2: out of memory ; GPU=0",
        "Failed to allocate memory for requested buffer of size 8388608",
    ],
)
def test_full_memory_is_known_by_the_arenas_words_and_cudas(text):
    assert kind_of(RuntimeError(text)) is Kind.DEVICE_MEMORY
