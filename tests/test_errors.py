"""The one table of what can go wrong."""

import json

import grpc
import pytest

from accelserve.errors import ExitCode, Kind, Outcome, ScoringError


def test_the_table_is_the_contracts():
    rows = {kind.name: (kind.http_status, kind.grpc_code) for kind in Kind}
    assert rows["INVALID"] == (400, 3)
    assert rows["UNDECODABLE"] == (422, 3)
    assert rows["PRECONDITION"] == (400, 9)
    assert rows["NOT_FOUND"] == (404, 5)
    assert rows["CONFLICT"] == (409, 9)
    assert rows["TOO_LARGE"] == (413, 8)
    assert rows["DEADLINE"] == (504, 4)
    assert rows["CANCELLED"] == (499, 1)
    assert rows["UNSUPPORTED"] == (501, 12)
    assert rows["INTERNAL"] == (500, 13)
    for name in ("OVERLOADED", "LOADING", "PROGRAMMING", "DEVICE_LOST", "DEVICE_MEMORY", "DRAINING"):
        assert rows[name] == (503, 14)


def test_kinds_with_equal_rows_are_still_different_kinds():
    assert Kind.INVALID is not Kind.MALFORMED
    assert len({kind.value for kind in Kind}) == len(list(Kind))


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_grpc_code_and_an_outcome_that_is_no_answer(kind):
    assert kind.grpc_code in {code.value[0] for code in grpc.StatusCode}
    assert kind.outcome is not Outcome.ANSWERED


def test_exit_codes_follow_the_error_that_was_decisive():
    found = [ExitCode.of(kind) for kind in (Kind.NOT_FOUND, Kind.CONFLICT, Kind.DEVICE_MISSING, Kind.PRECONDITION)]
    assert found == [4, 5, 6, 3]


def test_a_message_can_be_said_in_every_protocol():
    error = ScoringError(Kind.NOT_FOUND, "no such file: \udcff.onnx \u00e9")
    assert error.message == "no such file: ?.onnx \u00e9"
    json.dumps(error.message, ensure_ascii=False).encode()
