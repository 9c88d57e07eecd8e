"""Raw HTTP scoring in JSON: what /score takes and answers."""

import json
import math

import ml_dtypes
import numpy as np
import pytest

from accelserve.codecs.scoring_json import encode_scores, encode_top, parse_scoring, top_output
from accelserve.codecs.tfserving_json import bind_predict
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, TensorSpec


def signature(**inputs: str) -> Signature:
    specs = {key: TensorSpec(key, BY_NAME[dtype], (-1,), f"{key}:0") for key, dtype in inputs.items()}
    return Signature("serving_default", specs, {})


def bound(body: str, known: Signature) -> dict[str, object]:
    return {name: tensor.tolist() for name, tensor in bind_predict(parse_scoring(body.encode()), known).items()}


@pytest.mark.parametrize(
    "body", ["[[1, 2], [3, 4]]", '{"data": [[1, 2], [3, 4]]}', '{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}']
)
def test_lists_are_rows(body: str):
    assert parse_scoring(body.encode()).row_format
    assert bound(body, signature(x="float32")) == {"x": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.mark.parametrize("body", ['{"inputs": {"a": [1], "b": 2}}', '{"data": {"a": [1], "b": 2}}'])
def test_objects_are_inputs_by_name(body: str):
    assert not parse_scoring(body.encode()).row_format
    assert bound(body, signature(a="float32", b="int32")) == {"a": [1.0], "b": 2}


def test_a_scalar_is_the_only_input():
    assert bound('{"data": 2.5}', signature(x="float32")) == {"x": 2.5}
    assert bound('{"data": {"b64": "YQ=="}}', signature(s="string")) == {"s": b"a"}


def test_a_list_of_objects_is_rows_by_name():
    assert bound('[{"a": 1, "b": 2}, {"a": 3, "b": 4}]', signature(a="float32", b="int32")) == {
        "a": [1.0, 3.0],
        "b": [2, 4],
    }


def test_a_bool_among_numbers_is_found_in_a_bare_array_too():
    with pytest.raises(ScoringError, match="Type: True is not of expected type: float"):
        bound("[0.5, true]", signature(x="float32"))


def test_signature_and_output_filter_may_be_named():
    body = parse_scoring(b'{"signature_name": "s", "data": [1], "output_filter": ["y"]}')
    assert (body.signature, body.output_filter) == ("s", ("y",))


@pytest.mark.parametrize(
    ("body", "got"),
    [("{}", "none"), ('{"x": [1]}', "none"), ('{"data": 1, "inputs": 1}', "inputs and data")],
)
def test_the_payload_has_one_key(body: str, got: str):
    with pytest.raises(ScoringError) as caught:
        parse_scoring(body.encode())
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message == f"the body must have one of 'instances', 'inputs' and 'data', got {got}"


@pytest.mark.parametrize("body", ["5", '"text"', "null"])
def test_a_bare_scalar_is_no_request(body: str):
    with pytest.raises(ScoringError, match="JSON object with 'instances', 'inputs' or 'data', or a JSON array"):
        parse_scoring(body.encode())


@pytest.mark.parametrize("body", ["[]", '{"data": []}', '{"instances": []}'])
def test_no_rows_are_refused(body: str):
    with pytest.raises(ScoringError, match="No values in 'instances' array"):
        bound(body, signature(x="float32"))


# --- scores


SCORES = np.array([[0.25, 0.5, 0.2]], np.float32)


def test_one_output_is_its_list():
    assert encode_scores({"y": SCORES}, single=False) == b"[[0.25,0.5,0.2]]"


def test_a_single_request_has_no_batch_dimension():
    assert encode_scores({"y": SCORES}, single=True) == b"[0.25,0.5,0.2]"
    assert encode_scores({"y": SCORES[0, :1]}, single=True) == b"0.25"
    assert encode_scores({"y": np.array([b"cat"], np.object_)}, single=True) == b'"cat"'


def test_a_single_request_keeps_an_axis_that_is_no_batch():
    assert encode_scores({"y": SCORES[0]}, single=True) == b"[0.25,0.5,0.2]"
    assert encode_scores({"y": SCORES[0, 0].reshape(())}, single=True) == b"0.25"


def test_several_outputs_are_an_object_by_name():
    outputs = {"y": SCORES, "n": np.array([3], np.int32)}
    assert json.loads(encode_scores(outputs, single=True)) == {"y": [0.25, 0.5, 0.2], "n": 3}
    assert json.loads(encode_scores(outputs, single=False)) == {"y": [[0.25, 0.5, 0.2]], "n": [3]}


# --- top=K


def test_the_best_come_first_with_labels():
    assert encode_top(SCORES, 2, ["cat", "dog", "owl"], single=True) == (
        b'[{"index":1,"label":"dog","score":0.5},{"index":0,"label":"cat","score":0.25}]'
    )


def test_without_labels_there_is_no_label():
    assert encode_top(SCORES, 1, None, single=True) == b'[{"index":1,"score":0.5}]'
    assert encode_top(SCORES, 1, ["cat"], single=True) == b'[{"index":1,"score":0.5}]'


def test_each_row_has_its_own_list():
    assert json.loads(encode_top(np.array([[1, 2], [4, 3]], np.float32), 1, None, single=False)) == [
        [{"index": 1, "score": 2.0}],
        [{"index": 0, "score": 4.0}],
    ]


def test_k_is_clipped_to_the_number_of_scores():
    assert [best["index"] for best in json.loads(encode_top(SCORES, 99, None, single=True))] == [1, 0, 2]


def test_k_below_one_is_refused():
    with pytest.raises(ScoringError, match="top must be at least 1, got 0") as caught:
        encode_top(SCORES, 0, None, single=True)
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("k", range(1, 8))
def test_of_equal_scores_the_lower_index_comes_first(k: int):
    scores = np.array([[1, 3, 1, 3, 2, 1, 3]], np.float32)
    assert [best["index"] for best in json.loads(encode_top(scores, k, None, single=True))] == [1, 3, 6, 4, 0, 2, 5][:k]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_top_agrees_with_a_full_sort(dtype: type):
    scores = np.random.default_rng(7).integers(0, 50, (4, 300)).astype(dtype)
    for row, best in zip(scores, json.loads(encode_top(scores, 20, None, single=False)), strict=True):
        expected = np.argsort(-row.astype(np.float64), kind="stable")[:20]
        assert [b["index"] for b in best] == expected.tolist()
        assert [b["score"] for b in best] == row[expected].astype(np.float64).tolist()


def test_nan_ranks_last():
    scores = np.array([[math.nan, 0.5, math.inf]], np.float32)
    assert encode_top(scores, 3, None, single=True) == (
        b'[{"index":2,"score":Infinity},{"index":1,"score":0.5},{"index":0,"score":NaN}]'
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("n", [2, 3, 10, 300])
def test_a_lone_row_is_ranked_as_among_others(dtype: type, n: int):
    chance = np.random.default_rng(n)
    for kinds in (3, 50):
        scores = chance.integers(0, kinds, (40, n)).astype(np.float64)
        scores[chance.random((40, n)) < 0.2] = math.nan
        scores[chance.random((40, n)) < 0.1] = -math.inf
        scores[chance.random((40, n)) < 0.1] = -0.0
        scores = scores.astype(dtype)
        for k in (1, 2, 5, n - 1, n):
            alone = [encode_top(row[None], k, ["a", "b"], single=True) for row in scores]
            assert b"[" + b",".join(alone) + b"]" == encode_top(scores, k, ["a", "b"], single=False)
            assert encode_top(scores[:1], k, ["a", "b"], single=False) == b"[" + alone[0] + b"]"


def test_the_only_float_vector_is_ranked():
    outputs = {"n": np.zeros((1, 5), np.int32), "y": SCORES, "z": np.zeros((1, 1), np.float32)}
    assert top_output(outputs) is SCORES


@pytest.mark.parametrize("outputs", [{"y": SCORES, "z": SCORES}, {"y": SCORES[0]}], ids=["two", "none"])
def test_top_needs_exactly_one_float_vector(outputs: dict[str, np.ndarray]):
    with pytest.raises(ScoringError, match=r"^top=K needs exactly one float vector output") as caught:
        top_output(outputs)
    assert caught.value.kind is Kind.INVALID
    assert 'got "y" float32[' in caught.value.message
