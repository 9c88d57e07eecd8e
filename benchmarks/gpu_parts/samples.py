"""The models that are compared, and random rows for them; a picture."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from accelserve.builtin import digits_path
from accelserve.tensors import Signature, Tensor, TensorSpec
from benchmarks import models


def build(name: str, folder: Path) -> Path:
    """The model's file; built once for each folder."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _OWN[name](path) if name in _OWN else models.build(name, folder)
    return path


def random_inputs(signature: Signature, rows: int, random: np.random.Generator, width: int = 8) -> dict[str, Tensor]:
    """Rows for each input; inner axes of any size get `width`."""
    return {name: _values(spec, rows, random, width) for name, spec in signature.inputs.items()}


def _values(spec: TensorSpec, rows: int, random: np.random.Generator, width: int) -> Tensor:
    assert spec.shape is not None
    shape = (rows, *(width if size < 0 else size for size in spec.shape[1:]))
    dtype, unit = spec.dtype.numpy, random.random(shape, np.float32)
    if len(shape) == 4:
        unit = _patches(shape, random)
    if dtype.kind == "f":
        return np.ascontiguousarray(unit * 2 - 1, dtype)
    return np.ascontiguousarray(unit * 255, dtype)


def _patches(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """Pictures of four patches, 0 to 1. All noise looks the same to a network, so that mixed-up rows would not show."""
    rows, height, width, channels = shape if shape[3] <= 3 else (shape[0], shape[2], shape[3], shape[1])
    colours = random.random((rows, 2, 2, channels), np.float32)
    pixels = colours.repeat(-(-height // 2), 1)[:, :height].repeat(-(-width // 2), 2)[:, :, :width]
    return pixels if shape[3] <= 3 else pixels.transpose(0, 3, 1, 2)


def rows_apart(answers: Mapping[str, Tensor]) -> float:
    """|a - b| / |a| of the two rows that are nearest to each other, over all outputs: half of it tells rows apart."""
    flat = [np.asarray(tensor, np.float64).reshape(len(tensor), -1) for tensor in answers.values()]
    pairs = ((rows, a, b) for rows in flat for a in range(len(rows)) for b in range(a))
    return min(float(np.linalg.norm(rows[a] - rows[b]) / np.linalg.norm(rows[a])) for rows, a, b in pairs)


def cut(tensors: Mapping[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    return {name: tensor[start:end] for name, tensor in tensors.items()}


def picture(width: int = 220, height: int = 220) -> bytes:
    """A JPEG of soft shapes and some noise, in bytes what a photograph of its size has (220 x 220: about 17 KB)."""
    import cv2
    import simplejpeg

    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    soft: NDArray[Any] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(soft + random.normal(0, 9, (height, width, 3)), 0, 255).astype(np.uint8)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=85)
    return encoded


def half_precision(source: Path, path: Path) -> Path:
    """The same graph with fp16 weights and arithmetic, its inputs and outputs as they were: the bare library's mark.

    For graphs of benchmarks/models.py: weights are float32, the inputs float32 or cast to float32 by a first node.
    """
    model = onnx.load(source)
    graph = model.graph
    for weight in graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    last = graph.node[-1]
    last.CopyFrom(helper.make_node("Cast", last.input, last.output, to=TensorProto.FLOAT))
    if graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT:
        for node in graph.node:
            node.input[:] = ["x_half" if name == "x" else name for name in node.input]
        graph.node.insert(0, helper.make_node("Cast", ["x"], ["x_half"], to=TensorProto.FLOAT16))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _digits(path: Path) -> None:
    """The model that comes with the package."""
    shutil.copyfile(digits_path() / "1" / "model.onnx", path)


def _two_in_two_out(path: Path) -> None:
    """a float32 [-1, 6], b float32 [-1, 4] -> joined = [a b] W, product = a V * b."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(10, 5)), "v": random.normal(size=(6, 4))}
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=1),
        helper.make_node("MatMul", ["ab", "w"], ["joined"]),
        helper.make_node("MatMul", ["a", "v"], ["av"]),
        helper.make_node("Mul", ["av", "b"], ["product"]),
    ]
    _save(path, nodes, {"a": 6, "b": 4}, {"joined": 5, "product": 4}, weights)


def _free_width(path: Path) -> None:
    """x float32 [-1, -1] -> y [-1, -1] = softmax(3 x) over a width that each request chooses."""
    nodes = [helper.make_node("Mul", ["x", "k"], ["kx"]), helper.make_node("Softmax", ["kx"], ["y"], axis=-1)]
    _save(path, nodes, {"x": "width"}, {"y": "width"}, {"k": np.array(3.0)})


def _fp16_io(path: Path) -> None:
    """x float16 [-1, 64] -> y float16 [-1, 10]: two dense layers, all in fp16."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(0, 0.125, (64, 32)), "v": random.normal(0, 0.18, (32, 10))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    _save(path, nodes, {"x": 64}, {"y": 10}, weights, np.float16)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, int | str],
    outputs: Mapping[str, int | str],
    weights: Mapping[str, NDArray[Any]],
    dtype: type[np.generic] = np.float32,
) -> None:
    kind = TensorProto.FLOAT if dtype is np.float32 else TensorProto.FLOAT16
    values = [
        [helper.make_tensor_value_info(name, kind, ["n", width]) for name, width in ends.items()]
        for ends in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, path.stem, *values, constants)
    opset = [helper.make_opsetid("", models.OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=models.IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)


_OWN = {"digits": _digits, "two_in_two_out": _two_in_two_out, "free_width": _free_width, "fp16_io": _fp16_io}
