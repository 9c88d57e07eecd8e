"""Answers, ranked."""

import json
import math

import pytest

from accelserve.config_sources import ConfigError
from accelserve.score_files.ranking import classes_in, plain_answer, ranked, read_labels


def places(answer, top=2, labels=()):
    found = ranked(answer, top, labels)
    return None if found is None else [(place.index, place.label, place.score) for place in found]


@pytest.mark.parametrize(
    "answer",
    [
        [0.1, 0.7, 0.2],
        [[0.1, 0.7, 0.2]],
        [[[0.1, 0.7, 0.2]]],
        {"scores": [0.1, 0.7, 0.2], "class": "b"},
        {"scores": [[0.1, 0.7, 0.2]], "classes": [1]},
    ],
)
def test_one_vector_of_scores_is_ranked_wherever_it_stands(answer):
    assert places(answer) == [(1, None, 0.7), (2, None, 0.2)]


def test_classes_are_counted_where_all_scores_are_there():
    assert classes_in({"scores": [[0.1, 0.7, 0.2]], "class": "b"}) == 3
    assert classes_in([{"index": 4, "label": "four", "score": 0.9}]) is None


def test_of_equal_scores_the_lower_index_comes_first():
    assert places([0.5, 0.9, 0.9, 0.5]) == [(1, None, 0.9), (2, None, 0.9)]


def test_what_is_no_number_ranks_last():
    assert [index for index, _, _ in places([math.nan, None, 0.1, -5.0], top=4)] == [2, 3, 0, 1]


@pytest.mark.parametrize(
    "answer",
    [
        7,
        [7],
        [3, 5],
        "text",
        None,
        [],
        {},
        [0.5],
        [True, False],
        [[0.1, 0.2], [0.3, 0.4]],
        {"a": [0.1, 0.2], "b": [0.3, 0.4]},
    ],
)
def test_what_is_no_choice_among_classes_is_not_ranked(answer):
    assert ranked(answer, 5) is None


def test_the_servers_own_ranking_is_taken_with_its_labels():
    answer = [{"index": 4, "label": "four", "score": 0.9}, {"index": 1, "label": "one", "score": None}]
    assert places(answer) == [(4, "four", 0.9), (1, "one", -math.inf)]


def test_the_labels_that_were_given_go_before_the_servers():
    answer = [{"index": 1, "label": "one", "score": 0.9}, {"index": 9, "label": "nine", "score": 0.1}]
    assert places(answer, labels=["null", "eins"]) == [(1, "eins", 0.9), (9, "nine", 0.1)]


def test_an_answer_is_its_json_or_its_text():
    assert plain_answer(b"[0.5, 1]") == [0.5, 1]
    assert plain_answer(b"1234") == 1234
    assert plain_answer(b"not json \xff") == "not json �"
    assert plain_answer(b"[" * 100_000).startswith("[[[")


def test_an_answer_nested_deeper_than_any_tensor_is_its_text():
    for deep in (b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"0" + b"}" * 900):
        assert plain_answer(deep) == deep.decode()
    assert plain_answer(b"[" * 64 + b"0.5" + b"]" * 64) != "[" * 64 + "0.5" + "]" * 64


def test_a_number_that_no_float_can_hold_is_infinite():
    huge = 10**400
    assert places([0.5, huge, -huge], top=3) == [(1, None, math.inf), (0, None, 0.5), (2, None, -math.inf)]


def test_json_within_a_json_string_is_unpacked_as_many_scripts_send_it():
    assert plain_answer(json.dumps(json.dumps({"result": [1.5]})).encode()) == {"result": [1.5]}
    assert plain_answer(b'"[unfinished"') == "[unfinished"


def test_labels_are_lines_or_a_json_array(tmp_path):
    file = tmp_path / "labels"
    file.write_text("tench\ngoldfish\n")
    assert read_labels(file) == ("tench", "goldfish")
    file.write_bytes("tench\r\nfish\u2028gold\r\n".encode())
    assert read_labels(file) == ("tench", "fish\u2028gold")
    file.write_text('["tench", "goldfish"]')
    assert read_labels(file) == ("tench", "goldfish")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'["a", 1]', b"[1", b"[" * 100_000])
def test_labels_that_cannot_be_read_are_an_error_of_usage(tmp_path, content):
    file = tmp_path / "labels"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="--labels"):
        read_labels(file)
