"""Models for samples, written without any library but ours."""

from pathlib import Path

import numpy as np

from accelserve.tensors import Tensor
from accelserve.wire import onnx_pb2 as pb

_FLOAT = 1  # TensorProto.FLOAT
_OPSET, _IR_VERSION = 17, 8


def onnx_classifier(path: Path, features: int = 16, hidden: int = 8, classes: int = 4, *, softmax: bool = True) -> Path:
    """images float32 ["batch", features] -> Gemm, Relu, Gemm and Softmax, or none -> scores float32 ["batch", classes].

    Weights are seeded, and lie in the file as [inputs, outputs].
    """
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0, features**-0.5, (features, hidden)),
        "b1": random.normal(0, 0.1, hidden),
        "w2": random.normal(0, hidden**-0.5, (hidden, classes)),
        "b2": random.normal(0, 0.1, classes),
    }
    nodes = [
        pb.NodeProto(op_type="Gemm", name="hidden", input=["images", "w1", "b1"], output=["h"]),
        pb.NodeProto(op_type="Relu", name="relu", input=["h"], output=["r"]),
        pb.NodeProto(op_type="Gemm", name="logits", input=["r", "w2", "b2"], output=["z" if softmax else "scores"]),
    ]
    if softmax:
        nodes.append(pb.NodeProto(op_type="Softmax", name="softmax", input=["z"], output=["scores"]))
    graph = pb.GraphProto(
        name="classifier",
        node=nodes,
        initializer=[_initializer(name, values.astype(np.float32)) for name, values in weights.items()],
        input=[_rows("images", features)],
        output=[_rows("scores", classes)],
    )
    opsets = [pb.OperatorSetIdProto(version=_OPSET)]
    model = pb.ModelProto(ir_version=_IR_VERSION, producer_name="accelserve", graph=graph, opset_import=opsets)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _initializer(name: str, values: Tensor) -> pb.TensorProto:
    return pb.TensorProto(name=name, dims=values.shape, data_type=_FLOAT, raw_data=values.tobytes())


def _rows(name: str, width: int) -> pb.ValueInfoProto:
    dims = [pb.TensorShapeProto.Dimension(dim_param="batch"), pb.TensorShapeProto.Dimension(dim_value=width)]
    tensor = pb.TypeProto.Tensor(elem_type=_FLOAT, shape=pb.TensorShapeProto(dim=dims))
    return pb.ValueInfoProto(name=name, type=pb.TypeProto(tensor_type=tensor))
