"""Tensors, their types and their descriptions: the one dtype table of the project.

A tensor is a numpy array. A string tensor is an array of dtype object whose elements are `bytes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from accelserve.errors import Kind, ScoringError

Tensor = NDArray[np.generic]
Shape = tuple[int, ...]  # -1: any size


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type under all its names.

    name: TensorFlow's and numpy's word, "float32"; "string" for bytes.
    numpy: dtype of the array that holds it (object for strings).
    tf: number in `tensorflow.DataType`; tf_field: the typed field of TensorProto that carries it.
    onnx: number in `onnx.TensorProto.DataType`, None where ONNX has no such type.
    oip: Open Inference Protocol's name, None where it has none.
    """

    name: str
    numpy: np.dtype[np.generic]
    tf: int
    tf_field: str
    onnx: int | None
    oip: str | None

    @property
    def is_string(self) -> bool:
        return self.tf == 7

    @property
    def tf_name(self) -> str:
        """The enum member's name, "DT_FLOAT"."""
        return "DT_" + _TF_NAMES.get(self.name, self.name.upper())

    def __str__(self) -> str:
        return self.name


_TF_NAMES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}


def _row(name: str, scalar: type, tf: int, tf_field: str, onnx: int | None, oip: str | None) -> DType:
    return DType(name, np.dtype(scalar), tf, tf_field, onnx, oip)


# Sources: tensorflow/core/framework/types.proto and tensor.cc (ProtoHelper), onnx.proto, Open Inference Protocol V2.
# Quantized types (QINT8 ...), RESOURCE and VARIANT have no numpy or ml_dtypes counterpart and are refused by name.
DTYPES: tuple[DType, ...] = (
    _row("float32", np.float32, 1, "float_val", 1, "FP32"),
    _row("float64", np.float64, 2, "double_val", 11, "FP64"),
    _row("int32", np.int32, 3, "int_val", 6, "INT32"),
    _row("uint8", np.uint8, 4, "int_val", 2, "UINT8"),
    _row("int16", np.int16, 5, "int_val", 5, "INT16"),
    _row("int8", np.int8, 6, "int_val", 3, "INT8"),
    _row("string", np.object_, 7, "string_val", 8, "BYTES"),
    _row("complex64", np.complex64, 8, "scomplex_val", 14, None),
    _row("int64", np.int64, 9, "int64_val", 7, "INT64"),
    _row("bool", np.bool_, 10, "bool_val", 9, "BOOL"),
    _row("bfloat16", ml_dtypes.bfloat16, 14, "half_val", 16, "BF16"),
    _row("uint16", np.uint16, 17, "int_val", 4, "UINT16"),
    _row("complex128", np.complex128, 18, "dcomplex_val", 15, None),
    _row("float16", np.float16, 19, "half_val", 10, "FP16"),
    _row("uint32", np.uint32, 22, "uint32_val", 12, "UINT32"),
    _row("uint64", np.uint64, 23, "uint64_val", 13, "UINT64"),
    _row("float8_e5m2", ml_dtypes.float8_e5m2, 24, "float8_val", 19, None),
    _row("float8_e4m3fn", ml_dtypes.float8_e4m3fn, 25, "float8_val", 17, None),
    _row("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 26, "float8_val", 18, None),
    _row("float8_e4m3b11fnuz", ml_dtypes.float8_e4m3b11fnuz, 27, "float8_val", None, None),
    _row("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 28, "float8_val", 20, None),
    _row("int4", ml_dtypes.int4, 29, "int_val", 22, None),
    _row("uint4", ml_dtypes.uint4, 30, "int_val", 21, None),
    _row("int2", ml_dtypes.int2, 31, "int_val", 26, None),
    _row("uint2", ml_dtypes.uint2, 32, "int_val", 25, None),
    _row("float4_e2m1fn", ml_dtypes.float4_e2m1fn, 33, "float8_val", 23, None),
)

BY_NAME: Mapping[str, DType] = MappingProxyType({d.name: d for d in DTYPES})
BY_TF: Mapping[int, DType] = MappingProxyType({d.tf: d for d in DTYPES})
_BY_NUMPY: Mapping[np.dtype[np.generic], DType] = MappingProxyType({d.numpy: d for d in DTYPES})
STRING = BY_NAME["string"]


def dtype_of(tensor: Tensor) -> DType:
    """The table's row for an array. Raises ScoringError(INVALID) for a dtype that no row has."""
    found = _BY_NUMPY.get(tensor.dtype)
    if found is None:
        raise ScoringError(Kind.INVALID, f"numpy dtype {tensor.dtype} has no tensor type")
    return found


def describe(dtype: DType, shape: Shape | None) -> str:
    """`uint8[-1,224,224,3]`; a shape of unknown rank is `[...]`."""
    return f"{dtype.name}[{'...' if shape is None else ','.join(map(str, shape))}]"


def describe_tensor(tensor: Tensor) -> str:
    return describe(dtype_of(tensor), tensor.shape)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    name: key in the signature ("images"); tensor_name: name in the graph ("Placeholder:0"), the same for ONNX.
    shape: -1 where any size fits; None when not even the rank is known.
    """

    name: str
    dtype: DType
    shape: Shape | None
    tensor_name: str

    def accepts_shape(self, shape: Shape) -> bool:
        """Whether a tensor of `shape` fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(w in (-1, g) for w, g in zip(self.shape, shape, strict=True))

    @property
    def has_batch_axis(self) -> bool:
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] == -1

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model can be asked: named inputs to named outputs.

    defaults: values for inputs that a request may leave out.
    strict_shapes: whether a shape that does not fit is refused before the model sees it. TF Serving does not look
    (specs/tfserving.md 1.5), so SavedModels have False and their graph decides.
    batched: whether requests can ride together: every input and output has a free first axis.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = "tensorflow/serving/predict"
    defaults: Mapping[str, Tensor] = field(default_factory=dict)
    strict_shapes: bool = True
    batched: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        specs = [*self.inputs.values(), *self.outputs.values()]
        object.__setattr__(self, "batched", bool(self.inputs) and all(spec.has_batch_axis for spec in specs))


def find_spec(specs: Mapping[str, TensorSpec], name: str) -> TensorSpec | None:
    """The input or output that a client calls `name`: its signature key, or its tensor name with or without ":0"."""
    found = specs.get(name)
    if found is not None:
        return found
    bare = name.removesuffix(":0")
    return next((s for s in specs.values() if s.tensor_name.removesuffix(":0") == bare), None)


DEFAULT_SIGNATURE = "serving_default"
