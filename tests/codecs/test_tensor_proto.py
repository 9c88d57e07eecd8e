import json
import math
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from accelserve.codecs.tensor_proto import PaddingBudget, decode_tensor, encode_tensor
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, DTYPES
from accelserve.wire.tensorflow_pb2 import TensorProto, TensorShapeProto

ORACLE = Path(__file__).with_name("tensorflow_oracle.py")
REFUSED = None  # the expected value of a proto that has none


def tensor_proto(dtype, shape=(), unknown_rank=False, **fields):
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    number = dtype if isinstance(dtype, int) else BY_NAME[dtype].tf
    return TensorProto(dtype=number, tensor_shape=TensorShapeProto(dim=dims, unknown_rank=unknown_rank), **fields)


def array(dtype, values):
    return np.array(values, BY_NAME[dtype].numpy)


def floats(*values):
    return array("float32", list(values))


# name -> (the proto, the tensor that it means or REFUSED), so for us and for TensorFlow.
CASES = {
    "all values": (tensor_proto("float32", [2, 2], float_val=[1, 2, 3, 4]), array("float32", [[1, 2], [3, 4]])),
    "one value repeats": (tensor_proto("float32", [3], float_val=[1]), floats(1, 1, 1)),
    "the last of two repeats": (tensor_proto("float32", [3], float_val=[1, 2]), floats(1, 2, 2)),
    "no values are zeros": (tensor_proto("float32", [2]), floats(0, 0)),
    "no strings are empty strings": (tensor_proto("string", [2]), array("string", [b"", b""])),
    "one string repeats": (tensor_proto("string", [2], string_val=[b"a"]), array("string", [b"a", b"a"])),
    "content": (tensor_proto("float32", [1, 2], tensor_content=floats(1, 2).tobytes()), array("float32", [[1, 2]])),
    "content too short": (tensor_proto("float32", [2], tensor_content=bytes(7)), REFUSED),
    "content too long": (tensor_proto("float32", [2], tensor_content=bytes(12)), REFUSED),
    "content wins over a typed field": (
        tensor_proto("float32", [1], tensor_content=floats(2).tobytes(), float_val=[1]),
        floats(2),
    ),
    "empty content does not win": (tensor_proto("float32", [1], tensor_content=b"", float_val=[1]), floats(1)),
    "a negative size": (tensor_proto("float32", [-1], float_val=[1]), REFUSED),
    "a negative size beside a zero": (tensor_proto("float32", [0, -1]), REFUSED),
    "dtype 0": (tensor_proto(0, [1], float_val=[1]), REFUSED),
    "a reference dtype": (tensor_proto(101, [1], float_val=[1]), REFUSED),
    "a dtype that nobody knows": (tensor_proto(99, [1], float_val=[1]), REFUSED),
    "unknown rank is a scalar": (tensor_proto("float32", unknown_rank=True, float_val=[3]), floats(3)[0]),
    "unknown rank with sizes keeps them": (tensor_proto("float32", [1], True, float_val=[3]), floats(3)),
    "a scalar": (tensor_proto("int64", int64_val=[-5]), array("int64", -5)),
    "no shape at all": (TensorProto(dtype=1, float_val=[3]), floats(3)[0]),
    "the wrong field is no value": (tensor_proto("float32", [2], int_val=[7, 8]), floats(0, 0)),
    "no elements": (tensor_proto("float32", [0, 3]), np.zeros((0, 3), np.float32)),
    "no strings wanted": (tensor_proto("string", [0]), array("string", [])),
    "uint8 255": (tensor_proto("uint8", [1], int_val=[255]), array("uint8", [255])),
    "uint8 256 wraps": (tensor_proto("uint8", [2], int_val=[256, -1]), array("uint8", [0, 255])),
    "int8 wraps": (tensor_proto("int8", [2], int_val=[128, 300]), array("int8", [-128, 44])),
    "uint16 wraps": (tensor_proto("uint16", [2], int_val=[65_536, -1]), array("uint16", [0, 65_535])),
    "half bits": (tensor_proto("float16", [2], half_val=[0x3C00, 0xC000]), array("float16", [1, -2])),
    "half bits beyond 16": (tensor_proto("float16", [1], half_val=[0x13C00]), array("float16", [1])),
    "bfloat16 bits": (tensor_proto("bfloat16", [2], half_val=[0x3F80, 0xC000]), array("bfloat16", [1, -2])),
    "float8 bits": (tensor_proto("float8_e4m3fn", [2], float8_val=b"\x38\xc0"), array("float8_e4m3fn", [1, -2])),
    "a float8 repeats": (tensor_proto("float8_e5m2", [2], float8_val=b"\x3c"), array("float8_e5m2", [1, 1])),
    "float4 bits": (tensor_proto("float4_e2m1fn", [2], float8_val=b"\x02\x04"), array("float4_e2m1fn", [1, 2])),
    "int4 wraps": (tensor_proto("int4", [3], int_val=[8, -9, 17]), array("int4", [-8, 7, 1])),
    "uint4 wraps": (tensor_proto("uint4", [2], int_val=[16, -1]), array("uint4", [0, 15])),
    "int4 content is a byte each": (tensor_proto("int4", [2], tensor_content=b"\xf8\x0f"), array("int4", [-8, -1])),
    "int2 wraps": (tensor_proto("int2", [3], int_val=[2, 3, 5]), array("int2", [-2, -1, 1])),
    "complex pairs": (tensor_proto("complex64", [1], scomplex_val=[1, 2]), array("complex64", [1 + 2j])),
    "a complex value repeats": (
        tensor_proto("complex128", [2], dcomplex_val=[1, 2]),
        array("complex128", [1 + 2j, 1 + 2j]),
    ),
    "half a complex value is none": (tensor_proto("complex64", [1], scomplex_val=[1]), array("complex64", [0])),
    "bool content": (tensor_proto("bool", [2], tensor_content=b"\x00\x01"), array("bool", [False, True])),
    "bool content that is no bool": (tensor_proto("bool", [2], tensor_content=b"\x12\x01"), REFUSED),
    "strings": (tensor_proto("string", [2], string_val=[b"", b"\xff\x00"]), array("string", [b"", b"\xff\x00"])),
    "strings in content": (
        tensor_proto("string", [2], tensor_content=b"\x01\x02abb"),
        array("string", [b"a", b"bb"]),
    ),
    "strings in content, too few bytes": (tensor_proto("string", [2], tensor_content=b"\x01\x02ab"), REFUSED),
    "strings in content, too many bytes": (tensor_proto("string", [2], tensor_content=b"\x01\x02abbx"), REFUSED),
    "strings in content, lengths broken off": (tensor_proto("string", [2], tensor_content=b"\x01\x80"), REFUSED),
    "a product beyond 64 bits": (tensor_proto("float32", [2**40, 2**40], float_val=[1]), REFUSED),
    "a product beyond memory": (tensor_proto("float32", [2**62], float_val=[1]), REFUSED),
}


def same(got, want):
    """Dtype, shape and every bit; the sign and payload of a NaN count, too."""
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return False
    bits = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}.get(got.dtype.name)
    if bits:  # the rest of such a value's byte means nothing
        return not np.any((got.view(np.uint8) ^ want.view(np.uint8)) & (2**bits - 1))
    return got.tolist() == want.tolist() if got.dtype == object else got.tobytes() == want.tobytes()


def every_dtype():
    """Edge values of every type in the table, as [2, n]."""
    for dtype in DTYPES:
        if dtype.is_string:
            values = np.array([b"", b"a", b"\xff\x00\x80", b"x" * 200], object)
        elif dtype.name == "bool":
            values = np.array([True, False])
        elif np.issubdtype(dtype.numpy, np.integer):
            info = np.iinfo(dtype.numpy)
            values = np.array([info.min, info.max, 0, 1], dtype.numpy)
        elif "int" in dtype.name:
            info = ml_dtypes.iinfo(dtype.numpy)
            values = np.array([info.min, info.max, 0, 1], np.int64).astype(dtype.numpy)
        elif "complex" in dtype.name:
            values = np.array([1.5 - 2j, complex(np.inf, -0.0)], dtype.numpy)
        elif dtype.name == "float4_e2m1fn":
            values = np.array([0.5, -6, 0, 3], np.float32).astype(dtype.numpy)
        else:
            values = np.array([1.5, -2, 0, np.nan], np.float32).astype(dtype.numpy)
        yield np.stack([values, values[::-1]])


EVERY_DTYPE = [pytest.param(tensor, id=dtype.name) for dtype, tensor in zip(DTYPES, every_dtype(), strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_a_proto_means(name):
    proto, want = CASES[name]
    if want is REFUSED:
        with pytest.raises(ScoringError, match=r"^tensor parsing error: x: ") as caught:
            decode_tensor(proto, "x")
        assert caught.value.kind is Kind.INVALID
    else:
        assert same(decode_tensor(proto, "x"), np.asarray(want))


@pytest.mark.parametrize("tensor", EVERY_DTYPE)
@pytest.mark.parametrize("as_content", [False, True])
def test_every_dtype_survives_the_round_trip(tensor, as_content):
    wire = encode_tensor(tensor, as_content=as_content)

    assert same(decode_tensor(TensorProto.FromString(wire), "x"), tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_empty_tensor_and_a_scalar_survive_the_round_trip(dtype):
    for shape in ((0, 3), ()):
        tensor = np.full(shape, b"s", object) if dtype.is_string else np.ones(shape, dtype.numpy)
        assert same(decode_tensor(TensorProto.FromString(encode_tensor(tensor)), "x"), tensor)


@pytest.mark.parametrize("tensor", EVERY_DTYPE)
def test_what_we_write_is_what_protobuf_writes_in_the_typed_field(tensor):
    wire = encode_tensor(tensor)
    proto = TensorProto.FromString(wire)

    assert proto.SerializeToString() == wire
    field = next(d.tf_field for d in DTYPES if d.numpy == tensor.dtype)
    assert {f.name for f, _ in proto.ListFields()} == {"dtype", "tensor_shape", field}


def test_a_tensor_that_lies_across_memory_is_written_in_row_order():
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T

    assert list(TensorProto.FromString(encode_tensor(tensor)).float_val) == [0, 3, 1, 4, 2, 5]


def test_more_values_than_elements_are_refused():
    proto = tensor_proto("float32", [2], float_val=[1, 2, 3])

    with pytest.raises(ScoringError, match=r"^tensor parsing error: x: float32\[2\] holds 2 values, got 3$"):
        decode_tensor(proto, "x")


@pytest.mark.parametrize("dtype", ["float32", "string"])
def test_a_huge_shape_with_one_value_is_refused_before_memory_is_taken(dtype):
    proto = tensor_proto(dtype, [2**20, 2**20], **{BY_NAME[dtype].tf_field: [b"a" if dtype == "string" else 1]})

    with pytest.raises(ScoringError, match="too large to fill up"):
        decode_tensor(proto, "x")


def test_strings_in_content_cannot_be_fewer_bytes_than_strings():
    with pytest.raises(ScoringError, match="too short for 1099511627776 strings"):
        decode_tensor(tensor_proto("string", [2**40], tensor_content=b"\x00"), "x")


def test_the_tensors_of_a_request_share_one_budget_for_filling_up():
    budget = PaddingBudget(left_bytes=100)
    decode_tensor(tensor_proto("float32", [15], float_val=[1]), "a", budget)
    decode_tensor(tensor_proto("float32", [50], tensor_content=bytes(200)), "sent in full", budget)

    with pytest.raises(ScoringError, match=r"tensor parsing error: b: .*too large to fill up"):
        decode_tensor(tensor_proto("float32", [15], float_val=[1]), "b", budget)
    assert decode_tensor(tensor_proto("float32", [10], float_val=[1]), "c", budget).shape == (10,)


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**62, 2**62]])
def test_a_shape_that_numpy_cannot_hold_is_refused(shape):
    with pytest.raises(ScoringError, match="tensor parsing error: x: "):
        decode_tensor(tensor_proto("float32", shape), "x")


def test_the_detail_says_what_was_wanted_and_what_was_got():
    with pytest.raises(ScoringError) as caught:
        decode_tensor(tensor_proto("float32", [2, 3], tensor_content=b"123"), "images")

    assert caught.value.message == (
        "tensor parsing error: images: float32[2,3] takes 24 bytes of tensor_content, got 3"
    )
    with pytest.raises(ScoringError, match="dtype DT_QINT8 is not supported"):
        decode_tensor(tensor_proto(11, [1]), "images")


def test_content_is_not_copied_once_more():
    decoded = decode_tensor(tensor_proto("float32", [2], tensor_content=bytes(8)), "x")

    assert not decoded.flags.writeable  # it lies in the bytes object


def random_protos(count):
    """Protos of any type and shape, with too few, enough or too many values, or content of about the right size."""
    rng = np.random.default_rng(20)
    for _ in range(count):
        dtype = DTYPES[rng.integers(len(DTYPES))]
        shape = rng.integers(0, 4, rng.integers(0, 4)).tolist()
        proto = tensor_proto(dtype.name, shape)
        size = int(np.prod(shape)) * dtype.numpy.itemsize
        if size and not dtype.is_string and rng.random() < 0.3:
            high = 2 if dtype.name == "bool" else 256
            proto.tensor_content = rng.integers(0, high, size + rng.choice([0, 0, 0, 1]), np.uint8).tobytes()
        else:
            bits = rng.integers(0, 2**16, rng.integers(0, 12)).tolist()
            if dtype.tf_field == "float8_val":
                proto.float8_val = bytes(bit % 256 for bit in bits)
            else:
                getattr(proto, dtype.tf_field).extend([str(bit).encode() for bit in bits] if dtype.is_string else bits)
        yield proto


@pytest.fixture(scope="module")
def tensorflow_reads():
    """Wire bytes -> what TensorFlow makes of them, for all protos of this file; one process, some seconds."""
    protos = [proto for proto, _ in CASES.values()] + list(random_protos(400))
    wires = [proto.SerializeToString() for proto in protos] + [encode_tensor(t) for t in every_dtype()]
    done = subprocess.run(
        [sys.executable, ORACLE],
        input=json.dumps([wire.hex() for wire in wires]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        timeout=300,
    )
    return dict(zip(wires, json.loads(done.stdout), strict=True))


def is_what_tensorflow_found(found, want):
    if want is REFUSED or "error" in found:
        return want is REFUSED and "error" in found
    if found["dtype"] == "string":
        values = np.array([bytes.fromhex(s) for s in found["strings"]], object)
    else:
        values = np.frombuffer(bytes.fromhex(found["bytes"]), BY_NAME[found["dtype"]].numpy)
    return same(values.reshape(found["shape"]), np.asarray(want))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", CASES)
def test_for_tensorflow_the_proto_means_the_same(tensorflow_reads, name):
    proto, want = CASES[name]

    assert is_what_tensorflow_found(tensorflow_reads[proto.SerializeToString()], want)


@pytest.mark.tensorflow
@pytest.mark.parametrize("tensor", EVERY_DTYPE)
def test_tensorflow_reads_what_we_write(tensorflow_reads, tensor):
    assert is_what_tensorflow_found(tensorflow_reads[encode_tensor(tensor)], tensor)


def without_surplus(proto):
    """A proto as TensorFlow reads it, which leaves out values beyond the shape's elements where we refuse."""
    elements = math.prod(dim.size for dim in proto.tensor_shape.dim)
    kept = TensorProto.FromString(proto.SerializeToString())
    kept.float8_val = kept.float8_val[:elements]
    for number in ("half", "float", "double", "int", "int64", "uint32", "uint64", "bool", "string"):
        del getattr(kept, f"{number}_val")[elements:]
    for name in ("scomplex_val", "dcomplex_val"):
        del getattr(kept, name)[2 * elements :]
    return kept


@pytest.mark.tensorflow
def test_random_protos_mean_the_same_for_tensorflow(tensorflow_reads):
    for proto in random_protos(400):
        try:
            want = decode_tensor(without_surplus(proto), "x")
        except ScoringError:
            want = REFUSED
        assert is_what_tensorflow_found(tensorflow_reads[proto.SerializeToString()], want), proto
