"""Small ONNX graphs, rewritten and run as the emulator runs them."""

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from accelserve.backends.fpga_emulator.formats import Numerics, parse_format
from accelserve.backends.fpga_emulator.rewrite import emulate
from accelserve.wire import onnx_pb2

FORMATS = (
    *("msfp11", "msfp12", "msfp16", "mxint8", "brainwave-a10", "bfp(m=1,e=8,b=4)", "bfp(m=15,e=8,b=8)"),
    *("bfp(m=3,e=8,b=16,rounding=away)", "bfp(m=3,e=8,b=16,rounding=floor)", "bfp(m=3,e=8,b=16,on_carry=bump)"),
    *("bfp(m=4,e=5,b=8,rounding=away,on_carry=bump)", "bfp(m=2,e=5,b=16,rounding=floor,on_carry=bump)"),
    *("mxint8(codes=twos-complement)", "bfp(m=3,e=5,b=8,rounding=away,codes=twos-complement)"),
    *("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1"),
)


def model(
    nodes: list[Any], weights: dict[str, Any], x: list[Any], y: list[Any], opset: int = 17
) -> onnx_pb2.ModelProto:
    """From float32 "x" to float32 "y", of these shapes."""
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx_pb2.ModelProto.FromString(whole.SerializeToString())


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], name=f"{operator}_{output}", **attributes)


def run(whole: onnx_pb2.ModelProto, x: Any, level: str = "ORT_ENABLE_ALL", output: str = "y") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([output], {"x": np.asarray(x, np.float32)})[0]


def rewritten(whole: onnx_pb2.ModelProto, format: str, elementwise: Any = "fp32", overflow: Any = "ieee") -> Any:
    return emulate(whole, Numerics(parse_format(format), elementwise, overflow)).model


def identity_conv(channels: int, opset: int = 17, before: str = "") -> onnx_pb2.ModelProto:
    """y = x, by a convolution whose weights are exact in every format: what comes out are the quantized activations."""
    nodes = [node(before, "x", "in")] if before else []
    nodes.append(node("Conv", "in w" if before else "x w", "y"))
    shape = ["n", channels, "h", "w"]
    eye = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    return model(nodes, {"w": eye}, shape, shape, opset)


def planted(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Random values of many magnitudes; among them powers of two, ties, zeros, whole zero rows, and what saturates."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape) * np.exp2(random.integers(-12, 3, size=shape))
    kind = random.integers(0, 10, size=shape)
    values = np.where(kind == 0, np.exp2(random.integers(-8, 4, size=shape)), values)
    values = np.where(kind == 1, random.integers(-64, 64, size=shape) / 16 + 1 / 32, values)
    values = np.where(kind == 2, 0, values)
    values = np.where(kind == 3, random.choice([1.9, -1.99, 3.999, 7.75], size=shape), values)
    values[..., 0] = 0
    return values.astype(np.float32)
