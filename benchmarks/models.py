"""Small ONNX models with seeded random weights, and what is sent to them. Input `x`, output `y`, axis 0: the rows.

tiny          float32 [-1, 4] -> [-1, 3]                one dense layer: next to no work, so the server is all one sees
mlp           float32 [-1, 784] -> [-1, 10]             three dense layers
resnet50      float32 [-1, 3, 224, 224] -> [-1, 1000]   ResNet-50 v1.5, batch norm folded into the convolutions
gap_u8, resnet50_u8   uint8 [-1, 224, 224, 3]       the same; the graph itself normalises to -1..1
"""

import importlib.util
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SIDE = 224  # pixels
PREPROCESSING = """[preprocessing]  # (x - mean) * scale
resize = "stretch"
mean = [127.5, 127.5, 127.5]
scale = 0.00784313725490196
"""
TINY_ROW = [1.0, 2.0, 5.0, -3.5]


@dataclass
class Graph:
    """Collects nodes and weights; `add` and `weight` return the name of what they made."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def weight(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def integers(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def save(self, path: Path, row: list[int], output: str, width: int, dtype: int = TensorProto.FLOAT) -> None:
        nodes = [*self.nodes, helper.make_node("Identity", [output], ["y"])]
        x = helper.make_tensor_value_info("x", dtype, ["n", *row])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])
        graph = helper.make_graph(nodes, path.stem, [x], [y], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def build(name: str, folder: Path) -> Path:
    """Write the model into `folder`, and beside a float image model its `accelserve.toml`; returns the model's file."""
    path = folder / f"{name}.onnx"
    BUILDERS[name](path)
    if name in ("gap", "resnet50"):
        (folder / f"{name}.accelserve.toml").write_text(PREPROCESSING)
    return path


def build_head(width: int, folder: Path) -> Path:
    """head_WIDTH: float32 [-1, width] -> [-1, 4], the first four numbers: it costs the same whatever the width."""
    path, graph = folder / f"head_{width}.onnx", Graph()
    first, end, axis = (graph.integers(value) for value in (0, 4, 1))
    graph.save(path, [width], graph.add("Slice", "x", first, end, axis), 4)
    return path


def build_synthetic(folder: Path, name: str, run_ms: float, max_batch_size: int) -> Path:
    """A device that takes `run_ms` for a batch of any size and no CPU: float32 [-1, 4] -> the same."""
    path = folder / f"{name}.synthetic.toml"
    path.write_text(f'delay_ms = {run_ms}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 4]\noutput = "y"\n')
    (folder / f"{name}.accelserve.toml").write_text(f"[batching]\nmax_batch_size = {max_batch_size}\n")
    return path


def tiny_weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(matrix [4, 3], bias [3])"""
    random = np.random.default_rng(0)
    return random.normal(size=(4, 3)).astype(np.float32), random.normal(size=3).astype(np.float32)


def tiny_answer() -> list[float]:
    """What `tiny` says to TINY_ROW."""
    matrix, bias = tiny_weights()
    return [float(score) for score in np.array(TINY_ROW, np.float32) @ matrix + bias]


def tiny_json() -> bytes:
    return json.dumps({"instances": [TINY_ROW]}).encode()


def tiny_predict() -> bytes:
    return predict("tiny", np.array([TINY_ROW], np.float32))


def predict(model: str, rows: NDArray[Any]) -> bytes:
    """Rows of input `x` as tensorflow.serving.PredictRequest, by hand: the code under test does not make its own test.

    Fields: PredictRequest model_spec=1 (name=1), inputs=2 (key=1, value=2); TensorProto dtype=1, tensor_shape=2
    (dim=2 (size=1)), tensor_content=4.
    """
    dtype = {"float32": b"\x01", "uint8": b"\x04"}[rows.dtype.name]
    shape = b"".join(_field(2, b"\x08" + _varint(size)) for size in rows.shape)
    tensor = b"\x08" + dtype + _field(2, shape) + _field(4, rows.tobytes())
    return _field(1, _field(1, model.encode())) + _field(2, _field(1, b"x") + _field(2, tensor))


def jpeg(width: int = 220, quality: int = 88) -> bytes:
    """A photograph (scikit-learn's china.jpg) as a square JPEG, about 17 KB."""
    from PIL import Image

    sklearn = importlib.util.find_spec("sklearn")  # found, not imported
    assert sklearn is not None
    assert sklearn.origin is not None
    photo = Image.open(Path(sklearn.origin).parent / "datasets" / "images" / "china.jpg").convert("RGB")
    side = min(photo.size)
    file = io.BytesIO()
    photo.crop((0, 0, side, side)).resize((width, width), Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    head, tail = number >> 7, number & 0x7F
    return bytes([tail]) if not head else bytes([tail | 0x80]) + _varint(head)


def _tiny(path: Path) -> None:
    graph = Graph()
    matrix, bias = tiny_weights()
    graph.save(path, [4], graph.add("Gemm", "x", graph.weight(matrix), graph.weight(bias)), 3)


def _mlp(path: Path) -> None:
    graph, random, value = Graph(), np.random.default_rng(0), "x"
    for wide, narrow in ((784, 300), (300, 100), (100, 10)):
        dense = graph.weight(random.normal(0, wide**-0.5, (wide, narrow)))
        value = graph.add("Gemm", value, dense, graph.weight(np.zeros(narrow)))
        if narrow > 10:
            value = graph.add("Relu", value)
    graph.save(path, [784], graph.add("Softmax", value, axis=-1), 10)


def _vec256(path: Path) -> None:
    graph = Graph()
    half = graph.add("Mul", "x", graph.weight(0.5))
    graph.save(path, [256], graph.add("Add", half, graph.weight(2.0)), 256)


def _on_floats(layers: Callable[[Graph, str], str]) -> Callable[[Path], None]:
    """Image layers behind a float32 input."""

    def write(path: Path) -> None:
        graph = Graph()
        graph.save(path, [3, SIDE, SIDE], layers(graph, "x"), 1000)

    return write


def _on_bytes(layers: Callable[[Graph, str], str]) -> Callable[[Path], None]:
    """Image layers behind a uint8 input, which the graph normalises."""

    def write(path: Path) -> None:
        graph = Graph()
        floats = graph.add("Cast", "x", to=TensorProto.FLOAT)
        scaled = graph.add("Sub", graph.add("Mul", floats, graph.weight(1 / 127.5)), graph.weight(1.0))
        image = graph.add("Transpose", scaled, perm=[0, 3, 1, 2])
        graph.save(path, [SIDE, SIDE, 3], layers(graph, image), 1000, TensorProto.UINT8)

    return write


def _gap_layers(graph: Graph, image: str) -> str:
    matrix = graph.weight(np.random.default_rng(0).normal(0, 0.02, (3, 1000)))
    return graph.add("MatMul", graph.add("Flatten", graph.add("GlobalAveragePool", image)), matrix)


def _resnet50_layers(graph: Graph, image: str) -> str:
    """He and others 2015, table 1; version 1.5 has the stride in the 3 x 3 convolution."""
    random = np.random.default_rng(0)

    def conv(value: str, inputs: int, outputs: int, size: int, stride: int, gain: float = 2.0) -> str:
        weights = random.normal(0, (gain / (inputs * size * size)) ** 0.5, (outputs, inputs, size, size))
        bias = graph.weight(random.normal(0, 0.01, outputs))
        shape = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": [size // 2] * 4}
        return graph.add("Conv", value, graph.weight(weights), bias, **shape)

    def relu(value: str) -> str:
        return graph.add("Relu", value)

    value = graph.add("MaxPool", relu(conv(image, 3, 64, 7, 2)), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for stage, (middle, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            deep = relu(conv(value, inputs, middle, 1, 1))
            deep = relu(conv(deep, middle, middle, 3, stride))
            deep = conv(deep, middle, middle * 4, 1, 1, gain=0.2)  # small: sixteen sums must not grow without bound
            if block == 0:
                value = conv(value, inputs, middle * 4, 1, stride)
            value, inputs = relu(graph.add("Add", deep, value)), middle * 4
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    dense = graph.weight(random.normal(0, 0.02, (2048, 1000)))
    return graph.add("Softmax", graph.add("Gemm", pooled, dense, graph.weight(np.zeros(1000))), axis=-1)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "tiny": _tiny,
    "vec256": _vec256,
    "mlp": _mlp,
    "gap": _on_floats(_gap_layers),
    "gap_u8": _on_bytes(_gap_layers),
    "resnet50": _on_floats(_resnet50_layers),
    "resnet50_u8": _on_bytes(_resnet50_layers),
}
