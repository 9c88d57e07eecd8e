"""Small ONNX models whose answers depend on every element that they are given, and ONNX Runtime to run them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


def write(path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **weights: Any) -> Path:
    """weights: arrays by name."""
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def value(name: str, elem_type: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, elem_type, list(shape))


def scorer(path: Path, elem_type: int, *shape: int, seed: int = 0) -> Path:
    """image `elem_type` ["batch", *shape] -> scores float32 ["batch", 5]: every element has a weight of its own."""
    weights = np.random.default_rng(seed).normal(0, 0.01, (int(np.prod(shape)), CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
    ]
    return write(
        path,
        nodes,
        [value("image", elem_type, "batch", *shape)],
        [value("scores", TensorProto.FLOAT, "batch", CLASSES)],
        weights=weights,
    )


def sum_and_difference(path: Path) -> Path:
    """a, b float32 ["batch", 2] -> sum, difference."""
    shape = ("batch", 2)
    return write(
        path,
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [value(name, TensorProto.FLOAT, *shape) for name in ("a", "b")],
        [value(name, TensorProto.FLOAT, *shape) for name in ("sum", "difference")],
    )


def twice(path: Path, elem_type: int, *shape: int | str) -> Path:
    """x -> y = x + x, both of `elem_type` and exactly `shape`."""
    return write(
        path,
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [value("x", elem_type, *shape)],
        [value("y", elem_type, *shape)],
    )


def identity(path: Path, elem_type: int, *shape: int | str, output: str = "y") -> Path:
    """x -> `output` = x."""
    return write(
        path,
        [helper.make_node("Identity", ["x"], [output])],
        [value("x", elem_type, *shape)],
        [value(output, elem_type, *shape)],
    )


def half_plus_two(path: Path, *shape: int | str) -> Path:
    """y = x / 2 + 2 for x float32 of `shape`, as TF Serving's test model."""
    return write(
        path,
        [helper.make_node("Mul", ["x", "a"], ["ax"]), helper.make_node("Add", ["ax", "b"], ["y"])],
        [value("x", TensorProto.FLOAT, *shape)],
        [value("y", TensorProto.FLOAT, *shape)],
        a=np.float32(0.5),
        b=np.float32(2.0),
    )


def run_directly(path: Path, **inputs: Any) -> list[Any]:
    """The model's outputs, without any server."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)
