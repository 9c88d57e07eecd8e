"""Raw HTTP bodies: sniffing, .npy, bare tensors, gzip and forms."""

import gzip
import io
import random
import struct
import zlib

import ml_dtypes
import numpy as np
import pytest

from accelserve.codecs.bodies import body_format, decode_npy, decode_octets, gunzip, single_file
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, TensorSpec

LIMIT = 2**20


def npy(array, version=None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def npy_with_header(header: str, elements: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + elements


def refusal(call, *args) -> ScoringError:
    with pytest.raises(ScoringError) as caught:
        call(*args)
    return caught.value


def outcome(call, *args):
    try:
        return "array" if isinstance(call(*args), np.ndarray) else None
    except ScoringError as error:
        return error.kind


def spec(dtype: str, shape: tuple[int, ...] | None) -> TensorSpec:
    return TensorSpec("x", BY_NAME[dtype], shape, "x:0")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\xff\xd8\xff\xe0rest", "jpeg"),
        (b"\x89PNG\r\n\x1a\nrest", "png"),
        (b"\x93NUMPY\x01\x00", "npy"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b' \r\n\t{"instances": 1}', "json"),
        (b"[1]", "json"),
        (b"\xef\xbb\xbf[1]", "json"),
        (b" " * 1000 + b"[", "json"),
        (b"", "other"),
        (b"   ", "other"),
        (b"hello", "other"),
        (b"GIF89a", "other"),
    ],
)
def test_a_body_is_known_by_its_bytes(data, found):
    assert body_format(data) == found


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_each_version_of_npy_is_read(version):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    got = decode_npy(npy(array, version), LIMIT)
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype


def test_a_plain_npy_shares_the_bodys_memory():
    data = npy(np.arange(6, dtype=np.int64))
    got = decode_npy(data, LIMIT)
    assert np.shares_memory(got, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.asfortranarray(np.arange(24, dtype=">i8").reshape(2, 3, 4)),
        np.array(3.5),
        np.zeros((0, 3), np.uint8),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
        np.array([1.5], np.float16),
    ],
)
def test_npy_arrays_come_out_in_native_byte_order_and_c_order(array):
    got = decode_npy(npy(array), LIMIT)
    np.testing.assert_array_equal(got, array)
    assert got.shape == array.shape
    assert got.dtype == array.dtype.newbyteorder("=")
    assert got.flags.c_contiguous


def test_a_misaligned_npy_is_copied_to_aligned_memory():
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"
    got = decode_npy(npy_with_header(header + " " * (len(header) % 2), struct.pack("<2d", 1, 2)), LIMIT)
    assert got.flags.aligned
    assert got.tolist() == [1, 2]


def test_npy_bools_are_zero_or_one_whatever_the_bytes():
    data = npy(np.array([True, False, True]))[:-3] + b"\x02\x00\xff"
    assert decode_npy(data, LIMIT).view(np.uint8).tolist() == [1, 0, 1]


def test_object_arrays_are_refused_without_unpickling():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}]), allow_pickle=True)
    error = refusal(decode_npy, file.getvalue(), LIMIT)
    assert error.kind is Kind.INVALID
    assert "'|O'" in error.message


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([b"a"]), np.zeros(1, "M8[s]"), np.zeros(1, "i4,f4"), np.zeros(1, np.longdouble)],
)
def test_types_that_no_model_has_are_refused(array):
    assert refusal(decode_npy, npy(array), LIMIT).kind is Kind.INVALID


def test_bfloat16_that_numpy_cannot_name_is_refused():
    assert refusal(decode_npy, npy(np.zeros(2, ml_dtypes.bfloat16).view("V2")), LIMIT).kind is Kind.INVALID


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0"])
def test_an_npy_whose_size_disagrees_with_its_shape_is_refused(change):
    error = refusal(decode_npy, change(npy(np.zeros((2, 3), np.float32))), LIMIT)
    assert error.kind is Kind.INVALID
    assert "float32[2, 3] takes 24 bytes" in error.message


def test_an_npy_over_the_limit_is_too_large_before_anything_is_made():
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000)}"
    assert refusal(decode_npy, npy_with_header(header), LIMIT).kind is Kind.TOO_LARGE


@pytest.mark.parametrize("shape", ["(0, 99999999999999999999)", "(0, 2147483647, 2147483647, 2147483647)"])
def test_an_npy_without_elements_cannot_claim_a_giant_shape(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
    assert refusal(decode_npy, npy_with_header(header), LIMIT).kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "[]",
        "not python",
        "(" * 5000,
        "-" * 9000 + "1",
        "9" * 9000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': [2]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 40 + ")}",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ['<f4'], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
    ],
)
def test_a_strange_npy_header_is_refused(header):
    assert refusal(decode_npy, npy_with_header(header, b"\0" * 4), LIMIT).kind is Kind.INVALID


def test_an_endless_npy_header_is_refused():
    data = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" * 20_000
    assert refusal(decode_npy, data, LIMIT).kind is Kind.INVALID


def test_every_cut_of_an_npy_is_refused():
    data = npy(np.arange(4, dtype=np.float32))
    for length in range(len(data)):
        assert refusal(decode_npy, data[:length], LIMIT).kind is Kind.INVALID


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")  # from parsing damaged headers
def test_a_damaged_npy_is_an_array_or_a_refusal():
    chance, whole = random.Random(1), npy(np.arange(12, dtype=np.int32).reshape(3, 4))
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert outcome(decode_npy, bytes(data), LIMIT) in ("array", Kind.INVALID, Kind.TOO_LARGE)


def test_octets_fill_the_batch_axis_without_a_copy():
    rows = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    data = rows.tobytes()
    got = decode_octets(data, spec("float32", (-1, 3, 4)))
    np.testing.assert_array_equal(got, rows)
    assert np.shares_memory(got, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "got_shape"),
    [
        ("uint8", (2, 3), 6, (2, 3)),
        ("float64", (), 8, ()),
        ("int16", (-1,), 10, (5,)),
        ("bfloat16", (-1, 2), 8, (2, 2)),
    ],
)
def test_octets_take_the_specs_shape(dtype, shape, size, got_shape):
    got = decode_octets(bytes(size), spec(dtype, shape))
    assert got.shape == got_shape
    assert got.dtype == BY_NAME[dtype].numpy


def test_octets_as_bools_are_zero_or_one():
    assert decode_octets(b"\x00\x02", spec("bool", (-1,))).view(np.uint8).tolist() == [0, 1]


def test_octets_that_do_not_fit_are_refused_in_numbers():
    error = refusal(decode_octets, bytes(602113), spec("float32", (-1, 3, 224, 224)))
    assert error.kind is Kind.INVALID
    assert error.message == '"x": want a multiple of 602112 bytes (float32[-1,3,224,224]), got 602113'


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("float32", (-1, 3), 0),
        ("float32", (2, 3), 48),
        ("float32", (-1, 0), 4),
        ("float32", (-1, -1), 8),
        ("float32", (1, -1), 8),
        ("float32", None, 8),
        ("string", (-1,), 8),
        ("int4", (-1,), 8),
    ],
)
def test_octets_that_no_shape_can_be_found_for_are_refused(dtype, shape, size):
    assert refusal(decode_octets, bytes(size), spec(dtype, shape)).kind is Kind.INVALID


def test_gzip_is_unpacked():
    data = random.Random(2).randbytes(300_000)
    assert gunzip(gzip.compress(data), len(data)) == data


def test_gzip_of_several_members_and_padding_is_one_body():
    data = b"".join(gzip.compress(bytes([n]) * 70_000) for n in range(5)) + bytes(100)
    assert gunzip(data, LIMIT) == b"".join(bytes([n]) * 70_000 for n in range(5))


def test_empty_gzip_is_an_empty_body():
    assert gunzip(gzip.compress(b""), 0) == b""


def test_gzip_over_the_limit_is_too_large():
    bomb = gzip.compress(bytes(50 * LIMIT))
    error = refusal(gunzip, bomb, LIMIT)
    assert error.kind is Kind.TOO_LARGE
    assert refusal(gunzip, gzip.compress(bytes(10)) * 2, 19).kind is Kind.TOO_LARGE
    assert len(gunzip(gzip.compress(bytes(10)) * 2, 20)) == 20


def test_every_cut_of_a_gzip_body_is_refused():
    data = gzip.compress(b"some text " * 20)
    for length in range(len(data)):
        assert refusal(gunzip, data[:length], LIMIT).kind is Kind.INVALID


@pytest.mark.parametrize("data", [b"no gzip", zlib.compress(b"x"), gzip.compress(b"x", mtime=0) + b"tail"])
def test_what_is_not_gzip_is_refused(data):
    assert refusal(gunzip, data, LIMIT).kind is Kind.INVALID


def test_a_wrong_gzip_checksum_is_refused():
    data = bytearray(gzip.compress(b"some text"))
    data[-8] ^= 1
    assert refusal(gunzip, bytes(data), LIMIT).kind is Kind.INVALID


def test_thousands_of_empty_gzip_members_are_refused():
    assert refusal(gunzip, gzip.compress(b"") * 5000, LIMIT).kind is Kind.INVALID


FORM = "multipart/form-data; boundary=abc"


def form(*parts: tuple[str, bytes], boundary: str = "abc") -> bytes:
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\nContent-Type: x/y\r\n\r\n%s\r\n"
        % (boundary.encode(), disposition.encode(), content)
        for disposition, content in parts
    )
    return body + b"--%s--\r\n" % boundary.encode()


FILE = 'name="image"; filename="a.jpg"'


@pytest.mark.parametrize("content", [b"", b"pixels", b"\r\n", b"\r\n--ab\r\n\r\n", bytes(range(256)) * 300])
def test_the_file_of_a_form_is_found(content):
    assert single_file(form((FILE, content)), FORM) == content


@pytest.mark.parametrize(
    "content_type",
    ['multipart/form-data; charset=utf-8; boundary="a b:c"', 'Multipart/Form-Data;BOUNDARY="a b:c"; x=y'],
)
def test_a_quoted_boundary_is_read(content_type):
    assert single_file(form((FILE, b"x"), boundary="a b:c"), content_type) == b"x"


def test_fields_that_are_no_files_are_passed_over():
    assert single_file(form(('name="note"', b"filename=1"), (FILE, b"x"), ('name="n"', b"")), FORM) == b"x"


def test_preamble_epilogue_and_padding_are_allowed():
    body = b"hello\r\n" + form((FILE, b"x")).replace(b"--abc\r\n", b"--abc \t\r\n") + b"more"
    assert single_file(body, FORM) == b"x"


def test_a_form_made_by_a_client_library_is_read():
    headers = b"content-disposition: form-data; name=\"f\"; filename*=utf-8''%C3%A9.jpg\r\n\r\n"
    body = b"--59b3\r\n" + headers + b"\xff\xd8\r\n--59b3--\r\n"
    assert single_file(body, "multipart/form-data; boundary=59b3") == b"\xff\xd8"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form((FILE, b"x"), (FILE, b"y")), "got 2 files"),
        (form(('name="a"', b"x")), "got 0 files"),
        (form(), "got 0 files"),
    ],
)
def test_several_files_or_none_are_refused_by_number(body, said):
    error = refusal(single_file, body, FORM)
    assert error.kind is Kind.INVALID
    assert said in error.message


def test_a_form_without_boundary_is_refused():
    assert "boundary" in refusal(single_file, form((FILE, b"x")), "multipart/form-data").message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"pixels",
        b"--abc",
        b"--abcd\r\n\r\nx\r\n--abc--",
        form(*[('name="a"', b"x")] * 100),
        b"--abc\r\nContent-Disposition: form-data; " + b"x" * 10_000 + b"\r\n\r\nx\r\n--abc--",
        form((FILE, b"a\r\n--abcd\r\nb")),
    ],
)
def test_a_broken_form_is_refused(body):
    assert refusal(single_file, body, FORM).kind is Kind.INVALID


def test_every_cut_of_a_form_is_refused():
    body = form((FILE, b"some content"))
    for length in range(len(body) - len(b"--\r\n")):
        assert refusal(single_file, body[:length], FORM).kind is Kind.INVALID
