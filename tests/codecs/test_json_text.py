"""JSON text: what is read, what is refused, how numbers are written."""

import json
import math
import re

import ml_dtypes
import numpy as np
import pytest

from accelserve.codecs.json_text import dumps, json_bytes, json_rows, json_type, json_value, parse_json, show
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import DTYPES


def refusal(body: bytes) -> str:
    with pytest.raises(ScoringError) as caught:
        parse_json(body)
    assert caught.value.kind is Kind.INVALID
    return caught.value.message


def written(tensor: np.ndarray, **options: bool) -> bytes:
    return dumps(json_value(tensor, **options))


def test_plain_json_is_read():
    assert parse_json(b'{"instances": [1, 2.5, "a", null, true]}') == {"instances": [1, 2.5, "a", None, True]}


@pytest.mark.parametrize("token", ["Infinity", "Inf"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_infinity_tokens_are_read_in_both_spellings(token: str, sign: str):
    assert parse_json(f'{{"a": [1.0, {sign}{token}]}}'.encode()) == {"a": [1.0, float(f"{sign}inf")]}


def test_a_nan_token_is_read():
    assert math.isnan(parse_json(b'{"a": NaN}')["a"])


def test_inf_within_a_string_stays_as_it_is_beside_an_inf_token():
    assert parse_json(b'{"a \\" Inf": "Inf", "b": Inf}') == {'a " Inf': "Inf", "b": math.inf}


def test_what_follows_the_document_is_ignored():
    assert parse_json('{"é": 1} trailing é'.encode()) == {"é": 1}
    assert parse_json(b' {"a": Infinity} }') == {"a": math.inf}


@pytest.mark.parametrize("body", [b"", b"  \r\n\t"])
def test_an_empty_body_is_said_to_be_empty(body: bytes):
    assert refusal(body) == "JSON Parse error: The document is empty"


def test_a_syntax_error_names_its_reason_and_its_byte_offset():
    assert re.fullmatch(r"JSON Parse error: .+ at offset: 7", refusal('{"é": x}'.encode()))
    assert re.fullmatch(r"JSON Parse error: .+ at offset: 11", refusal('{"é": NaN x}'.encode()))


@pytest.mark.parametrize(
    "body",
    [
        b"this is not json",
        b"[1,",
        b"[01]",
        b'["\xff"]',
        b'{"\xff": NaN}',
        b'["\\ud800"]',
        b'[NaN, "\\ud800"]',
        b"[1e400]",
        b"[NaN, ]",
        b"[Infinit]",
        b"-",
        b"[NaN" + b"1" * 5000 + b"]",
        b"[NaN, " + b"1" * 5000 + b"]",
        b"\x00",
        b'{"a": NaN, "' + b'\\"' * 20_000,
    ],
)
def test_what_is_not_json_is_refused(body: bytes):
    assert refusal(body).startswith("JSON Parse error: ")


@pytest.mark.parametrize("filling", [b"", b"NaN"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_and_crashes_nothing(opening: bytes, filling: bytes):
    assert refusal(opening * 100_000 + filling).startswith("JSON Parse error: ")


def test_deep_nesting_after_a_token_is_refused():
    assert "nested too deeply" in refusal(b"[NaN," + b"[" * 100_000 + b"]" * 100_000 + b"]")


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "Null"), (True, "True"), (False, "False"), ({}, "Object"), ([], "Array"), ("", "String"), (1, "Number")],
)
def test_types_have_rapidjsons_names(value: object, word: str):
    assert json_type(value) == word


def test_a_shown_value_is_cut():
    assert show([1, "a"]) == '[1,"a"]'
    assert show("x" * 1000) == '"' + "x" * 255 + "..."
    assert show(math.nan) == "NaN"
    assert show(10**30) == "Number"


def test_a_value_nested_too_deeply_to_show_is_shown_by_its_type():
    assert show(parse_json(b"[" * 1000 + b"]" * 1000)) == "Array"


@pytest.mark.parametrize(
    ("values", "dtype", "text"),
    [
        ([0.2, 3, 1435774380, 1e30], np.float32, b"[0.2,3.0,1435774300.0,1e+30]"),
        ([0.2, 1 / 3], np.float64, b"[0.2,0.3333333333333333]"),
        ([0.5, 2], np.float16, b"[0.5,2.0]"),
        ([0.5, 2], ml_dtypes.bfloat16, b"[0.5,2.0]"),
        ([0.5, 2], ml_dtypes.float8_e4m3fn, b"[0.5,2.0]"),
        ([[1, -2], [3, 4]], np.int8, b"[[1,-2],[3,4]]"),
        ([2**64 - 1], np.uint64, b"[18446744073709551615]"),
        ([-(2**63)], np.int64, b"[-9223372036854775808]"),
        ([7, 15], ml_dtypes.uint4, b"[7,15]"),
        ([-8, 7], ml_dtypes.int4, b"[-8,7]"),
        ([True, False], np.bool_, b"[true,false]"),
        (0.2, np.float32, b"0.2"),
        (0.25, np.float16, b"0.25"),
        (7, np.int16, b"7"),
        (True, np.bool_, b"true"),
        (np.zeros((2, 0)), np.float32, b"[[],[]]"),
        (np.zeros((0, 3)), np.float32, b"[]"),
    ],
)
def test_numbers_are_written_in_their_own_precision(values: object, dtype: type, text: bytes):
    tensor = np.array(values, np.float64 if dtype is np.float64 else None).astype(dtype)
    assert written(tensor) == text


def test_a_whole_number_over_24_bits_keeps_its_float32_value():
    assert np.float32(json.loads(written(np.array([1435774380], np.float32)))[0]) == np.float32(1435774336)


def test_arrays_that_are_not_contiguous_are_written():
    assert written(np.arange(6, dtype=np.float32).reshape(2, 3).T) == b"[[0.0,3.0],[1.0,4.0],[2.0,5.0]]"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_non_finite_numbers_are_bare_tokens(dtype: type):
    tensor = np.array([[1, math.nan], [math.inf, -math.inf]], dtype)
    assert written(tensor) == b"[[1.0,NaN],[Infinity,-Infinity]]"
    assert written(tensor[0, 1:2].reshape(())) == b"NaN"
    assert dumps({"rows": json_rows(tensor)}) == b'{"rows":[[1.0,NaN],[Infinity,-Infinity]]}'


def test_rows_of_a_vector_are_bare_values():
    assert dumps(json_rows(np.array([0.2, 1], np.float32))) == b"[0.2,1.0]"
    assert dumps(json_rows(np.array([math.nan, 1], np.float32))) == b"[NaN,1.0]"
    assert dumps(json_rows(np.array([True, False]))) == b"[true,false]"


def test_strings_are_text_where_they_are_utf8():
    assert written(np.array(["é".encode(), b"\xff\xd8", b""], np.object_)) == '["é",{"b64":"/9g="},""]'.encode()


def test_strings_are_base64_where_asked():
    assert written(np.array([[b"hello"]], np.object_), as_b64=True) == b'[[{"b64":"aGVsbG8="}]]'
    assert written(np.array(b"hello", np.object_), as_b64=True) == b'{"b64":"aGVsbG8="}'
    assert dumps(json_rows(np.array([b"a"], np.object_), as_b64=True)) == b'[{"b64":"YQ=="}]'


@pytest.mark.parametrize(("dtype", "word"), [(np.complex64, "complex64"), (np.complex128, "complex128")])
def test_complex_numbers_cannot_be_written(dtype: type, word: str):
    with pytest.raises(ScoringError, match=f"^Failed to write JSON value for tensor type: {word}$") as caught:
        json_value(np.zeros(1, dtype))
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("dtype", [d.numpy for d in DTYPES if not d.is_string and d.numpy.kind != "c"], ids=str)
def test_an_array_is_written_at_once_as_it_is_written_as_a_value(dtype):
    table = np.arange(6).astype(dtype).reshape(2, 3)
    for tensor in (table, table.T, table[:, 1], table[0, 0, ...], table[:0], table[:, :0]):
        assert json_bytes(tensor) == dumps(json_value(tensor))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_an_array_that_is_not_all_finite_is_written_at_once_as_it_is_written_as_a_value(odd, dtype):
    tensor = np.array([[1.5, odd], [odd, 0]], dtype)
    for part in (tensor, tensor[0], tensor[0, 1, ...], tensor.T):
        assert json_bytes(part) == dumps(json_value(part))


def test_strings_are_written_at_once_as_they_are_written_as_a_value():
    tensor = np.array([[b"null", b"\xff"]], np.object_)
    for as_b64 in (False, True):
        assert json_bytes(tensor, as_b64=as_b64) == dumps(json_value(tensor, as_b64=as_b64))
