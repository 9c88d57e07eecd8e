"""TF Serving's REST over real sockets, on SavedModels and ONNX: the R cases of specs/tfserving.md 7.3."""

import base64
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from plain_http import ask, check_books, check_log, get, post
from server_process import Server, serving
from small_networks import half_plus_two, identity, sum_and_difference

import model_builders

NUMBERS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "uint16": TensorProto.UINT16,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "uint32": TensorProto.UINT32,
    "int64": TensorProto.INT64,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "bool": TensorProto.BOOL,
}


@pytest.fixture(scope="module")
def onnx(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("onnx")
    models = {
        "default": half_plus_two(folder / "default" / "123" / "model.onnx", "batch").parents[1],
        "column": half_plus_two(folder / "column.onnx", "batch", 1),
        "scalar": half_plus_two(folder / "scalar.onnx"),
        "matrix": half_plus_two(folder / "matrix.onnx", "batch", 3, 3),
        "two": sum_and_difference(folder / "two.onnx"),
        "text": identity(folder / "text.onnx", TensorProto.STRING, "batch"),
        "text_bytes": identity(folder / "text_bytes.onnx", TensorProto.STRING, "batch", output="y_bytes"),
        **{name: identity(folder / f"{name}.onnx", kind, "batch", 2) for name, kind in NUMBERS.items()},
    }
    (folder / "broken.onnx").write_bytes(b"no model")
    models["broken"] = folder / "broken.onnx"
    with serving(*_arguments(models), log=folder / "log") as server:
        yield server
        check_books(server)
        check_log(server)


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tensorflow")
    models = {
        "default": model_builders.saved_model_half_plus_two(folder / "default" / "00000123").parent,
        "tf2": model_builders.saved_model_half_plus_two_tf2(folder / "tf2" / "123").parent,
        "three": model_builders.saved_model_half_plus_three(folder / "three" / "123").parent,
        "counter": model_builders.saved_model_counter(folder / "counter" / "123").parent,
        "matrix": model_builders.saved_model_matrix_half_plus_two(folder / "matrix" / "1").parent,
    }
    with serving(*_arguments(models), log=folder / "log") as server:
        yield server
        check_books(server)
        check_log(server)


def _arguments(models: dict[str, Path]) -> list[str]:
    return [part for name, path in models.items() for part in ("--model", f"{name}={path}")]


BOTH = pytest.mark.parametrize("kind", ["onnx", pytest.param("tensorflow", marks=pytest.mark.tensorflow)])


@pytest.fixture
def server(request, kind) -> Server:
    """half_plus_two under the name "default", version 123, in either form."""
    return request.getfixturevalue(kind)


def predict(server: Server, document: bytes | object, model: str = "default", **headers: str):
    return post(server, f"/v1/models/{model}:predict", document, **headers)


# --- R1 to R4: predict


@BOTH
def test_rows_of_numbers_give_predictions(server):
    answer = predict(server, {"instances": [2.0, 3.0, 4.0]})
    assert (answer.status, answer.json) == (200, {"predictions": [3.0, 3.5, 4.0]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-accelserve-model"] == "default:123"


@BOTH
def test_columns_give_outputs(server):
    assert predict(server, {"inputs": [2.0, 3.0, 4.0]}).json == {"outputs": [3.0, 3.5, 4.0]}


@BOTH
def test_names_and_integers_for_floats_are_taken(server):
    assert predict(server, {"instances": [{"x": 2.0}]}).json == {"predictions": [3.0]}
    assert predict(server, {"inputs": {"x": [2]}}).json == {"outputs": [3.0]}


@pytest.mark.tensorflow
def test_a_tensor_name_is_as_good_as_a_key_and_is_answered_with_tensor_names(tensorflow):
    document = {"signature_name": "serving_default", "inputs": {"x:0": [2.0]}, "output_filter": ["y:0", "y"]}
    assert "duplicate output tensor alias" in predict(tensorflow, document).error
    assert predict(tensorflow, {"instances": [{"x:0": 2}, {"x:0": 4}]}).json == {"predictions": [3.0, 4.0]}


@pytest.mark.tensorflow
def test_a_saved_model_takes_scalars_and_other_ranks_as_tf_serving_does(tensorflow):
    assert predict(tensorflow, {"inputs": 2.0}).json == {"outputs": 3.0}
    assert predict(tensorflow, {"instances": [[2.0], [3.0]]}).json == {"predictions": [[3.0], [3.5]]}
    assert predict(tensorflow, {"instances": [1, 2, 5]}, "three").json == {"predictions": [3.5, 4.0, 5.5]}


def test_an_onnx_model_takes_a_scalar_and_a_column_where_it_is_declared_so(onnx):
    assert predict(onnx, {"inputs": 2.0}, "scalar").json == {"outputs": 3.0}
    assert predict(onnx, {"instances": [[2.0], [3.0]]}, "column").json == {"predictions": [[3.0], [3.5]]}
    assert "[-1,1], got float32[2]" in predict(onnx, {"instances": [2.0, 3.0]}, "column").error


@BOTH
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/default/versions/123:predict",
        "/v1/models/default/versions/00123:predict",
        "/v1/models/d%65fault:predict",
        "/v1/models/default%3Apredict",
        "/v1/models/default:predict?x=1",
        "/V1/Models/default:predict",
        "/v1/MODELS/default/Versions/123:PREDICT",
    ],
)
def test_a_version_an_encoded_name_and_upper_case_words_are_the_same_path(server, path):
    answer = post(server, path, {"instances": [2.0]})
    assert (answer.status, answer.json) == (200, {"predictions": [3.0]})


@BOTH
def test_a_name_is_case_sensitive_and_decoded_once(server):
    assert "Latest(Default)" in predict(server, {"instances": [2.0]}, "Default").error
    answer = predict(server, {"instances": [2.0]}, "%2564efault")
    assert answer.status == 404
    assert "Latest(%64efault)" in answer.error


@BOTH
def test_labels_are_not_there_yet_and_say_so_in_tf_servings_words(server):
    answer = post(server, "/v1/models/default/labels/stable:predict", {"instances": [2.0]})
    assert (answer.status, answer.error) == (400, "Unrecognized servable version label: stable")


# --- R5, R6: what is not served yet


@BOTH
@pytest.mark.parametrize("verb", ["classify", "regress", "Classify"])
def test_classify_and_regress_are_501_and_name_the_way_out(server, verb):
    answer = post(server, f"/v1/models/default:{verb}", {"examples": [{"x": 2.0}]})
    assert answer.status == 501
    assert ":predict" in answer.error


# --- R7, R8: status and metadata

AVAILABLE = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}


@BOTH
@pytest.mark.parametrize("path", ["", "/versions/123", "/labels/whatever"])
def test_the_status_is_tf_servings_document(server, path):
    answer = get(server, f"/v1/models/default{path}")
    assert (answer.status, answer.json) == (200, AVAILABLE)
    assert answer.headers["content-type"] == "application/json"


@BOTH
def test_the_status_of_what_is_not_there_is_404_in_tf_servings_words(server):
    missing = get(server, "/v1/models/nope")
    assert (missing.status, missing.error) == (404, "Could not find any versions of model nope")
    version = get(server, "/v1/models/default/versions/9")
    assert (version.status, version.error) == (404, "Could not find version 9 of model default")


def test_a_model_that_did_not_load_has_a_status_and_no_answers(onnx):
    (status,) = get(onnx, "/v1/models/broken").json["model_version_status"]
    assert status["state"] == "END"
    assert status["status"]["error_code"] != "OK"
    assert status["status"]["error_message"]
    answer = predict(onnx, {"instances": [1.0]}, "broken")
    assert answer.status == 404
    assert answer.error.startswith("Servable not found for request: Latest(broken)")


@BOTH
def test_the_list_has_every_model(server):
    models = {model.pop("name"): model for model in get(server, "/v1/models").json["models"]}
    assert models["default"] == AVAILABLE
    assert models.keys() >= {"default", "matrix"}


def info(dtype: str, name: str, *sizes: int) -> dict:
    dims = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}


@pytest.mark.tensorflow
def test_the_metadata_of_half_plus_two_is_tf_servings_document(tensorflow):
    answer = get(tensorflow, "/v1/models/default/metadata").json
    assert answer["model_spec"] == {"name": "default", "signature_name": "", "version": "123"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    examples = {"inputs": info("DT_STRING", "tf_example:0", -1)}
    parsed = info("DT_FLOAT", "x2:0", -1, 1)
    wanted = {
        "serving_default": ("predict", {"x": info("DT_FLOAT", "x:0", -1, 1)}, {"y": info("DT_FLOAT", "y:0", -1, 1)}),
        "classify_x_to_y": ("classify", examples, {"scores": info("DT_FLOAT", "y:0", -1, 1)}),
        "regress_x_to_y": ("regress", examples, {"outputs": info("DT_FLOAT", "y:0", -1, 1)}),
        "regress_x_to_y2": ("regress", examples, {"outputs": info("DT_FLOAT", "y2:0", -1, 1)}),
        "regress_x2_to_y3": ("regress", {"inputs": parsed}, {"outputs": info("DT_FLOAT", "y3:0", -1, 1)}),
    }
    assert signatures == {
        name: {
            "inputs": inputs,
            "outputs": outputs,
            "method_name": f"tensorflow/serving/{method}",
            "defaults": {},
        }
        for name, (method, inputs, outputs) in wanted.items()
    }


def test_the_metadata_of_an_onnx_model_has_the_same_form(onnx):
    answer = get(onnx, "/v1/models/default/versions/123/metadata").json
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures == {
        "serving_default": {
            "inputs": {"x": info("DT_FLOAT", "x", -1)},
            "outputs": {"y": info("DT_FLOAT", "y", -1)},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
    }


@BOTH
def test_the_metadata_of_an_unknown_model_is_404(server):
    answer = get(server, "/v1/models/nope/metadata")
    assert answer.status == 404
    assert "Latest(nope)" in answer.error


# --- R9, R10: paths and verbs


@BOTH
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/default:predict"),
        ("POST", "/v1/foo"),
        ("POST", "/v1/models/default/metadata"),
        ("POST", "/v1/models/default"),
        ("PUT", "/v1/models/default:predict"),
        ("DELETE", "/v1/models/default"),
        ("POST", "/v1/models/default/versions/HELLO:predict"),
        ("POST", "/v1/models/default/versions/-1:predict"),
        ("POST", "/v1/models/default/versions/:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/default:explain"),
        ("POST", "/v1/models/default:predict/"),
        ("GET", "/v1/models/default/versions"),
        ("GET", "/v1/models/default/"),
        ("GET", "/v1/"),
        ("GET", "/v1/models/a/b/c/d"),
        ("PATCH", "/v1/models/default:predict"),
        ("TRACE", "/v1/models/default:predict"),
    ],
)
def test_what_no_route_knows_is_400_malformed(server, method, path):
    answer = ask(server, method, path, b"{}" if method == "POST" else b"")
    assert (answer.status, answer.error) == (400, f"Malformed request: {method} {path}")


@BOTH
def test_head_is_refused_without_a_body(server):
    answer = ask(server, "HEAD", "/v1/models/default")
    assert (answer.status, answer.body) == (400, b"")


@BOTH
@pytest.mark.parametrize("digits", [19, 40, 5000])
@pytest.mark.parametrize("suffix", [":predict", "", "/metadata"])
def test_a_version_beyond_64_bits_is_400(server, digits, suffix):
    version = "9" * digits
    path = f"/v1/models/default/versions/{version}{suffix}"
    answer = post(server, path, {"instances": [2.0]}) if suffix == ":predict" else get(server, path)
    assert answer.status == 400
    assert answer.error.startswith(f"Failed to convert version: {version[:30]}")


@BOTH
def test_a_status_page_is_not_there(server):
    answer = get(server, "/statuspage")
    assert answer.status == 404
    assert "/statuspage" in answer.error


# --- R11 to R13: bodies that are wrong


@BOTH
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"   \n", "JSON Parse error: The document is empty"),
        (b"this is not json", "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'"text"', 'JSON Value: "text" Is not object'),
        (b'{"instances": [1], "inputs": [1]}', "Not formatted correctly expecting only one of 'inputs' or 'instances'"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"instances": []}', "No values in 'instances' array"),
        (b'{"instances": 1}', "Expecting 'instances' to be an list/array"),
        (b'{"instances": {"x": 1}}', "Expecting 'instances' to be an list/array"),
        (b'{"signature_name": 5, "instances": [1]}', "'signature_name' key must be a string value."),
        (b'{"signature_name": null, "instances": [1]}', "'signature_name' key must be a string value."),
        (
            b'{"signature_name": "nope", "instances": [1]}',
            'Serving signature name: "nope" not found in signature def',
        ),
        (b'{"instances": ["a"]}', 'JSON Value: "a" Type: String is not of expected type: float'),
        (b'{"instances": [true]}', "Type: True is not of expected type: float"),
        (b'{"instances": [null]}', "Type: Null is not of expected type: float"),
        (
            b'{"instances": [[1, 2], [3]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: ",
        ),
        (b'{"instances": [[1, 2], [3]]}', "Expecting tensor size: 2 but got: 1"),
        (b'{"instances": [1, [1]]}', "Expecting shape [] but got: [1]"),
        (b'{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        (b'{"instances": [1, {"x": 2}]}', "Expecting value/list but got object at item 1 of input list"),
        (b'{"instances": [{"z": 1}]}', "JSON object: does not have named input: z"),
        (b'{"instances": [{"x": 1, "z": 1}]}', "does not have named input: z"),
        (b'{"instances": [{}]}', "keys must be equal to: x"),
        (b'{"inputs": {"z": [1]}}', "Missing named input: x in 'inputs' object."),
        (b'{"inputs": [[1, 2], [3]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (b'{"inputs": [[1], 2]}', "found at incorrect level"),
        (b'{"instances": [{"b64": "AAAA"}]}', "not of expected type: float"),
        (b'{"instances": [1], "output_filter": "y"}', "'output_filter' key must be a list of strings"),
        (b'{"instances": [1], "output_filter": ["nope"]}', "output tensor alias not found in signature: nope"),
        (b'{"instances": [1], "output_filter": ["y", "y"]}', "duplicate output tensor alias: y"),
    ],
)
def test_a_wrong_body_is_400_in_tf_servings_words(server, body, words):
    answer = predict(server, body)
    assert answer.status == 400, answer.body
    assert words in answer.error


@BOTH
def test_the_body_is_read_before_the_model_is_looked_for(server):
    assert predict(server, b"{", "nope").status == 400
    answer = predict(server, {"instances": [1.0]}, "half")
    assert (answer.status, answer.error) == (404, "Servable not found for request: Latest(half)")
    answer = predict(server, {"instances": [1.0]}, "default/versions/9")
    assert (answer.status, answer.error) == (404, "Servable not found for request: Specific(default, 9)")
    assert predict(server, {"neither": 1}, "half").status == 404


@BOTH
def test_what_follows_the_document_and_unknown_keys_are_ignored(server):
    assert predict(server, b'{"instances": [2.0], "more": {"a": [1]}} and {more').json == {"predictions": [3.0]}
    assert predict(server, {"inputs": {"x": [2.0], "z": [1.0]}}).json == {"outputs": [3.0]}


@BOTH
def test_the_content_type_is_not_looked_at(server):
    assert predict(server, {"instances": [2.0]}, content_type="image/jpeg").json == {"predictions": [3.0]}


@BOTH
def test_a_matrix_keeps_its_shape(server):
    rows = np.arange(18.0).reshape(2, 3, 3)
    assert predict(server, {"instances": rows.tolist()}, "matrix").json == {"predictions": (rows / 2 + 2).tolist()}
    assert predict(server, {"instances": rows[:0].tolist()}, "matrix").status == 400


@BOTH
def test_no_rows_in_columns_give_no_rows(server):
    answer = predict(server, {"inputs": []})
    assert (answer.status, answer.json) == (200, {"outputs": []})


# --- R14: strings


def test_b64_and_text_are_strings_and_text_comes_back(onnx):
    hello = {"b64": base64.b64encode(b"hello").decode()}
    answer = predict(onnx, {"instances": ["plain", hello, {"x": "no"}]}, "text")
    assert answer.status == 400
    assert predict(onnx, {"instances": ["plain", hello]}, "text").json == {"predictions": ["plain", "hello"]}
    assert predict(onnx, {"instances": [{"x": hello}]}, "text").json == {"predictions": ["hello"]}
    assert predict(onnx, {"inputs": [{"b64": "aGVsbG8"}]}, "text").json == {"outputs": ["hello"]}


def test_an_output_named_bytes_comes_back_as_b64(onnx):
    hello = {"b64": base64.b64encode(b"hello").decode()}
    assert predict(onnx, {"instances": ["hello"]}, "text_bytes").json == {"predictions": [hello]}


@pytest.mark.parametrize("b64", ["%%%", "aGVsbG8=x"])
def test_bad_base64_is_400(onnx, b64):
    answer = predict(onnx, {"instances": [{"b64": b64}]}, "text")
    assert answer.status == 400
    assert "Unable to base64 decode" in answer.error


def test_a_number_is_no_string(onnx):
    assert "not of expected type: string" in predict(onnx, {"instances": [5]}, "text").error


# --- R15 to R17: numbers


def test_nan_and_infinity_go_in_and_come_out_as_tokens(onnx):
    body = b'{"instances": [[NaN, Infinity], [-Infinity, Inf]]}'
    answer = predict(onnx, body, "float32")
    assert answer.body == b'{"predictions":[[NaN,Infinity],[-Infinity,Infinity]]}'
    assert math.isnan(json.loads(answer.body)["predictions"][0][0])


def test_a_number_beyond_the_range_of_float_is_infinity(onnx):
    assert predict(onnx, b'{"instances": [[1e39, -1e39]]}', "float32").body == b'{"predictions":[[Infinity,-Infinity]]}'
    assert predict(onnx, b'{"instances": [[1e39, 1e-50]]}', "float64").json == {"predictions": [[1e39, 1e-50]]}


def test_floats_are_written_in_their_own_precision(onnx):
    single = predict(onnx, b'{"instances": [[0.2, 1435774380]]}', "float32")
    assert single.body.startswith(b'{"predictions":[[0.2,')
    assert np.float32(single.json["predictions"][0][1]) == np.float32(1435774336)
    assert predict(onnx, b'{"instances": [[0.2, 1435774380]]}', "float64").json == {"predictions": [[0.2, 1435774380]]}


@pytest.mark.parametrize("name", [name for name in NUMBERS if "int" in name])
def test_integers_keep_their_type_and_range(onnx, name):
    limits = np.iinfo(name)
    edges = [int(limits.min), int(limits.max)]
    answer = predict(onnx, {"instances": [edges]}, name)
    assert (answer.status, answer.json) == (200, {"predictions": [edges]})
    for beyond in (int(limits.min) - 1, int(limits.max) + 1):
        assert predict(onnx, {"instances": [[0, beyond]]}, name).status == 400
    for wrong in ("2.0", "true", '"2"', "NaN"):
        answer = predict(onnx, f'{{"instances": [[0, {wrong}]]}}'.encode(), name)
        assert answer.status == 400, (wrong, answer.body)
        assert f"not of expected type: {name}" in answer.error


def test_half_and_bool_are_taken(onnx):
    assert predict(onnx, {"instances": [[0.5, 65504]]}, "float16").json == {"predictions": [[0.5, 65504.0]]}
    assert predict(onnx, {"instances": [[True, False]]}, "bool").json == {"predictions": [[True, False]]}
    assert "not of expected type: bool" in predict(onnx, {"instances": [[1, 0]]}, "bool").error


# --- R16: gzip


@BOTH
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZip"])
def test_a_gzip_body_is_unpacked(server, coding):
    data = gzip.compress(b'{"instances": [2.0]}')
    assert predict(server, data, content_encoding=coding).json == {"predictions": [3.0]}


@BOTH
@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8bcorrupt", gzip.compress(b'{"instances": [2.0]}', mtime=0)[:-4], b'{"inputs": 1}']
)
def test_a_corrupt_gzip_body_is_400(server, data):
    assert predict(server, data, content_encoding="gzip").status == 400
    assert predict(server, data, content_encoding="gzip").error


# --- R18: several inputs and outputs


def test_several_inputs_and_outputs_go_by_name_in_rows_and_columns(onnx):
    rows = {"instances": [{"a": [1, 2], "b": [3, 4]}, {"b": [0, 0], "a": [5, 6]}]}
    assert predict(onnx, rows, "two").json == {
        "predictions": [
            {"sum": [4.0, 6.0], "difference": [-2.0, -2.0]},
            {"sum": [5.0, 6.0], "difference": [5.0, 6.0]},
        ]
    }
    columns = {"inputs": {"a": [[1, 2]], "b": [[3, 4]]}}
    assert predict(onnx, columns, "two").json == {"outputs": {"sum": [[4.0, 6.0]], "difference": [[-2.0, -2.0]]}}


def test_an_output_filter_leaves_the_others_out(onnx):
    columns = {"inputs": {"a": [[1, 2]], "b": [[3, 4]]}, "output_filter": ["sum"]}
    assert predict(onnx, columns, "two").json == {"outputs": [[4.0, 6.0]]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"instances": [[1, 2]]}, "expecting list of objects as multiple input tensors required"),
        ({"inputs": [[1, 2]]}, "inputs is a plain value/list, but expecting an object"),
        ({"instances": [{"a": [1, 2]}]}, "keys must be equal to: a,b"),
        ({"instances": [{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2]}]}, "keys must be equal to: a,b"),
        ({"instances": [{"a": [1, 2], "b": [1, 2]}, {"a": [1], "b": [1, 2]}]}, "element: 1 key: a"),
        ({"inputs": {"a": [[1, 2], [1, 2]], "b": [[1, 2], [3, 4], [5, 6]]}}, "two:1"),
    ],
)
def test_names_and_rows_that_disagree_are_400(onnx, document, words):
    answer = predict(onnx, document, "two")
    assert answer.status == 400, answer.body
    assert words in answer.error


def test_one_row_beside_three_is_the_models_own_business(onnx):
    document = {"inputs": {"a": [[1, 2]], "b": [[1, 2], [3, 4], [5, 6]]}, "output_filter": ["sum"]}
    assert predict(onnx, document, "two").json == {"outputs": [[2.0, 4.0], [4.0, 6.0], [6.0, 8.0]]}


# --- what SavedModels have beyond


@pytest.mark.tensorflow
def test_any_signature_can_be_predicted(tensorflow):
    answer = predict(tensorflow, {"signature_name": "regress_x2_to_y3", "instances": [[2.0], [80.0]]})
    assert answer.json == {"predictions": [[4.0], [43.0]]}


@pytest.mark.tensorflow
def test_tf2_signatures_answer_the_same(tensorflow):
    assert predict(tensorflow, {"instances": [2.0]}, "tf2").json == {"predictions": [3.0]}
    answer = predict(tensorflow, {"inputs": {}}, "tf2")
    assert (answer.status, answer.error) == (400, "Missing named input: x in 'inputs' object.")


@pytest.mark.tensorflow
def test_a_signature_without_inputs_can_be_asked_in_columns(tensorflow):
    def count(signature: str, inputs: dict) -> object:
        return predict(tensorflow, {"signature_name": signature, "inputs": inputs}, "counter").json

    count("reset_counter", {})
    assert [count("incr_counter", {}) for _ in range(2)] == [{"outputs": 1.0}, {"outputs": 2.0}]
    assert count("get_counter", {}) == {"outputs": 2.0}
    assert count("incr_counter_by", {"delta": 3.0}) == {"outputs": 5.0}


@pytest.mark.tensorflow
def test_an_example_that_lacks_its_feature_is_the_clients_mistake(tensorflow):
    document = {"signature_name": "regress_x_to_y", "instances": [{"b64": ""}, {"b64": "AAAA"}]}
    answer = predict(tensorflow, document)
    assert answer.status == 400, answer.body
    assert answer.error


# --- headers


@BOTH
def test_ids_deadline_and_priority_are_those_of_scoring(server):
    answer = predict(server, {"instances": [2.0]}, x_request_id="r1", x_accelserve_priority="high")
    assert answer.headers["x-request-id"] == answer.headers["x-ms-request-id"] == "r1"
    assert "batch=1" in answer.headers["x-accelserve-timing"]
    for name, value in (("x_accelserve_timeout_ms", "0"), ("x_accelserve_priority", "urgent")):
        answer = predict(server, {"instances": [2.0]}, **{name: value})
        assert answer.status == 400
        assert name.replace("_", "-") in answer.error
