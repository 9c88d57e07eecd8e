"""Large bodies and answers: the work that they cost, counted, and the same answers as small ones."""

import json
import math
import random
import sys

import numpy as np
import orjson
import pytest

from accelserve.codecs import bodies, json_text
from accelserve.codecs.bodies import body_format, single_file
from accelserve.codecs.json_tensors import in_runs, quick_tensor, tensor_of
from accelserve.codecs.json_text import SHOWN_CHARACTERS, dumps, json_list, json_rows, json_value, parse_json, show
from accelserve.codecs.scoring_json import encode_top
from accelserve.codecs.tfserving_json import read_predict
from accelserve.codecs.tfserving_proto import decode_predict
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, TensorSpec
from accelserve.wire.tfserving_pb2 import PredictRequest

MANY = 20_000


def signature(*names: str, dtype: str = "float32") -> Signature:
    return Signature("s", {name: TensorSpec(name, BY_NAME[dtype], None, name) for name in names}, {})


def python_calls(work) -> int:
    """How many Python functions `work` calls; those written in C do not count."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    except ScoringError:
        pass
    finally:
        sys.setprofile(None)
    return calls


def predict(body: bytes, known: Signature):
    return read_predict(body, lambda _: known)[1]


def rows(item: bytes, *last: bytes) -> bytes:
    return b'{"instances":[' + b",".join([item] * MANY + list(last)) + b"]}"


# --- how much is called


@pytest.mark.parametrize(
    ("body", "known"),
    [
        (rows(b'""', b"NaN"), signature("x")),
        (rows(b'""', b"Inf"), signature("x")),
        (rows(b'"\\u0041\\\\"', b"Inf"), signature("x")),
        (b'{"instances": [NaN, ' + b'"' * MANY, signature("x")),
        (rows(b'"\\ud83d\\ude00"', b"NaN"), signature("x")),
        (rows(b"[1,NaN]"), signature("x")),
        (rows(b'"a"'), signature("x", dtype="string")),
        (rows(b'"a"', b"1"), signature("x", dtype="string")),
        (rows(b"1", b'"a"'), signature("x")),
        (rows(b"[1,2]", b"[1]"), signature("x")),
        (rows(b"[1,2]", b'[1,"a"]'), signature("x")),
        (rows(b"[1,2]", b"[1]").replace(b"instances", b"inputs"), signature("x")),
        (rows(b"1e39"), signature("x")),
        (rows(b"true", b"0"), signature("x", dtype="bool")),
        (rows(b'{"a":1,"b":2}'), signature("a", "b")),
        (rows(b'{"a":1,"b":2}', b'{"a":1,"b":null}'), signature("a", "b")),
        (rows(b"[1,2]")[:-1] + b',"inputs":1}', signature("x")),
    ],
    ids=lambda value: value[-30:].decode() if isinstance(value, bytes) else "",
)
def test_no_function_is_called_for_each_value_of_a_body(body, known):
    assert python_calls(lambda: predict(body, known)) < MANY / 10


@pytest.mark.parametrize("item", [b'{"b64":"AAAA"}', b'{"b64":"AAA"}'])
def test_base64_costs_a_few_calls_each(item):
    known = signature("x", dtype="string")
    assert python_calls(lambda: predict(rows(item), known)) < 12 * MANY
    assert python_calls(lambda: predict(rows(item, b"1"), known)) < 40 * MANY


@pytest.mark.parametrize(("shape", "k"), [((MANY, 2), 1), ((2, MANY), MANY), ((200, 100), 100)])
def test_no_function_is_called_for_each_ranked_place(shape, k):
    scores = np.zeros(shape, np.float32)
    assert python_calls(lambda: encode_top(scores, k, None, single=False)) < shape[0] * 4 + 1000


def test_no_function_is_called_for_each_number_of_an_answer():
    tensor = np.full((100, 10_000), np.nan, np.float32)
    tensor[1:] = 1
    assert python_calls(lambda: dumps(json_value(tensor))) < 60_000 + 2000  # one each for the 10,000 that are NaN


def test_what_is_shown_of_a_document_is_cut_before_it_is_written(monkeypatch):
    written: list[int] = []

    def noted(value: object) -> bytes:
        text = dumps(value)
        written.append(len(text))
        return text

    monkeypatch.setattr(json_text, "dumps", noted)
    for document in (
        [0.5] * MANY,
        {"instances": [[1, 2]] * MANY},
        "x" * MANY,
        {"x" * MANY: 1},
        {"a": {"b": "é" * MANY}},
    ):
        assert show(document).endswith("...")
    assert max(written) < 8 * SHOWN_CHARACTERS


@pytest.mark.parametrize("fault", [0, 1, MANY // 2, MANY - 1])
def test_a_fault_is_found_by_looking_at_each_item_a_few_times(fault):
    looked = 0

    def many(items):
        nonlocal looked
        looked += len(items)
        return None if fault in items else np.array(items)

    def one(index):
        assert index == fault
        yield np.array([-1])

    parts = np.concatenate(list(in_runs(range(MANY), many, one)))
    assert parts.tolist() == [*range(fault), -1, *range(fault + 1, MANY)]
    assert looked < 4 * MANY


def test_a_message_of_more_inputs_than_any_model_has_is_refused():
    request = PredictRequest()
    for index in range(1025):
        request.inputs[str(index)].dtype = 1
    with pytest.raises(ScoringError, match="want at most 1024 inputs, got 1025") as caught:
        decode_predict(request.SerializeToString())
    assert caught.value.kind is Kind.INVALID


# --- the same as if it were small


@pytest.mark.parametrize("fault", range(17))
@pytest.mark.parametrize(
    ("item", "wrong", "message"),
    [
        ([1, 2], [1], "Expecting tensor size: 2 but got: 1"),
        ([[1], [2]], [[1, 2]], "Expecting shape [2,1] but got: [1,2]"),
        ([1, 2], [1, "a"], 'JSON Value: "a" Type: String is not of expected type: float'),
        (1, None, "JSON Value: null Type: Null is not of expected type: float"),
    ],
)
def test_the_first_faulty_row_is_named_wherever_it_is(fault, item, wrong, message):
    document = [item] * 17
    document[fault] = wrong
    if fault == 0 and "Expecting" in message:
        return  # then the second row is the one that differs
    with pytest.raises(ScoringError) as caught:
        predict(json.dumps({"instances": document}).encode(), signature("x"))
    wanted = f"Failed to process element: {fault} of 'instances' list. Error: INVALID_ARGUMENT: {message}"
    assert caught.value.message == wanted


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_an_odd_number_among_many_is_taken_where_it_stands(value):
    values = [[float(i)] for i in range(20)]
    values[13] = [value]
    tensor = tensor_of(values, BY_NAME["float32"], has_bools=False)
    wanted = [[float(i)] for i in range(20)]
    wanted[13] = [math.inf if value > 0 else -math.inf]
    assert tensor.tolist() == wanted


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_out_of_range_go_the_quick_way_and_are_infinite(dtype):
    tensor = quick_tensor([1.5, 1e39, -1e39], BY_NAME[dtype], has_bools=False)
    assert tensor is not None
    assert tensor.tolist() == [1.5, math.inf, -math.inf]


def test_strings_of_every_form_go_the_quick_way():
    tensor = quick_tensor([["a", {"b64": "AP8="}], [{"b64": "A P8"}, "é"]], BY_NAME["string"], has_bools=True)
    assert tensor is not None
    assert tensor.tolist() == [[b"a", b"\0\xff"], [b"\0\xff", "é".encode()]]


@pytest.mark.parametrize("value", [[["ab"], "c"], [["a"], {"b64": "AAAA"}], ["a", {"b64": "*"}], ["a", {}], ["a", 1]])
def test_what_only_looks_like_strings_is_refused(value):
    with pytest.raises(ScoringError):
        tensor_of(value, BY_NAME["string"], has_bools=True)


def test_rows_that_numpy_has_no_rank_for_are_refused():
    deep = b"[" * 64 + b"1" + b"]" * 64
    for body in (b'{"instances":[%b]}' % deep, b'{"instances":[%b,[1]]}' % deep):
        with pytest.raises(ScoringError) as caught:
            predict(body, signature("x"))
        assert caught.value.kind is Kind.INVALID


def random_json(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(7 if depth < 5 else 4)
    if kind < 4:
        return [rng.randrange(10**6), rng.random(), None, 'é"\n' * rng.randrange(60)][kind]
    if kind < 6:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(12))]
    return {f"{i}" * rng.randrange(1, 40): random_json(rng, depth + 1) for i in range(rng.randrange(6))}


def test_a_shown_value_is_the_beginning_of_its_text():
    rng = random.Random(0)
    cut = 0
    for _ in range(3000):
        value = random_json(rng)
        text = orjson.dumps(value).decode()
        wanted = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
        assert show(value) == wanted
        cut += wanted != text
    assert cut > 100


@pytest.mark.parametrize("length", range(250, 262))
def test_a_shown_value_is_cut_at_exactly_its_limit(length):
    for value in ("x" * (length - 2), ["x" * (length - 4)], {"k" * (length - 6): 1}, [11] * (length // 3)):
        text = orjson.dumps(value).decode()
        assert show(value) == (text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


@pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (1, 9), (9, 1), (2, 3, 4), (1, 1, 40)])
def test_an_answer_written_in_blocks_is_the_same_text(monkeypatch, shape, size):
    tensor = np.arange(math.prod(shape), dtype=np.float32).reshape(shape) / 7
    broken = tensor.copy()
    broken.ravel()[[0, 3, -1]] = [np.nan, np.inf, -np.inf]
    whole = [dumps(json_value(each)) for each in (tensor, broken)]
    monkeypatch.setattr(json_text, "_BLOCK_ELEMENTS", size)
    assert [dumps(json_value(each)) for each in (tensor, broken)] == whole


def test_rows_with_and_without_nan_stand_side_by_side():
    tensor = np.array([[1, 2], [math.nan, 3], [4, math.inf]], np.float32)
    assert dumps(json_rows(tensor)) == b"[[1.0,2.0],[NaN,3.0],[4.0,Infinity]]"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_list_written_in_runs_is_the_same_text(count):
    items = [{"a": i} for i in range(count)]
    assert dumps(json_list(iter(items), 3)) == dumps(items)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("count", [1, 2, 900])
def test_ranks_are_those_of_a_sort_with_ties_and_nan(k, count):
    scores = np.random.default_rng(k).integers(0, 4, (count, 7)).astype(np.float32)
    scores[scores == 3] = np.nan
    scores[0, :2] = [np.inf, -np.inf]
    found = json.loads(encode_top(scores, k, [f"c{i}" for i in range(5)], single=False))
    for row, best in zip(scores.tolist(), found, strict=True):
        order = sorted(range(7), key=lambda i: (-row[i] if not math.isnan(row[i]) else math.inf, i))[:k]
        assert [place["index"] for place in best] == order
        assert [place.get("label") for place in best] == [f"c{i}" if i < 5 else None for i in order]
        np.testing.assert_array_equal([place["score"] for place in best], [row[i] for i in order])


# --- JSON text


def test_infs_are_spelled_out_around_strings_of_any_length():
    text = ["Inf", '"Inf"', "-Inf", '"\\"Inf"', "Infinity", '"' + "Inf" * 3000 + '"', "1"] * 2000
    found = parse_json(f"[{','.join(text)}]".encode())
    assert found[:5] == [math.inf, "Inf", -math.inf, '"Inf', math.inf]
    assert found == found[:7] * 2000


@pytest.mark.parametrize("before", ["", '"\\\\ud800", ', '"\\ud83d\\ude00", ' * 5000, '"\\u0041\\n", '])
@pytest.mark.parametrize(
    ("last", "sound"),
    [
        ('"\\ud83d\\ude00"', True),
        ('"\\ud83d"', False),
        ('"\\ude00"', False),
        ('"\\ud83dx\\ude00"', False),
        ('"\\ud83d\\ud83d\\ude00"', False),
        ('"\\\\ud83d"', True),
        ('"\\\\\\ud83d"', False),
        ('"a"] "\\ud83d"', True),  # what follows the document is not looked at
    ],
)
def test_half_a_surrogate_pair_is_refused_beside_a_nan(before, last, sound):
    body = f"[NaN, {before}{last}]".encode()
    if sound:
        assert parse_json(body)[-1] == json.JSONDecoder().raw_decode(f"[{last}]")[0][-1]
    else:
        with pytest.raises(ScoringError, match="surrogate"):
            parse_json(body)


@pytest.mark.parametrize("text", ['{"a": [1, "é"]}', " [NaN]", " {} rest"])
def test_json_after_a_byte_order_mark_is_read(text):
    assert repr(parse_json(b"\xef\xbb\xbf" + text.encode())) == repr(parse_json(text.encode()))


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"\xef\xbb{}"])
def test_a_byte_order_mark_alone_or_twice_or_cut_is_refused(body):
    with pytest.raises(ScoringError, match="JSON Parse error"):
        parse_json(body)


# --- bodies


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64])
def test_a_form_is_the_same_through_any_window(monkeypatch, window):
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
    form = head + b"\r\n-- \r\n--a content" + b"\r\n--b--\r\n"
    monkeypatch.setattr(bodies, "_WINDOW_BYTES", window)
    assert single_file(form, "multipart/form-data; boundary=b") == b"\r\n-- \r\n--a content"
    with pytest.raises(ScoringError, match="ends early"):
        single_file(form[:-6], "multipart/form-data; boundary=b")


def test_a_body_that_begins_with_a_great_deal_of_space_is_not_searched_for_json():
    assert body_format(b" " * 2**16 + b"[1]") == "json"
    assert body_format(b" " * (2**16 + 1) + b"[1]") == "other"
