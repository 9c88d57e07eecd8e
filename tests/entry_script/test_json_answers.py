"""What scripts return, as JSON: everything that has a form, in three ways with NaN, and the original's way."""

import collections
import datetime
import json
import math

import numpy as np
import pytest

from accelserve.entry_script.json_answers import JsonEncoder

ENCODE = JsonEncoder().encode
WORDS = JsonEncoder("NaN").encode
REFUSE = JsonEncoder("refuse").encode
STRICT = JsonEncoder(strict=True).encode
ALL = pytest.mark.parametrize("encode", [ENCODE, WORDS, REFUSE, STRICT])
OURS = pytest.mark.parametrize("encode", [ENCODE, WORDS, REFUSE])

Point = collections.namedtuple("Point", "x y")


class Frame:
    """What a pandas DataFrame has."""

    columns = ("a",)

    def to_dict(self, orient):
        return [{"a": 1, "orient": orient}]


@ALL
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "text",
        "é€",
        [1, 2.5, [None]],
        (1, 2),
        {"a": {"b": []}, 1: 2},
        2**70,
        {"big": -(2**64)},
        "\ud800",
        ["x" * 10, {"k\ud800": 1}],
        Point(1, 2),
    ],
)
def test_plain_values_mean_the_same_to_every_reader(encode, value):
    assert json.loads(encode(value)) == json.loads(json.dumps(value))


@ALL
def test_nesting_as_deep_as_pythons_own_is_written(encode):
    value = []
    for _ in range(400):
        value = [value]
    assert encode(value) == b"[" * 401 + b"]" * 401


@OURS
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32([[0.1, 2]]), "[[0.1,2.0]]"),
        (np.arange(3), "[0,1,2]"),
        (np.arange(4).reshape(2, 2).T, "[[0,2],[1,3]]"),
        (np.float64(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (np.array("text"), '"text"'),
        (np.array(["a", b"b"], object), '["a","b"]'),
        ({"a": np.uint8([1])}, '{"a":[1]}'),
        (b"text", '"text"'),
        (b"\xff\xd8", '{"b64":"/9g="}'),
        ([bytearray(b"x"), memoryview(b"y")], '["x","y"]'),
        (Point(np.float32(0.5), [b"z"]), '[0.5,["z"]]'),
        (Frame(), '[{"a":1,"orient":"records"}]'),
        (datetime.date(2026, 11, 26), '"2026-11-26"'),
        (collections.OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
    ],
)
def test_arrays_and_bytes_have_a_form(encode, value, text):
    text = text if encode is ENCODE else text.replace("0.1,", f"{float(np.float32(0.1))},")
    assert encode(value) == text.encode()


NOT_FINITE = {"a": [math.nan, math.inf, -math.inf], "b": np.float32([math.nan, 1])}


def test_a_number_that_json_does_not_have_is_null():
    assert ENCODE(NOT_FINITE) == b'{"a":[null,null,null],"b":[null,1.0]}'
    assert ENCODE({"big": 2**70, **NOT_FINITE}) == b'{"big":%d,"a":[null,null,null],"b":[null,1.0]}' % 2**70
    assert ENCODE(np.float32(math.nan)) == b"null"


def test_or_it_is_the_word_that_python_reads():
    assert WORDS(NOT_FINITE) == b'{"a":[NaN,Infinity,-Infinity],"b":[NaN,1.0]}'


@pytest.mark.parametrize("value", [NOT_FINITE, math.nan, {"big": 2**70, "n": math.inf}])
def test_or_it_is_refused(value):
    with pytest.raises(ValueError, match="Out of range"):
        REFUSE(value)


def test_the_strict_form_is_pythons_own():
    assert STRICT({"a": [1, math.nan]}) == b'{"a": [1, NaN]}'
    with pytest.raises(TypeError, match="ndarray is not JSON serializable"):
        STRICT(np.arange(3))


class Odd:
    def tolist(self):
        return self


CIRCLE: list = []
CIRCLE.append(CIRCLE)
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


@OURS
@pytest.mark.parametrize("value", [{1, 2}, object(), {"a": print}, int, [Odd()], CIRCLE, DEEP, {(1, 2): 3}])
def test_what_has_no_form_is_an_error(encode, value):
    with pytest.raises((TypeError, ValueError, RecursionError)):
        encode(value)
