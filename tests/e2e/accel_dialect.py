"""A small model with the names that the accel clients of Azure ML use."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from small_networks import value, write

SOFTMAX = "classifier/resnet_v1_50/predictions/Softmax"


def dense_accel(path: Path) -> Path:
    """The accel clients' names on an ONNX model of pixels: the mean of each colour, 0 to 1."""
    return write(
        path,
        [
            helper.make_node("Cast", ["Placeholder:0"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["floats", "white"], ["parts"]),
            helper.make_node("ReduceMean", ["parts"], [f"{SOFTMAX}:0"], axes=[1, 2], keepdims=0),
        ],
        [value("Placeholder:0", TensorProto.UINT8, "batch", 8, 8, 3)],
        [value(f"{SOFTMAX}:0", TensorProto.FLOAT, "batch", 3)],
        white=np.float32(255),
    )


def float_accel(path: Path) -> Path:
    """The same of numbers: float32 ["batch", 2, 2, 3] -> the mean of each colour."""
    return write(
        path,
        [helper.make_node("ReduceMean", ["Placeholder:0"], [f"{SOFTMAX}:0"], axes=[1, 2], keepdims=0)],
        [value("Placeholder:0", TensorProto.FLOAT, "batch", 2, 2, 3)],
        [value(f"{SOFTMAX}:0", TensorProto.FLOAT, "batch", 3)],
    )
