"""Do tensors survive the codecs? Asked of each model's own tensors before it is AVAILABLE."""

from collections.abc import Mapping

import numpy as np

from accelserve.codecs.tensor_proto import decode_tensor, encode_tensor
from accelserve.codecs.tfserving_json import encode_predict as encode_json
from accelserve.codecs.tfserving_json import read_predict
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor, TensorSpec, dtype_of
from accelserve.wire.tensorflow_pb2 import TensorProto


def check_round_trip(tensors: Mapping[str, Tensor]) -> None:
    """Write and read each tensor as TensorProto and, where JSON has such numbers, as JSON.

    Raises ScoringError(INTERNAL) naming the tensor and the codec whose reading differs from what was written.
    """
    for name, tensor in tensors.items():
        _require_equal("TensorProto", name, tensor, decode_tensor(TensorProto.FromString(encode_tensor(tensor)), name))
        if tensor.dtype.kind != "c":
            _require_equal("JSON", name, tensor, _through_json(name, tensor))


def _through_json(name: str, tensor: Tensor) -> Tensor:
    # An "outputs" document read as "inputs": the two are mirror images.
    text = encode_json({name + "_bytes": tensor}, row_format=False).replace(b'"outputs"', b'"inputs"', 1)
    spec = TensorSpec(name, dtype_of(tensor), tensor.shape, name)
    _, inputs, _, _ = read_predict(text, lambda _: Signature("", {name: spec}, {}))
    return inputs[name]


def _require_equal(codec: str, name: str, wrote: Tensor, read: Tensor) -> None:
    # JSON cannot say the inner axes of no rows.
    same = wrote.size == read.size == 0 or (wrote.shape == read.shape and _same_values(wrote, read))
    if wrote.dtype != read.dtype or not same:
        message = f'the {codec} codec does not give back tensor "{name}"'
        raise ScoringError(Kind.INTERNAL, message, reason="self_check")


def _same_values(left: Tensor, right: Tensor) -> bool:
    if left.dtype == np.object_:
        return left.ravel().tolist() == right.ravel().tolist()
    if left.dtype.kind == "V":  # ml_dtypes: numpy knows no NaN of theirs, and float32 holds all their values
        left, right = left.astype(np.float32), right.astype(np.float32)
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))
