import pytest

from accelserve.backends.onnx_errors import kind_of, one_line
from accelserve.errors import Kind


class InvalidArgument(Exception):
    """Named as ONNX Runtime's own, which has no public place."""


class Fail(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidArgument("Invalid rank for input: x Got: 1 Expected: 2"), Kind.INVALID),
        (ValueError("Required inputs (['x']) are missing"), Kind.INVALID),
        (RuntimeError("Numpy_type 15 can't be converted to MLDataType."), Kind.INVALID),
        (Fail("running Reshape node. The input tensor cannot be reshaped to the requested shape"), Kind.INVALID),
        (Fail("running Add node. axis == 1 attempting to broadcast an axis by a dimension other than 1"), Kind.INVALID),
        (Fail("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"), Kind.DEVICE_MEMORY),
        (Fail("CUDA failure 2: out of memory ; GPU=0"), Kind.DEVICE_MEMORY),
        (MemoryError(), Kind.DEVICE_MEMORY),
        (Fail("CUDA failure 700: an illegal memory access was encountered"), Kind.DEVICE_LOST),
        (Fail("CUDA failure 719: unspecified launch failure"), Kind.DEVICE_LOST),
        (Fail("CUDA error 999: unknown error"), Kind.DEVICE_LOST),
        (Fail("device-side assert triggered"), Kind.DEVICE_LOST),
        (Fail("CUDA failure 1: invalid argument"), Kind.INTERNAL),
        (Fail("Non-zero status code returned while running Loop node"), Kind.INTERNAL),
    ],
)
def test_an_error_is_blamed_on_whom_it_belongs_to(error, kind):
    assert kind_of(error) is kind


def test_a_reason_is_one_readable_line():
    text = "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from m.onnx failed:Protobuf parsing failed.\n"
    assert one_line(Fail(text)) == "Protobuf parsing failed."


def test_a_long_reason_is_cut():
    assert len(one_line(Fail("x" * 10_000))) == 400
