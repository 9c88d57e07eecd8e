"""What is printed."""

import io
import json
import math
from pathlib import Path

from accelserve.score_files.results import Failed, Place, Scored, Spent
from accelserve.score_files.telling import (
    JsonFiles,
    Tally,
    labels_problem,
    outcome_json,
    outcome_lines,
    quantile,
    shown,
    summary_json,
    summary_lines,
)

SPENT = Spent(10.0, queue_ms=1.0, decode_ms=2.0, compute_ms=4.0, rows=8)


def scored(*best: Place, answer: object = None, path: str = "a.jpg") -> Scored:
    return Scored(Path(path), best or None, answer, SPENT, "cpu:0")


def test_the_best_classes_stand_below_the_file_and_a_single_one_beside_it():
    lines = list(outcome_lines(scored(Place(7, "seven", 0.75), Place(1, None, 0.25))))
    assert [line.split() for line in lines] == [["a.jpg:"], ["1", "0.75", "7", "seven"], ["2", "0.25", "1"]]
    assert [line.split() for line in outcome_lines(scored(Place(7, "seven", 0.75)))] == [
        ["a.jpg:", "0.75", "7", "seven"]
    ]


def test_an_answer_that_is_not_ranked_is_shown_cut():
    assert list(outcome_lines(scored(answer=[1, 2]))) == ["a.jpg: [1, 2]"]
    (line,) = outcome_lines(scored(answer="x" * 1000))
    assert line.endswith("(1000 characters)")
    assert len(line) < 300


def test_no_name_and_no_answer_can_write_to_the_terminal():
    assert shown("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert shown(Path("\udcff.jpg")) == "\\xff.jpg"
    assert shown("half a pair: \ud800") == "half a pair: \\ud800"
    (line,) = outcome_lines(Failed(Path("a"), "500", "bad\x1b[31m\r"))
    assert line == "a: 500: bad\\x1b[31m\\r"


def test_the_network_has_what_the_server_has_not():
    assert SPENT.network_ms == 3.0
    assert Spent(10.0).network_ms is None
    assert Spent(1.0, compute_ms=5.0).network_ms == 0.0  # two clocks


def test_the_summary_counts_what_was_not_tried_and_splits_the_latency():
    tally = Tally()
    tally.add(scored())
    tally.add(scored())
    tally.add(Failed(Path("b"), "422", "no picture"))
    lines = list(summary_lines(tally, 5, 2.0))
    assert lines[0] == "5 files: 2 scored, 1 failed, 2 not tried, 2.0 s, 1.0 files/s"
    assert lines[1].split() == ["computed", "by", "cpu:0"]
    assert lines[3].split() == ["median", "1.00", "2.00", "4.00", "3.00", "10.00"]


def test_without_any_answer_there_is_no_table():
    assert list(summary_lines(Tally(), 1, 0.0)) == ["1 file: 0 scored, 0 failed, 1 not tried, 0.0 s"]


def test_quantiles_are_numbers_that_occurred():
    numbers = list(map(float, range(1, 101)))
    assert (quantile(numbers, 0.5), quantile(numbers, 0.99), quantile(numbers, 1.0)) == (50.0, 99.0, 100.0)
    assert quantile([3.0], 0.5) == 3.0
    assert quantile([], 0.5) is None


def test_json_has_no_nan_and_no_infinity():
    told = [
        outcome_json(scored(Place(1, None, -math.inf))),
        outcome_json(scored(answer={"a": [math.nan, 1.0]})),
        outcome_json(Failed(Path("\udcff"), "500", "bad")),
    ]
    read = json.loads(json.dumps(told, allow_nan=False))
    assert read[0]["top"] == [{"index": 1, "label": None, "score": None}]
    assert read[1]["answer"] == {"a": [None, 1.0]}
    assert read[0]["latency_ms"] == {"queue": 1.0, "decode": 2.0, "compute": 4.0, "network": 3.0, "total": 10.0}
    assert read[2] == {"file": "\udcff", "ok": False, "status": "500", "error": "bad"}


def test_the_summary_as_json_has_no_latency_where_nothing_was_scored():
    assert summary_json(Tally(failed=1), 1, 0.5)["latency_ms"] is None


def test_json_is_written_as_it_comes_and_reads_as_if_written_at_once():
    outcomes = [scored(Place(7, "seven\u2028", 0.75)), Failed(Path("\udcff"), "500", "bad\nworse"), scored(answer={})]
    for count in range(len(outcomes) + 1):
        stream = io.StringIO()
        document = JsonFiles(stream)
        for outcome in outcomes[:count]:
            document.add(outcome)
            assert stream.getvalue().endswith("}")
        document.end({"files": count, "latency_ms": None})
        whole = {
            "files": [outcome_json(one) for one in outcomes[:count]],
            "summary": {"files": count, "latency_ms": None},
        }
        assert stream.getvalue() == json.dumps(whole, indent=2) + "\n"


def test_labels_of_another_count_than_the_classes_are_told():
    tally = Tally()
    assert labels_problem(tally, 1000) == ""
    tally.add(Scored(Path("a"), None, None, SPENT, classes=1001))
    assert labels_problem(tally, 1001) == labels_problem(tally, 0) == ""
    assert labels_problem(tally, 1000).startswith("--labels names 1000 classes, and the answers have 1001")
