"""A model as `convert --to accelonnx` leaves it, made without the converter: pictures, device part, host tail."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from accelserve.backends.accel_onnx.accel_model import AccelModel, Part, write_accel
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, TensorSpec

PICTURES = Preprocessing((8, 8), layout="NHWC", mean=(100.0,), scale=(0.01,))


def converted(folder: Path) -> Path:
    """images: encoded pictures -> 3 classes, "scores" or classifier/Softmax:0. Device: Transpose, Conv, Relu, pool."""
    random = np.random.default_rng(0)
    conv = random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    dense = random.normal(0, 1, (4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "k"], ["c"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["features"]),
    ]
    tail = [helper.make_node("MatMul", ["f", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "device.onnx", nodes, ("pixels", ["batch", 8, 8, 3]), ("features", None), {"k": conv})
    _write(folder / "tail.onnx", tail, ("f", None), ("y", ["batch", 3]), {"w": dense})
    signature = Signature(
        "serving_default",
        {"images": TensorSpec("images", BY_NAME["string"], (-1,), "Placeholder:0")},
        {"scores": TensorSpec("scores", BY_NAME["float32"], (-1, 3), "classifier/Softmax:0")},
    )
    device = Part("device.onnx", {"pixels": "decoded"}, {"features": "features"})
    rest = Part("tail.onnx", {"f": "features"}, {"y": "scores"})
    write_accel(folder, AccelModel(signature, {"images": "decoded"}, {"scores": "scores"}, device, rest, PICTURES))
    return folder


def expected(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of decoded pictures, part after part."""
    import onnxruntime

    for name in ("device.onnx", "tail.onnx"):
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        (pixels,) = session.run(None, {session.get_inputs()[0].name: pixels})
    return pixels


def _write(path: Path, nodes, source, result, weights) -> None:
    """source, result: name and shape of the input and the output; None: the file says no shape."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (source, result)]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "part", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
