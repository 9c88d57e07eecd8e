"""Warm-up and the proof that a row's answer does not depend on its batch."""

import numpy as np
import pytest

from accelserve.backends.base import BatchResult, Device, Placement
from accelserve.batching.policy import BatchPolicy
from accelserve.codecs.round_trip import check_round_trip
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.self_check import check_session, run_sizes
from accelserve.tensors import BY_NAME, STRING, Signature, TensorSpec

FLOAT = BY_NAME["float32"]


def spec(name, shape, dtype=FLOAT):
    return TensorSpec(name, dtype, shape, name)


class FakeSession:
    """Answers with `answer(inputs)`; remembers how many rows each run had."""

    device = Device("cpu:0", DeviceKind.CPU, "fake")
    placement = Placement()

    def __init__(self, answer, shape=(-1, 3), dtype=FLOAT, name="serving_default"):
        self.answer = answer
        self.ran = []
        signature = Signature(name, {"x": spec("x", shape, dtype)}, {"y": spec("y", shape)})
        self.signatures = {name: signature}

    def run(self, batch):
        self.ran.append(batch.inputs["x"].shape[0])
        return BatchResult({"y": self.answer(batch.inputs["x"])})

    def close(self):
        pass


UP_TO_8 = BatchPolicy(max_batch_size=8)


def check(session, policy=UP_TO_8, deterministic=False, codecs=check_round_trip):
    return check_session(session, policy, codecs, deterministic)


def test_an_honest_model_passes_and_is_warmed_at_its_smallest_and_largest_batch():
    session = FakeSession(lambda x: x * 2)
    report = check(session)
    assert report.passed
    assert {1, 8} <= set(session.ran)


def test_every_allowed_batch_size_is_run():
    session = FakeSession(lambda x: x * 2)
    policy = BatchPolicy(max_batch_size=8, allowed_batch_sizes=(2, 4, 8))
    assert run_sizes(policy) == (2, 4, 8)
    assert check(session, policy).passed
    assert {2, 4, 8} <= set(session.ran)


def test_a_device_that_takes_one_row_is_asked_with_one():
    session = FakeSession(lambda x: x * 2)
    assert check(session, BatchPolicy(max_batch_size=1)).passed
    assert set(session.ran) == {1}


def test_a_model_that_mixes_its_rows_fails_and_is_told_the_remedy():
    with pytest.raises(ScoringError, match="max_batch_size = 1") as caught:
        check(FakeSession(lambda x: x - x.mean(axis=0, keepdims=True)))
    assert caught.value.reason == "self_check"


def test_a_difference_in_the_last_bits_is_within_tolerance_unless_the_back_end_claims_determinism():
    def wobbly(x):
        return x + np.float32(1e-6) * (len(x) > 1)

    assert check(FakeSession(wobbly)).passed
    with pytest.raises(ScoringError):
        check(FakeSession(wobbly), deterministic=True)


def test_a_model_that_lies_about_its_batch_axis_fails():
    with pytest.raises(ScoringError, match="free first axis"):
        check(FakeSession(lambda x: x.sum(axis=0, keepdims=True)[:1] if len(x) == 8 else x))


def test_a_codec_that_changes_tensors_fails_the_load():
    def broken(tensors):
        raise ScoringError(Kind.INTERNAL, "the codec lies")

    with pytest.raises(ScoringError, match="the codec lies"):
        check(FakeSession(lambda x: x), codecs=broken)


def test_a_model_that_refuses_all_samples_is_not_failed_but_said_to_be_unchecked():
    def refuse(x):
        raise ScoringError(Kind.INVALID, "only primes")

    report = check(FakeSession(refuse))
    assert not report.passed
    assert not report.suspect
    assert "only primes" in report.detail


def test_a_model_whose_every_run_fails_for_its_own_reasons_is_suspect():
    def fail(x):
        raise ScoringError(Kind.INTERNAL, "no kernel")

    report = check(FakeSession(fail))
    assert (report.passed, report.suspect) == (False, True)


def test_a_lost_device_fails_the_load():
    def lose(x):
        raise ScoringError(Kind.DEVICE_LOST, "gone")

    with pytest.raises(ScoringError, match="gone"):
        check(FakeSession(lose))


def test_a_model_that_decodes_pictures_is_asked_with_a_picture():
    seen = []

    def decode(x):
        seen.append(x[0])
        if not bytes(x[0]).startswith(b"\x89PNG"):
            raise ScoringError(Kind.UNDECODABLE, "no picture")
        return np.ones((len(x),), np.float32)

    assert check(FakeSession(decode, shape=(-1,), dtype=STRING)).passed
    assert len(seen[0]) > 60


def test_several_signatures_without_a_default_are_not_run():
    session = FakeSession(lambda x: x, name="train")
    session.signatures["infer"] = session.signatures["train"]
    report = check(session)
    assert not report.passed
    assert session.ran == []


def test_a_model_without_a_batch_axis_runs_once_as_it_is():
    session = FakeSession(lambda x: x, shape=(4,))
    assert check(session).passed
    assert session.ran == [4]


@pytest.mark.parametrize("dtype", ["int64", "bool", "string", "uint8", "float16"])
def test_a_model_that_gives_every_row_the_first_rows_answer_fails_for_every_dtype(dtype):
    def first_row(x):
        return np.repeat(x[:1], len(x), axis=0)

    session = FakeSession(first_row, shape=(-1, 1), dtype=BY_NAME[dtype])
    session.signatures = {
        "serving_default": Signature(
            "serving_default", {"x": spec("x", (-1, 1), BY_NAME[dtype])}, {"y": spec("y", (-1, 1), BY_NAME[dtype])}
        )
    }
    with pytest.raises(ScoringError, match="differs from the same row alone"):
        check(session)


def test_an_output_named_like_an_input_does_not_hide_it_from_the_codecs():
    seen = []
    session = FakeSession(lambda x: x * 2)
    inputs = session.signatures["serving_default"].inputs
    session.signatures = {"serving_default": Signature("serving_default", inputs, {"x": spec("x", (-1, 3))})}
    session.run = lambda batch: BatchResult({"x": batch.inputs["x"] * 2})
    check(session, codecs=lambda tensors: seen.append(tensors["x"].sum()))
    assert seen[1] == pytest.approx(2 * seen[0])
