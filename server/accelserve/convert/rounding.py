"""A float32 ONNX model that rounds as its float16 form does: to measure on a CPU what a GPU would answer.

ONNX Runtime's CPU provider computes a float16 graph in float32: it has few float16 kernels, puts casts around the other
nodes, and takes each pair of casts that meet out again (core/optimizer/insert_cast_transformer.cc). Neither an overflow
nor a rounding between two nodes would be seen. Here each value goes through float16 by casts of the model's own, which
stay; inside a node the sums are of float32, as they are on a GPU. Bodies of If, Loop and Scan are not rounded inside.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

_LARGEST = 65504.0  # the largest float16; the converter cuts weights to it


def rounding(model: Any) -> Any:
    """The model with all of its float32 weights and values rounded. model: an onnx.ModelProto, which is changed."""
    from onnx import TensorProto

    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    floats = {info.name for info in (*graph.value_info, *graph.output) if _is_float(info)}
    given = [info.name for info in graph.input if _is_float(info) and info.name not in weights]
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            _round_weight(tensor)
    nodes = [node for name in given for node in _through_half(name, f"{name}/rounded")]
    read_as = {name: f"{name}/rounded" for name in given}
    for node in graph.node:
        _rename(node.input, read_as)
        made = [name for name in node.output if name in floats]
        _rename(node.output, {name: f"{name}/exact" for name in made})
        nodes += [node, *(cast for name in made for cast in _through_half(f"{name}/exact", name))]
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _is_float(info: Any) -> bool:
    from onnx import TensorProto

    return bool(info.type.tensor_type.elem_type == TensorProto.FLOAT)


def _through_half(source: str, target: str) -> Iterator[Any]:
    from onnx import TensorProto, helper

    yield helper.make_node("Cast", [source], [f"{target}/half"], to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [f"{target}/half"], [target], to=TensorProto.FLOAT)


def _round_weight(tensor: Any) -> None:
    from onnx import numpy_helper

    exact = numpy_helper.to_array(tensor)
    rounded = np.clip(exact, -_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def _rename(names: Any, to: dict[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = to.get(name, name)
