"""Chains of Gemm and Relu in ONNX files, as layers of 8-bit weights."""

from collections import namedtuple
from pathlib import Path

import numpy as np

from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2

# int8 [inputs, outputs], of which 1 stands for `step` [outputs], as float32; bias [outputs]; least: 0 after a Relu
Layer = namedtuple("Layer", "weights step bias least")


def read_model(model: str, path: Path) -> tuple[str, str, list[Layer]]:
    """The input's name, the output's, the layers. Raises ScoringError(PRECONDITION) naming what is not supported."""
    try:
        graph = onnx_pb2.ModelProto.FromString(path.read_bytes()).graph
        constants = {each.name: np.frombuffer(each.raw_data, "<f4").reshape(each.dims) for each in graph.initializer}
        flows, layers = graph.input[0].name, []
        for node in graph.node:
            if node.op_type == "Relu" and layers and node.input[0] == flows:
                layers[-1] = layers[-1]._replace(least=np.float32(0))
            elif node.op_type == "Gemm" and not node.attribute and node.input[0] == flows:
                weights, bias = (constants[name] for name in node.input[1:])
                step = np.maximum(np.abs(weights).max(axis=0), np.float32(1e-30)) / np.float32(127)
                layers.append(Layer(np.rint(weights / step).astype(np.int8), step, bias, np.float32(-np.inf)))
            else:
                raise ValueError(f"{node.op_type} {node.name!r}: matmul8 takes only a chain of plain Gemm and Relu")
            flows = node.output[0]
    except Exception as error:
        raise ScoringError(Kind.PRECONDITION, f"{model} does not load: {path}: {error}") from error
    return graph.input[0].name, flows, layers
