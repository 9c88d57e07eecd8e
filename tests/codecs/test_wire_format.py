import numpy as np
import pytest

from accelserve.codecs.wire_format import field, field_head, memory_of, packed_varints, varint


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (-1, "ffffffffffffffffff01"),
        (2**64 - 1, "ffffffffffffffffff01"),
    ],
)
def test_a_varint_is_written_low_septet_first(value, wire):
    assert varint(value).hex() == wire


def test_a_field_is_tag_length_payload():
    assert field(5, b"ab").hex() == "2a026162"
    assert field_head(18, 300).hex() == "9201ac02"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("times", [1, 9], ids=["few", "many"])
def test_packed_integers_are_the_same_as_one_by_one(dtype, times):
    info = np.iinfo(dtype)
    edges = [info.min, info.max, 0, 1, 127, min(128, info.max), min(16_383, info.max), min(16_384, info.max)] * times
    values = np.array(edges, dtype)

    assert packed_varints(values) == b"".join(varint(int(v)) for v in edges)


def test_packing_goes_on_over_many_blocks():
    values = np.arange(200_000, dtype=np.int64) - 3

    assert packed_varints(values) == b"".join(map(varint, values.tolist()))


def test_no_integers_are_no_bytes():
    assert packed_varints(np.zeros((0, 4), np.int32)) == b""


def test_memory_is_in_row_order_whatever_the_strides():
    turned = np.arange(6, dtype=np.int16).reshape(2, 3).T

    assert bytes(memory_of(turned)) == np.array([0, 3, 1, 4, 2, 5], np.int16).tobytes()
    assert len(memory_of(turned)) == 12
