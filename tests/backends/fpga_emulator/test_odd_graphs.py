"""Graphs that are not quite what the five networks are: each answers as its float32 original does, nearly."""

import numpy as np
import onnxruntime
import pytest
from fpga_graphs import model, node
from onnx import TensorProto

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.fpga_emulator.backend import DEVICE, FpgaEmulatorBackend
from accelserve.backends.lease import acquire_lease

RANDOM = np.random.default_rng(5)


def weights(*shape):
    return RANDOM.normal(0, 0.2, shape).astype(np.float32)


GRAPHS = {
    "weights of three axes": model([node("MatMul", "x w", "y")], {"w": weights(1, 33, 8)}, ["n", 5, 33], ["n", 5, 8]),
    "a vector of weights": model([node("MatMul", "x w", "y")], {"w": weights(33)}, ["n", 33], ["n"]),
    "a fixed number of rows": model([node("MatMul", "x w", "y")], {"w": weights(33, 8)}, [4, 33], [4, 8]),
    "transposed in the graph": model(
        [node("Transpose", "w", "t"), node("MatMul", "x t", "y")], {"w": weights(8, 33)}, ["n", 33], ["n", 8]
    ),
    "kept in fp16": model(
        [node("Cast", "w", "t", to=TensorProto.FLOAT), node("MatMul", "x t", "y")],
        {"w": weights(33, 8).astype(np.float16)},
        ["n", 33],
        ["n", 8],
    ),
    "in one dimension": model([node("Conv", "x w", "y")], {"w": weights(7, 5, 3)}, ["n", 5, 20], ["n", 7, 18]),
    "in three dimensions": model(
        [node("Conv", "x w", "y")], {"w": weights(8, 4, 3, 3, 3)}, ["n", 4, 6, 6, 6], ["n", 8, 4, 4, 4]
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_an_odd_graph_is_served_within_the_formats_precision(tmp_path, name):
    path = tmp_path / "model.onnx"
    path.write_bytes(GRAPHS[name].SerializeToString())
    artifact = ModelArtifact("odd", 1, "onnx", path)
    backend, options = FpgaEmulatorBackend(), SessionOptions(threads=1, extra={"format": "msfp16", "max_batch": 4})
    lease = acquire_lease(tmp_path / "leases", DEVICE.id, "odd")
    cache = FolderArtifactCache(tmp_path / "cache")
    session = backend.load(
        backend.prepare(artifact, DEVICE, options, cache, lambda what, done: None), DEVICE, options, lease
    )
    try:
        shape = [4 if size == -1 else size for size in session.signatures["serving_default"].inputs["x"].shape]
        x = RANDOM.normal(size=shape).astype(np.float32)
        made = session.run(Batch("serving_default", {"x": x}, ("y",), shape[0]))
    finally:
        session.close()
        lease.release()
    whole = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = whole.run(["y"], {"x": x})
    assert made.outputs["y"].shape == wanted.shape
    assert np.abs(made.outputs["y"] - wanted).max() < 0.03 * np.abs(wanted).max()
    assert made.modelled_device_ns > 0
