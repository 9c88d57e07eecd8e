"""Nested JSON lists to tensors: the quick way and the walk agree, and neither lets a wrong type pass."""

import math

import numpy as np
import pytest

from accelserve.codecs.json_tensors import is_b64, quick_tensor, tensor_of, walk
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, DTYPES, Tensor

FLOATS = [d for d in DTYPES if "float" in d.name]
INTEGERS = [d for d in DTYPES if "int" in d.name]


def convert(value: object, dtype: str, has_bools: bool = True) -> Tensor:
    return tensor_of(value, BY_NAME[dtype], has_bools=has_bools)


def refusal(value: object, dtype: str, kind: Kind = Kind.INVALID) -> str:
    with pytest.raises(ScoringError) as caught:
        convert(value, dtype)
    assert caught.value.kind is kind
    return caught.value.message


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
@pytest.mark.parametrize("value", [[0, 1], [[1], [0], [1]], [[[1, 0]]], [], [[], []]], ids=str)
def test_the_quick_way_and_the_walk_agree_for_numbers(dtype, value):
    quick = quick_tensor(value, dtype, has_bools=False)
    walked = walk(value, dtype)
    assert quick is not None
    assert quick.dtype == walked.dtype == dtype.numpy
    assert quick.shape == walked.shape == np.array(value).shape
    assert quick.tobytes() == walked.tobytes() == np.array(value).astype(dtype.numpy).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_empty_list_is_an_empty_tensor_of_any_dtype(dtype):
    tensor = tensor_of([[], []], dtype, has_bools=False)
    assert (tensor.shape, tensor.dtype) == ((2, 0), dtype.numpy)


def test_a_bare_value_has_rank_0():
    assert convert(2, "float32").shape == ()
    assert convert(True, "bool").item() is True
    assert convert("a", "string").item() == b"a"


def test_integers_are_fine_for_floats_but_not_the_other_way():
    assert convert([1, 2.5], "float32").tolist() == [1.0, 2.5]
    assert refusal([1, 2.0], "int32") == "JSON Value: 2.0 Type: Number is not of expected type: int32"


@pytest.mark.parametrize("dtype", [d.name for d in (*FLOATS, *INTEGERS)])
@pytest.mark.parametrize("value", ["1", None, True, False, {"b64": "YQ=="}], ids=str)
@pytest.mark.parametrize("shape", ["[{}, 0]", "[[0, {}]]", "{}"])
def test_only_numbers_are_numbers(dtype: str, value: object, shape: str):
    nested = {"[{}, 0]": [value, 0], "[[0, {}]]": [[0, value]], "{}": value}[shape]
    assert " is not of expected type: " in refusal(nested, dtype)


@pytest.mark.parametrize("value", [1, 0, 1.0, "true", None])
def test_only_true_and_false_are_bools(value: object):
    assert refusal([True, value], "bool").endswith("is not of expected type: bool")
    assert convert([[True], [False]], "bool").tolist() == [[True], [False]]


@pytest.mark.parametrize("value", [1, 1.5, True, None])
def test_only_strings_are_strings(value: object):
    assert refusal(["a", value], "string").endswith("is not of expected type: string")


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_out_of_range_are_refused(dtype):
    bits = int(dtype.name.lstrip("uint"))
    least, most = (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert convert([least, most], dtype.name).tolist() == [least, most]
    for beyond in (least - 1, most + 1):
        assert refusal([0, beyond], dtype.name).endswith(f"Type: Number is not of expected type: {dtype.name}")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_numbers_too_large_for_a_float_are_infinite(dtype: str):
    largest = 10**400 if dtype == "float64" else 1e300
    assert convert([largest, -largest, 1e-300 / 1e300], dtype).tolist() == [math.inf, -math.inf, 0.0]


def test_non_finite_numbers_pass():
    assert str(convert([math.nan, math.inf], "float16").tolist()) == "[nan, inf]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 2], [3]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([1, [1]], "Encountered list at unexpected level: 1 expected < 1"),
        ([[1], 1], "JSON Value: 1 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ([[1, 2], "ab"], 'JSON Value: "ab" found at incorrect level: 2 in the JSON DOM. Expected at level: 2'),
        ([[1], {"1": 1}], 'JSON Value: {"1":1} found at incorrect level: 2 in the JSON DOM. Expected at level: 2'),
        ([[[]], []], "Encountered list at unexpected size: 0 at level: 1 expected size: 1"),
    ],
    ids=str,
)
def test_ragged_lists_are_refused(value: object, message: str):
    assert refusal(value, "float32") == message


@pytest.mark.parametrize(
    ("value", "dtype"), [([[True, True], [True]], "bool"), ([["a"], ["b", "c"]], "string"), ([["ab"], "c"], "string")]
)
def test_ragged_lists_of_bools_and_strings_are_refused(value: object, dtype: str):
    assert "level: " in refusal(value, dtype)


@pytest.mark.parametrize("dtype", ["float32", "string", "bool"])
def test_lists_nested_deeper_than_a_tensor_can_be_are_refused(dtype: str):
    value: object = 1.0
    for _ in range(1000):
        value = [value]
    assert refusal(value, dtype).endswith("is nested deeper than 64 lists")


def test_the_shown_value_is_tf_servings_word_for_the_type():
    assert refusal([None], "float32") == "JSON Value: null Type: Null is not of expected type: float"
    assert refusal(["a"], "float64") == 'JSON Value: "a" Type: String is not of expected type: double'
    assert refusal([True], "float16") == "JSON Value: true Type: True is not of expected type: half"
    assert refusal([{}], "int8") == "JSON Value: {} Type: Object is not of expected type: int8"


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_unsupported(dtype: str):
    assert refusal([1.5], dtype, Kind.UNSUPPORTED) == f"Conversion of JSON Value: 1.5 to type: {dtype}"


def test_strings_are_text_or_base64():
    tensor = convert([["é", {"b64": "/9g="}], ["", {"b64": "AGEA"}]], "string")
    assert tensor.dtype == np.object_
    assert tensor.tolist() == [["é".encode(), b"\xff\xd8"], [b"", b"\x00a\x00"]]


@pytest.mark.parametrize("text", ["aGVsbG8=", "aGVsbG8", "aGVs bG8=\n", "aGVsbG8=="])
def test_base64_padding_and_white_space_are_forgiven(text: str):
    assert convert({"b64": text}, "string").item() == b"hello"


@pytest.mark.parametrize("text", ["a", "****", "aGVsbG8=x", "ä", "aa-_"])
def test_bad_base64_is_refused(text: str):
    assert refusal([{"b64": text}], "string") == "Unable to base64 decode"


@pytest.mark.parametrize("value", [{}, {"b64": 1}, {"b64": "YQ==", "x": 1}, {"x": "a"}], ids=str)
def test_other_objects_are_no_base64(value: object):
    assert not is_b64(value)
    assert refusal([value], "string").endswith(" not formatted correctly for base64 data")


def test_a_string_never_swells_a_list_of_numbers():
    # numpy would make every element as wide as the widest string: 100 000 x 4 MB here.
    assert "is not of expected type: float" in refusal([1.0] * 100_000 + ["x" * 1_000_000], "float32")


def test_the_tensor_can_be_written_and_is_contiguous():
    tensor = convert([[[1.5, 2.5]], [[3.5, 4.5]]], "float32", has_bools=False)
    assert tensor.flags.writeable
    assert tensor.flags.c_contiguous
