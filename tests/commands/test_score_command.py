"""What `accelserve score` prints of outcomes, however they end."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelserve.commands.score import _run
from accelserve.errors import ExitCode, Kind, ScoringError
from accelserve.score_files.files import Found
from accelserve.score_files.results import Outcome, Place, Scored, Spent

FILES = [Found(Path(f"{number}.jpg")) for number in range(3)]
NO_START = ScoringError(Kind.PRECONDITION, "init() failed")


def outcomes(count: int, end: BaseException) -> Iterator[Outcome]:
    for found in FILES[:count]:
        yield Scored(found.path, (Place(7, "seven", 0.75),), None, Spent(1.0))
    raise end


def run(ends: Iterator[Outcome], as_json: bool) -> ExitCode:
    return _run(argparse.Namespace(json=as_json), FILES, ends)


def test_ctrl_c_keeps_what_there_is(capsys):
    assert run(outcomes(2, KeyboardInterrupt()), as_json=True) is ExitCode.UNFORESEEN
    document = json.loads(capsys.readouterr().out)
    assert [file["file"] for file in document["files"]] == ["0.jpg", "1.jpg"]
    assert document["summary"]["interrupted"]
    assert run(outcomes(2, KeyboardInterrupt()), as_json=False) is ExitCode.UNFORESEEN
    assert "2 scored, 0 failed, 1 not tried" in capsys.readouterr().out


def test_a_scripts_second_process_that_does_not_start_leaves_the_answers_of_the_first(capsys):
    with pytest.raises(ScoringError, match="init"):
        run(outcomes(1, NO_START), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["summary"]["scored"], document["summary"]["interrupted"]) == (1, True)


def test_a_script_that_never_starts_has_no_document(capsys):
    with pytest.raises(ScoringError, match="init"):
        run(outcomes(0, NO_START), as_json=True)
    assert capsys.readouterr().out == ""
