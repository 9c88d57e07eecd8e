"""TF Serving's REST bodies; R numbers are the cases of specs/tfserving.md 7.3."""

import json
import math
import re

import numpy as np
import pytest
from predict_bodies import parse_predict

from accelserve.codecs.tfserving_json import (
    bind_predict,
    encode_error,
    encode_metadata,
    encode_predict,
    encode_status,
    read_predict,
)
from accelserve.errors import Kind, ScoringError
from accelserve.messages import VersionStatus
from accelserve.tensors import BY_NAME, Signature, Tensor, TensorSpec


def signature(name: str = "serving_default", **inputs: str) -> Signature:
    """A signature with inputs of the named dtypes, whose tensors are called like them with "_in:0" added."""
    specs = {key: TensorSpec(key, BY_NAME[dtype], (-1,), f"{key}_in:0") for key, dtype in inputs.items()}
    return Signature(name, specs, {"y": TensorSpec("y", BY_NAME["float32"], (-1, 1), "y:0")})


ONE = signature(x="float32")
TWO = signature(a="float32", b="int32")
TEXT = signature(s="string")


def bind(body: str | bytes, known: Signature = ONE) -> dict[str, Tensor]:
    return read_predict(body.encode() if isinstance(body, str) else body, lambda _: known)[1]


def lists(body: str, known: Signature = ONE) -> dict[str, object]:
    return {name: tensor.tolist() for name, tensor in bind(body, known).items()}


def refusal(body: str, known: Signature = ONE, kind: Kind = Kind.INVALID) -> str:
    with pytest.raises(ScoringError) as caught:
        bind(body, known)
    assert caught.value.kind is kind
    return caught.value.message


def parse_refusal(body: str) -> str:
    with pytest.raises(ScoringError) as caught:
        parse_predict(body.encode())
    assert caught.value.kind is Kind.INVALID
    return caught.value.message


# --- the body


def test_r11_an_empty_body_is_refused_before_the_model_is_looked_up():
    assert parse_refusal("") == "JSON Parse error: The document is empty"


def test_r11_text_that_is_not_json_is_refused_with_its_offset():
    assert re.fullmatch(r"JSON Parse error: .+ at offset: 0", parse_refusal("this is not json"))
    assert re.fullmatch(r"JSON Parse error: .+ at offset: 4", parse_refusal("[1, this]"))


@pytest.mark.parametrize(("body", "shown"), [("[1]", "[1]"), ("5", "5"), ('"a"', '"a"'), ("null", "null")])
def test_r11_a_body_that_is_no_object_is_refused(body: str, shown: str):
    assert parse_refusal(body) == f"JSON Value: {shown} Is not object"


def test_r11_a_signature_name_that_is_no_string_is_refused_before_the_model_is_looked_up():
    assert parse_refusal('{"signature_name": 5}') == (
        """JSON Value: {"signature_name":5} not formatted correctly. 'signature_name' key must be a string value."""
    )


def test_the_signature_name_is_read_and_other_keys_are_ignored():
    assert parse_predict(b'{"signature_name": "s", "instances": [1], "more": {}}').signature == "s"
    assert parse_predict(b'{"instances": [1]}').signature == ""


def test_an_output_filter_may_be_given():
    assert parse_predict(b'{"inputs": 1, "output_filter": ["y", "z"]}').output_filter == ("y", "z")
    assert parse_predict(b'{"inputs": 1}').output_filter == ()


@pytest.mark.parametrize("names", ['"y"', "[1]", "null", "{}"])
def test_an_output_filter_is_a_list_of_strings(names: str):
    message = parse_refusal(f'{{"inputs": 1, "output_filter": {names}}}')
    assert message.endswith("not formatted correctly. 'output_filter' key must be a list of strings.")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "Missing 'inputs' or 'instances' key"),
        (
            '{"instances":[1],"inputs":1}',
            'JSON Value: {"instances":[1],"inputs":1} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist ",
        ),
        ('{"instances":[]}', """JSON Value: {"instances":[]} No values in 'instances' array"""),
        ('{"instances":1}', """JSON Value: {"instances":1} Expecting 'instances' to be an list/array"""),
        ('{"instances":null}', """JSON Value: {"instances":null} Expecting 'instances' to be an list/array"""),
    ],
)
def test_r11_a_faulty_payload_is_refused_after_the_model_was_looked_up(body: str, message: str):
    assert parse_predict(body.encode()).values is None
    assert refusal(body) == message


def test_what_follows_the_object_is_ignored():
    assert lists('{"instances": [1]} and more') == {"x": [1.0]}


# --- both steps in one


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1.0, 2.0], [3.0, 4.0]]}',
        b'{"instances": [[1.0, 1e39]]}',
        b'{"instances": [true]}',
        b'{"instances": [[1], [2, 3]]}',
        b'{"instances": []}',
        b'{"instances": {}}',
        b'{"instances": [1], "inputs": 1}',
        b'{"signature_name": "other", "output_filter": ["y"], "inputs": {"x": [1, 2]}}',
        b"{}",
        b"[]",
        b"nonsense",
    ],
)
@pytest.mark.parametrize("known", [ONE, TWO, signature()], ids=["one", "two", "none"])
def test_reading_at_once_is_parsing_and_binding(body: bytes, known: Signature):
    def at_once() -> object:
        signature, inputs, wanted, row_format = read_predict(body, lambda name: Signature(name, known.inputs, {}))
        return signature.name, {name: tensor.tobytes() for name, tensor in inputs.items()}, wanted, row_format

    def in_steps() -> object:
        parsed = parse_predict(body)
        inputs = bind_predict(parsed, Signature(parsed.signature, known.inputs, {}))
        tensors = {name: tensor.tobytes() for name, tensor in inputs.items()}
        return parsed.signature, tensors, parsed.output_filter, parsed.row_format

    def outcome(read) -> object:
        try:
            return read()
        except ScoringError as error:
            return error.kind, error.message

    assert outcome(at_once) == outcome(in_steps)


def test_a_body_is_refused_before_its_signature_is_looked_up_and_its_values_after():
    def unknown(name: str) -> Signature:
        raise ScoringError(Kind.NOT_FOUND, f"no {name!r}")

    for body, kind in ((b"[]", Kind.INVALID), (b'{"instances": []}', Kind.NOT_FOUND), (b"{}", Kind.NOT_FOUND)):
        with pytest.raises(ScoringError) as caught:
            read_predict(body, unknown)
        assert caught.value.kind is kind


# --- pictures for a model of pixels, as strings over gRPC: ours, where TF Serving has {"b64"} for strings only

PIXELS = signature(image="uint8")
PICTURE = '{"b64": "/9g="}'


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        (f'{{"instances": [{PICTURE}, {PICTURE}]}}', "image", [b"\xff\xd8"] * 2),
        (f'{{"instances": [{{"image": {PICTURE}}}]}}', "image", [b"\xff\xd8"]),
        (f'{{"instances": [{{"image_in:0": {PICTURE}}}]}}', "image_in:0", [b"\xff\xd8"]),
        (f'{{"inputs": {PICTURE}}}', "image", b"\xff\xd8"),
        (f'{{"inputs": [{PICTURE}], "output_filter": ["y"]}}', "image", [b"\xff\xd8"]),
        (f'{{"inputs": {{"other": 1, "image": [{PICTURE}]}}}}', "image", [b"\xff\xd8"]),
        (f'{{"instances": [[{PICTURE}]]}}', "image", [[b"\xff\xd8"]]),
    ],
)
def test_encoded_pictures_become_strings_where_they_are_decoded(body: str, name: str, value: object):
    _, inputs, _, _ = read_predict(body.encode(), lambda _: PIXELS, {"serving_default"})
    assert {name: tensor.tolist() for name, tensor in inputs.items()} == {name: value}
    assert inputs[name].dtype == np.object_
    with pytest.raises(ScoringError):
        read_predict(body.encode(), lambda _: PIXELS, {"another"})


@pytest.mark.parametrize("values", ["[[1, 2]]", '[{"image": [1, 2]}]', "[]", '[{"other": 1}]', "[true]", '["/9g="]'])
def test_what_does_not_begin_with_an_encoded_picture_is_read_as_ever(values: str):
    def outcome(pictures: tuple[str, ...]) -> object:
        try:
            return read_predict(body, lambda _: PIXELS, pictures)[1]["image"].tolist()
        except ScoringError as error:
            return error.kind, error.message

    for key in ("instances", "inputs"):
        body = f'{{"{key}": {values}}}'.encode()
        assert outcome(("serving_default",)) == outcome(())


@pytest.mark.parametrize(
    ("values", "told"), [(f"[{PICTURE}, 1]", "Type: Number"), ('[{"b64": "?"}]', "Unable to base64 decode")]
)
def test_the_first_value_decides_what_the_others_have_to_be(values: str, told: str):
    with pytest.raises(ScoringError, match=re.escape(told)):
        read_predict(f'{{"instances": {values}}}'.encode(), lambda _: PIXELS, {"serving_default"})


# --- one input


def test_r1_instances_are_rows():
    body = parse_predict(b'{"instances": [2.0, 3.0, 4.0]}')
    assert body.row_format
    x = bind_predict(body, ONE)["x"]
    assert x.dtype == np.float32
    assert x.tolist() == [2.0, 3.0, 4.0]


def test_r2_inputs_are_a_column():
    body = parse_predict(b'{"inputs": [2.0, 3.0, 4.0]}')
    assert not body.row_format
    assert bind_predict(body, ONE)["x"].tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ('{"instances": [{"x": 2.0}]}', [2.0]),
        ('{"inputs": {"x": [2.0]}}', [2.0]),
        ('{"inputs": 2.0}', 2.0),
        ('{"instances": [[2.0], [3.0]]}', [[2.0], [3.0]]),
        ('{"instances": [{"x": [2.0, 1]}, {"x": [3.0, 1]}]}', [[2.0, 1.0], [3.0, 1.0]]),
        ('{"inputs": {"x": 2.0, "not an input": "ignored"}}', 2.0),
    ],
)
def test_r3_the_forms_of_one_input(body: str, value: object):
    assert lists(body) == {"x": value}


@pytest.mark.parametrize("name", ["x", "x_in:0", "x_in"])
def test_tensor_names_are_names_too_and_come_back(name: str):
    assert lists(f'{{"inputs": {{"{name}": [2.0]}}}}') == {name: [2.0]}
    assert lists(f'{{"instances": [{{"{name}": 2.0}}]}}') == {name: [2.0]}


@pytest.mark.parametrize("body", ['{"inputs": {"x": 1, "x_in": 2}}', '{"instances": [{"x": 1, "x_in": 2}]}'])
def test_an_input_given_under_two_names_is_refused(body: str):
    assert refusal(body) == "Input x is given twice: x, x_in"


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ('["a"]', 'element: 0 of {} JSON Value: "a" Type: String is not of expected type: float'),
        ("[[1, 2], [3]]", "element: 1 of {} Expecting tensor size: 2 but got: 1"),
        ("[[[1], [2]], [[1, 2]]]", "element: 1 of {} Expecting shape [2,1] but got: [1,2]"),
        ("[1, [1]]", "element: 1 of {} Expecting shape [] but got: [1]"),
        ("[null]", "element: 0 of {} JSON Value: null Type: Null is not of expected type: float"),
        ("[0, true]", "element: 1 of {} JSON Value: true Type: True is not of expected type: float"),
        ("[[[1, 2], [3]]]", "element: 0 of {} Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (
            '[{"b64": "YQ=="}]',
            'element: 0 of {} JSON Value: {{"b64":"YQ=="}} Type: Object is not of expected type: float',
        ),
        (
            '[{"x": 1}, {"x": "a"}]',
            'element: 1 key: x of {} JSON Value: "a" Type: String is not of expected type: float',
        ),
        ('[{"x": 1}, {"x": [1, 2]}]', "element: 1 key: x of {} Expecting tensor size: 1 but got: 2"),
        ('[{"z": 1}]', "element: 0 key: z of {} JSON object: does not have named input: z"),
    ],
)
def test_r12_a_faulty_row_is_named(rows: str, error: str):
    known = error.format("'instances' list. Error: INVALID_ARGUMENT:")
    assert refusal(f'{{"instances": {rows}}}') == f"Failed to process {known}"


def test_rows_of_two_kinds_are_refused():
    named_first = refusal('{"instances": [{"x": 1}, 2]}')
    assert named_first == "Expecting object but got list at item 1 of input list"
    bare_first = refusal('{"instances": [1, {"x": 1}]}')
    assert bare_first == "Expecting value/list but got object at item 1 of input list"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("[[1, 2], [3]]", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ("[1, [1]]", "Encountered list at unexpected level: 1 expected < 1"),
        ("[[1], 1]", "JSON Value: 1 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ("[1, false]", "JSON Value: false Type: False is not of expected type: float"),
        ('{"z": 1}', "Missing named input: x in 'inputs' object."),
        ("{}", "Missing named input: x in 'inputs' object."),
        ("null", "JSON Value: null Type: Null is not of expected type: float"),
    ],
)
def test_a_faulty_column_is_refused(inputs: str, message: str):
    assert refusal(f'{{"inputs": {inputs}}}') == message


@pytest.mark.parametrize("word", ["true", "false"])
def test_a_bool_hidden_in_many_numbers_is_found(word: str):
    numbers = ", ".join(["0.5"] * 1000)
    for rows in (f"[{numbers}, {word}, {numbers}]", f"[{numbers}, 1], [{numbers}, {word}]"):
        assert f"JSON Value: {word} Type: " in refusal(f'{{"instances": [{rows}]}}')
        assert f"JSON Value: {word} Type: " in refusal(f'{{"inputs": {{"x": [{rows}]}}}}')


def test_names_that_spell_true_only_cost_time():
    assert lists('{"inputs": {"true": [1, 2]}}', signature(true="float32")) == {"true": [1.0, 2.0]}


def test_non_finite_numbers_are_read():
    (x,) = bind('{"instances": [NaN, Infinity, -Infinity, Inf, 1e39]}').values()
    assert str(x.tolist()) == "[nan, inf, -inf, inf, inf]"


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64", "float64", "float16", "bfloat16", "uint16"])
def test_r20_the_dtype_of_the_signature_is_kept(dtype: str):
    (x,) = bind('{"instances": [1, 2]}', signature(x=dtype)).values()
    assert x.dtype == BY_NAME[dtype].numpy
    assert x.tolist() == [1, 2]


def test_r20_bools_are_read():
    (x,) = bind('{"instances": [[true, false]]}', signature(x="bool")).values()
    assert x.dtype == np.bool_
    assert x.tolist() == [[True, False]]


@pytest.mark.parametrize("value", ["2.0", "2147483648", "true", '"2"', "99999999999999999999"])
def test_r20_only_integers_in_range_are_int32(value: str):
    assert " is not of expected type: int32" in refusal(f'{{"instances": [1, {value}]}}', signature(x="int32"))


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 256), ("uint8", -1), ("int8", 128), ("uint16", 65536)])
def test_small_integers_never_wrap(dtype: str, value: int):
    assert f"is not of expected type: {dtype}" in refusal(f'{{"inputs": [{value}]}}', signature(x=dtype))


def test_r17_a_large_integer_is_rounded_to_float32():
    assert bind('{"inputs": 1435774380}')["x"] == np.float32(1435774336)


@pytest.mark.parametrize("form", ['{"inputs": [1]}', '{"instances": [1]}', '{"instances": [{"x": 1}]}'])
def test_complex_inputs_are_unsupported(form: str):
    message = refusal(form, signature(x="complex64"), Kind.UNSUPPORTED)
    assert message.endswith("Conversion of JSON Value: 1 to type: complex64")


# --- strings


def test_r14_base64_gives_bytes():
    assert lists('{"instances": [{"b64": "aGVsbG8="}, "é"]}', TEXT) == {"s": [b"hello", "é".encode()]}
    assert lists('{"instances": [{"s": {"b64": "aGVsbG8="}}]}', TEXT) == {"s": [b"hello"]}
    assert lists('{"inputs": {"b64": "aGVsbG8"}}', TEXT) == {"s": b"hello"}
    assert lists('{"inputs": {"s": [{"b64": "aGVsbG8"}]}}', TEXT) == {"s": [b"hello"]}


def test_bad_base64_is_refused():
    error = "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Unable to base64 decode"
    assert refusal('{"instances": [{"b64": "a"}]}', TEXT) == error
    assert refusal('{"inputs": {"s": {"b64": "a"}}}', TEXT) == "Unable to base64 decode"
    assert refusal('{"inputs": [{"b64": 1}]}', TEXT) == (
        'JSON Value: {"b64":1} not formatted correctly for base64 data'
    )


# --- several inputs


def test_r18_several_inputs_in_row_format():
    found = bind('{"instances": [{"a": [1.5, 2], "b": 1}, {"b": 2, "a": [3, 4]}]}', TWO)
    assert found["a"].tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert (found["b"].tolist(), found["b"].dtype) == ([1, 2], np.int32)


def test_r18_several_inputs_in_column_format_may_differ_in_rows():
    assert lists('{"inputs": {"a": [1.5, 2], "b_in:0": 7}}', TWO) == {"a": [1.5, 2.0], "b_in:0": 7}


def test_numbers_beside_a_string_input_are_read():
    both = signature(image="string", size="float32")
    body = '{"instances": [{"image": {"b64": "YQ=="}, "size": [1, 2]}]}'
    assert lists(body, both) == {"image": [b"a"], "size": [[1.0, 2.0]]}


@pytest.mark.parametrize("rows", ["[1, 2]", '[{"b64": "YQ=="}]'])
def test_several_inputs_need_names(rows: str):
    expected = "as multiple input tensors required as per tensorinfo_map"
    assert refusal(f'{{"instances": {rows}}}', TWO) == (
        f"instances is a plain list, but expecting list of objects {expected}"
    )
    assert refusal(f'{{"inputs": {rows}}}', TWO) == (
        f"inputs is a plain value/list, but expecting an object {expected}"
    )


@pytest.mark.parametrize(
    ("rows", "index", "shown"),
    [
        ('[{"a": 1}]', 0, '{"a":1}'),
        ('[{"a": 1, "b": 1}, {"b": 1}]', 1, '{"b":1}'),
        ('[{"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}]', 1, '{"a":1,"b":1,"c":1}'),
        ("[{}]", 0, "{}"),
    ],
)
def test_every_row_has_all_inputs_and_no_others(rows: str, index: int, shown: str):
    assert refusal(f'{{"instances": {rows}}}', TWO) == (
        f"Failed to process element: {index} of 'instances' list. JSON object: {shown} keys must be equal to: a,b"
    )


def test_a_signature_without_inputs_takes_an_empty_object_and_nothing_else():
    assert bind('{"inputs": {}}', signature()) == {}
    assert refusal('{"inputs": [1]}', signature("s")) == "Failed to get input map for signature: s"
    assert refusal('{"instances": [{}]}', signature("s")) == "Failed to get input map for signature: s"


# --- answers


def floats(*values: object) -> Tensor:
    return np.array(values, np.float32)


def test_r1_one_output_in_row_format_is_the_list_of_its_rows():
    assert encode_predict({"y": floats(3, 3.5, 4)}, True) == b'{"predictions":[3.0,3.5,4.0]}'


def test_r2_one_output_in_column_format_is_a_bare_value():
    assert encode_predict({"y": floats(3, 3.5, 4)}, False) == b'{"outputs":[3.0,3.5,4.0]}'
    assert encode_predict({"y": np.float32(3).reshape(())}, False) == b'{"outputs":3.0}'


def test_r18_several_outputs_are_objects_by_name():
    outputs = {"y": floats(0.2, 1), "z": np.array([[1], [2]], np.int64), "w": np.array([True, False])}
    assert json.loads(encode_predict(outputs, True)) == {
        "predictions": [{"y": 0.2, "z": [1], "w": True}, {"y": 1.0, "z": [2], "w": False}]
    }
    assert json.loads(encode_predict(outputs, False)) == {
        "outputs": {"y": [0.2, 1.0], "z": [[1], [2]], "w": [True, False]}
    }


def test_r18_rows_need_a_common_zeroth_dimension():
    with pytest.raises(ScoringError, match=r"^Tensor name: z has inconsistent batch size: 1 expecting: 2$") as caught:
        encode_predict({"y": floats(1, 2), "z": floats(1)}, True)
    assert caught.value.kind is Kind.INVALID
    assert encode_predict({"y": floats(1, 2), "z": floats(1)}, False) == b'{"outputs":{"y":[1.0,2.0],"z":[1.0]}}'


def test_rows_need_a_rank():
    with pytest.raises(ScoringError, match=r"^Tensor name: y has no shape information $") as caught:
        encode_predict({"y": np.float32(3).reshape(())}, True)
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("row_format", [True, False])
def test_no_output_is_refused(row_format: bool):
    with pytest.raises(ScoringError, match=r"^Cannot convert empty tensor map to JSON$"):
        encode_predict({}, row_format)


@pytest.mark.parametrize("names", [["y"], ["y", "z"]])
def test_zero_rows_are_an_empty_list(names: list[str]):
    assert encode_predict(dict.fromkeys(names, np.zeros((0, 3), np.float32)), True) == b'{"predictions":[]}'


def test_r14_outputs_named_bytes_are_base64():
    word = np.array([b"hello"], np.object_)
    assert encode_predict({"y_bytes": word}, True) == b'{"predictions":[{"b64":"aGVsbG8="}]}'
    assert encode_predict({"y_bytes:0": word}, False) == b'{"outputs":[{"b64":"aGVsbG8="}]}'
    assert encode_predict({"y": word}, True) == b'{"predictions":["hello"]}'
    several = encode_predict({"y_bytes": word, "y": word}, True)
    assert several == b'{"predictions":[{"y_bytes":{"b64":"aGVsbG8="},"y":"hello"}]}'


def test_numbers_named_bytes_stay_numbers():
    assert encode_predict({"y_bytes": floats(1)}, True) == b'{"predictions":[1.0]}'


@pytest.mark.parametrize("row_format", [True, False])
def test_r15_non_finite_numbers_are_tokens_that_python_reads(row_format: bool):
    outputs = {"y": floats(math.nan, math.inf, -math.inf, 0.2), "z": floats(1, 2, 3, 4)}
    text = encode_predict(outputs, row_format)
    assert b"NaN" in text
    assert b"-Infinity" in text
    assert "null" not in str(json.loads(text))
    assert encode_predict({"y": outputs["y"]}, True) == b'{"predictions":[NaN,Infinity,-Infinity,0.2]}'


def test_r17_a_float32_is_written_as_its_own_shortest_text():
    assert encode_predict({"y": floats(0.2)}, True) == b'{"predictions":[0.2]}'


def test_complex_outputs_cannot_be_written():
    with pytest.raises(ScoringError, match=r"^Failed to write JSON value for tensor type: complex64$"):
        encode_predict({"y": np.zeros(1, np.complex64)}, True)


@pytest.mark.parametrize("message", ["plain", 'quotes " and \\', "é", "half a pair \ud800"])
def test_any_error_text_can_be_written(message: str):
    assert json.loads(encode_error(message)) == {"error": message.replace("\ud800", "?")}


# --- status and metadata


def test_r7_status_has_versions_as_strings_and_codes_by_name_newest_first():
    versions = [VersionStatus(9, "END", 3, "broken"), VersionStatus(123, "AVAILABLE")]
    assert json.loads(encode_status(versions)) == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "9", "state": "END", "status": {"error_code": "INVALID_ARGUMENT", "error_message": "broken"}},
        ]
    }


@pytest.mark.parametrize(("code", "name"), [(0, "OK"), (5, "NOT_FOUND"), (13, "INTERNAL"), (16, "UNAUTHENTICATED")])
def test_error_codes_have_google_rpcs_names(code: int, name: str):
    (status,) = json.loads(encode_status([VersionStatus(1, "END", code)]))["model_version_status"]
    assert status["status"]["error_code"] == name


def test_r8_metadata_describes_every_signature():
    x = TensorSpec("x", BY_NAME["float32"], (-1, 1), "x:0")
    tf_example = TensorSpec("inputs", BY_NAME["string"], None, "tf_example:0")
    known = {
        "serving_default": Signature("serving_default", {"x": x}, {}),
        "classify": Signature("classify", {"inputs": tf_example}, {"scores": x}, "tensorflow/serving/classify"),
    }
    x_info = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
        "name": "x:0",
    }
    text_info = {"dtype": "DT_STRING", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "tf_example:0"}
    assert json.loads(encode_metadata("default", 123, known)) == {
        "model_spec": {"name": "default", "signature_name": "", "version": "123"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"x": x_info},
                        "outputs": {},
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    },
                    "classify": {
                        "inputs": {"inputs": text_info},
                        "outputs": {"scores": x_info},
                        "method_name": "tensorflow/serving/classify",
                        "defaults": {},
                    },
                }
            }
        },
    }
