"""A network written down operator by operator: its ONNX nodes, the parameters it wants, what it costs.

Nothing here holds weights: a network of any size is built and counted in milliseconds, and `writing.py` asks for one
parameter after another. Images are NCHW inside; names are TensorFlow's, an operator's output being "NAME:0".
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelserve.wire.onnx_pb2 import AttributeProto, NodeProto, TensorProto, ValueInfoProto

Padding = str | int
"""TensorFlow's "SAME" or "VALID", or as many rows and columns on every side."""

ONNX_FLOAT, ONNX_INT64 = 1, 7
INPUT = "InputImage:0"
_APART = 4.0  # what seeded classifiers multiply by, so that their answers are not all alike
AFTER_RELU = 1.7
"""What seeded kernels make up for: a ReLU leaves a third of the variance, 1 / 1.7 ** 2, as weights of mean 0 see it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An array that a network learns, under the variable's name in a TensorFlow checkpoint.

    shape: as in the checkpoint; kernels are [height, width, inputs, outputs].
    form: how the ONNX graph has it: "image" for [outputs, inputs, height, width], "matrix" for [inputs, outputs],
    "channels" for [channels, 1, 1], "plain" as it is.
    mean, spread: of its values where they are seeded; spread is their standard deviation.
    """

    name: str
    shape: tuple[int, ...]
    mean: float = 0.0
    spread: float = 0.0
    form: str = "plain"

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def onnx_shape(self) -> tuple[int, ...]:
        if self.form == "image":
            height, width, inputs, outputs = self.shape
            return outputs, inputs, height, width
        if self.form == "matrix":
            return math.prod(self.shape[:-1]), self.shape[-1]
        return (*self.shape, 1, 1) if self.form == "channels" else self.shape


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a matrix product. macs: multiplications for one picture."""

    name: str
    macs: int
    inputs: int


@dataclass(frozen=True, slots=True)
class Image:
    """A tensor float32[N, channels, height, width] of the graph, by name."""

    tensor: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch normalisation. gamma: mean of its seeded scale; less than one where a residual branch ends."""

    epsilon: float
    gamma: float = 1.0


class Network:
    """Takes down operators in the order of running.

    size: of the square picture. input_spread: the standard deviation of its values as they arrive, which the seeded
    weights of the first layer divide by, so that what they answer stays about one in magnitude.
    """

    def __init__(self, name: str, size: int, input_spread: float) -> None:
        self.name = name
        self.size = size
        self.nodes: list[NodeProto] = []
        self.parameters: list[Parameter] = []
        self.constants: list[TensorProto] = []
        self.layers: list[Layer] = []
        self.outputs: list[ValueInfoProto] = []
        self.device_outputs: tuple[str, ...] = ()
        self._input_spread = input_spread

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def parameter_count(self) -> int:
        return sum(parameter.count for parameter in self.parameters)

    def image(self) -> Image:
        """The graph's input, float32[N, size, size, 3], turned to NCHW."""
        return Image(self.op("Transpose", "InputImage/NCHW", [INPUT], perm=[0, 3, 1, 2]), 3, self.size, self.size)

    def input(self) -> ValueInfoProto:
        return value_info(INPUT, ("N", self.size, self.size, 3))

    def op(self, kind: str, name: str, inputs: Iterable[str], **attributes: int | float | Sequence[int]) -> str:
        """Any operator with one output; returns the output's name."""
        return self.ops(kind, name, inputs, (f"{name}:0",), **attributes)[0]

    def ops(
        self,
        kind: str,
        name: str,
        inputs: Iterable[str],
        outputs: tuple[str, ...],
        **attributes: int | float | Sequence[int],
    ) -> tuple[str, ...]:
        node = NodeProto(op_type=kind, name=name, input=list(inputs), output=outputs)
        node.attribute.extend(_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs

    def parameter(self, parameter: Parameter) -> str:
        self.parameters.append(parameter)
        return parameter.name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """A constant int64[len(values)]."""
        self.constants.append(TensorProto(name=name, data_type=ONNX_INT64, dims=[len(values)], int64_data=values))
        return name

    def floats(self, name: str, values: NDArray[np.float32]) -> str:
        """A constant of the array's shape."""
        raw = np.ascontiguousarray(values, "<f4")
        self.constants.append(TensorProto(name=name, data_type=ONNX_FLOAT, dims=raw.shape, raw_data=raw.tobytes()))
        return name

    def output(self, tensor: str, shape: tuple[int, ...], onnx_type: int = ONNX_FLOAT) -> None:
        """shape: without the batch axis."""
        self.outputs.append(value_info(tensor, ("N", *shape), onnx_type))

    def conv(
        self,
        image: Image,
        scope: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: Padding = "SAME",
        dilation: int = 1,
        bias: bool = False,
        gain: float = AFTER_RELU,
    ) -> Image:
        """`scope`/Conv2D with `scope`/weights, and `scope`/biases. gain: of the seeded weights."""
        first = image.tensor == "InputImage/NCHW:0"
        fan_in = image.channels * kernel * kernel
        spread = (1 / self._input_spread if first else gain) / math.sqrt(fan_in)
        weights = Parameter(f"{scope}/weights", (kernel, kernel, image.channels, channels), spread=spread, form="image")
        inputs = [image.tensor, self.parameter(weights)]
        if bias:
            inputs.append(self.parameter(Parameter(f"{scope}/biases", (channels,), spread=0.05)))
        reach = dilation * (kernel - 1) + 1
        (top, bottom, height) = _padded(image.height, reach, stride, padding)
        (left, right, width) = _padded(image.width, reach, stride, padding)
        tensor = self.op(
            "Conv",
            f"{scope}/Conv2D",
            inputs,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[top, left, bottom, right],
            dilations=[dilation, dilation],
        )
        self.layers.append(
            Layer(scope, height * width * channels * fan_in, image.channels * image.height * image.width)
        )
        return Image(tensor, channels, height, width)

    def norm(self, image: Image, scope: str, norm: Norm) -> Image:
        """`scope`/BatchNorm with its four parameters."""
        base, shape = f"{scope}/BatchNorm", (image.channels,)
        named = (
            Parameter(f"{base}/gamma", shape, norm.gamma, norm.gamma / 20),
            Parameter(f"{base}/beta", shape, 0.0, 0.1),
            Parameter(f"{base}/moving_mean", shape, 0.0, 0.1),
            Parameter(f"{base}/moving_variance", shape, 1.0, 0.1),
        )
        inputs = [image.tensor, *map(self.parameter, named)]
        tensor = self.op("BatchNormalization", f"{base}/FusedBatchNorm", inputs, epsilon=norm.epsilon)
        return _with(image, tensor)

    def relu(self, image: Image, scope: str) -> Image:
        return _with(image, self.op("Relu", f"{scope}/Relu", [image.tensor]))

    def max_pool(self, image: Image, scope: str, kernel: int, stride: int, padding: Padding = "SAME") -> Image:
        return self._pool("MaxPool", f"{scope}/MaxPool", image, kernel, stride, padding)

    def average_pool(self, image: Image, scope: str, kernel: int, stride: int) -> Image:
        return self._pool("AveragePool", f"{scope}/AvgPool", image, kernel, stride, "VALID")

    def _pool(self, kind: str, name: str, image: Image, kernel: int, stride: int, padding: Padding) -> Image:
        (top, bottom, height) = _padded(image.height, kernel, stride, padding)
        (left, right, width) = _padded(image.width, kernel, stride, padding)
        tensor = self.op(
            kind,
            name,
            [image.tensor],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[top, left, bottom, right],
        )
        return Image(tensor, image.channels, height, width)

    def add(self, one: Image, other: Image, scope: str) -> Image:
        return _with(one, self.op("Add", f"{scope}/add", [one.tensor, other.tensor]))

    def concat(self, one: Image, other: Image, scope: str) -> Image:
        tensor = self.op("Concat", f"{scope}/concat", [one.tensor, other.tensor], axis=1)
        return Image(tensor, one.channels + other.channels, one.height, one.width)

    def features(self, image: Image, name: str, inner: str) -> int:
        """End the device's part: the image as float32[N, height, width, channels], under the name "`name`:0".

        inner: name of the operator that makes it. Returns how many numbers that is for a picture.
        """
        (tensor,) = self.ops("Transpose", inner, [image.tensor], (f"{name}:0",), perm=[0, 2, 3, 1])
        self.device_outputs = (tensor,)
        return image.height * image.width * image.channels

    def classifier(self, scope: str, count: int, classes: int, name: str) -> str:
        """On the host: the features, flat, times `scope`/weights, and `scope`/biases. Returns float32[N, classes].

        name: of the operator whose output that is, within classifier/.
        """
        flat = self.op("Flatten", f"classifier/{scope}/Flatten", [self.device_outputs[0]], axis=1)
        spread = _APART / math.sqrt(count)
        inputs = [
            flat,
            self.parameter(Parameter(f"{scope}/weights", (1, 1, count, classes), spread=spread, form="matrix")),
            self.parameter(Parameter(f"{scope}/biases", (classes,), spread=0.05)),
        ]
        self.layers.append(Layer(scope, count * classes, count))
        return self.op("Gemm", f"classifier/{name}", inputs)


def value_info(tensor: str, shape: tuple[str | int, ...], onnx_type: int = ONNX_FLOAT) -> ValueInfoProto:
    """An input or output; a text in the shape is a free axis."""
    value = ValueInfoProto(name=tensor)
    value.type.tensor_type.elem_type = onnx_type
    for size in shape:
        axis = value.type.tensor_type.shape.dim.add()
        if isinstance(size, str):
            axis.dim_param = size
        else:
            axis.dim_value = size
    return value


def _with(image: Image, tensor: str) -> Image:
    return Image(tensor, image.channels, image.height, image.width)


def _padded(size: int, reach: int, stride: int, padding: Padding) -> tuple[int, int, int]:
    """Rows before, rows after, and how many come out."""
    if padding == "SAME":
        out = -(-size // stride)
        total = max((out - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2, out
    rows = 0 if padding == "VALID" else int(padding)
    return rows, rows, (size + 2 * rows - reach) // stride + 1


def _attribute(name: str, value: int | float | Sequence[int]) -> AttributeProto:
    if isinstance(value, int):
        return AttributeProto(name=name, type=AttributeProto.INT, i=value)
    if isinstance(value, float):
        return AttributeProto(name=name, type=AttributeProto.FLOAT, f=value)
    return AttributeProto(name=name, type=AttributeProto.INTS, ints=value)
