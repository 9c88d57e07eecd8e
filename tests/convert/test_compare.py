from collections.abc import Callable, Mapping

import numpy as np
import pytest

from accelserve.backends.base import Batch, BatchResult, Placement
from accelserve.backends.host import cpu_device
from accelserve.convert.compare import compare, compare_widely, difference
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, Tensor, TensorSpec

FLOAT = BY_NAME["float32"]
SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", FLOAT, (-1, 2), "x:0")},
    {"y": TensorSpec("y", FLOAT, (-1, 2), "y:0")},
)
ROWS = {"x": np.array([[1, 2], [3, 4], [5, 6]], np.float32)}


class Answers:
    """A session that answers with a function of its input."""

    signatures: Mapping[str, Signature] = {"serving_default": SIGNATURE}
    device = cpu_device()
    placement = Placement()

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        self._answer = answer

    def run(self, batch: Batch) -> BatchResult:
        return BatchResult({"y": self._answer(batch.inputs["x"])})

    def close(self) -> None:
        pass


def double(x: Tensor) -> Tensor:
    return x * np.float32(2)


def compared(candidate: Callable[[Tensor], Tensor], tolerance: float = 1e-4, reference=double):
    return compare(Answers(reference), Answers(candidate), SIGNATURE, [("rows", ROWS)], tolerance)


def test_equal_models_compare_equal_in_a_batch_and_alone():
    found = compared(double)
    assert (found.equal, found.error, found.batch_sizes, found.rows_independent) == (True, 0.0, (1, 3), True)


def test_a_difference_is_measured_against_the_largest_magnitude():
    found = compared(lambda x: double(x) + np.float32(0.012), tolerance=1e-3)
    assert found.error == pytest.approx(0.012 / 4, rel=1e-3)  # the first row alone reaches 4, the whole batch 12
    assert not found.equal
    assert compared(lambda x: double(x) + np.float32(0.0012), tolerance=1e-3).equal


def test_rows_that_mix_are_seen_though_the_batch_agrees():
    def mixes(x: Tensor) -> Tensor:
        return double(x) + np.float32(len(x) > 1)

    found = compared(mixes, reference=mixes)
    assert found.equal
    assert found.rows_independent is False


def test_a_wrong_shape_is_a_difference_with_both_told():
    found = compared(lambda x: double(x)[:, :1])
    assert not found.equal
    assert found.outputs[0].note == "want float32[3,2], got float32[3,1]"


def test_nan_and_infinity_have_to_be_in_the_same_places():
    wanted = np.array([1, np.nan, np.inf], np.float32)
    assert difference(wanted, wanted) == 0.0
    assert difference(np.array([1, 2, np.inf], np.float32), wanted) == float("inf")
    assert difference(np.array([1, np.nan, -np.inf], np.float32), wanted) == float("inf")


def test_integers_and_strings_have_to_be_equal():
    assert difference(np.array([1, 2]), np.array([1, 2])) == 0.0
    assert difference(np.array([1, 2]), np.array([1, 3])) == float("inf")
    assert difference(np.array([b"a"], object), np.array([b"b"], object)) == float("inf")


def test_an_output_of_zeros_is_compared_as_it_is():
    assert difference(np.full(3, 0.5, np.float32), np.zeros(3, np.float32)) == 0.5


def test_the_first_sample_that_the_reference_takes_is_used():
    def picky(x: Tensor) -> Tensor:
        if x[0, 0] < 0:
            raise ScoringError(Kind.INVALID, "negative")
        return double(x)

    samples = [("negative", {"x": -ROWS["x"]}), ("positive", ROWS)]
    assert compare(Answers(picky), Answers(double), SIGNATURE, samples).sample == "positive"


def test_no_sample_that_fits_is_said_with_the_remedy():
    def refuses(x: Tensor) -> Tensor:
        raise ScoringError(Kind.INVALID, "too small")

    with pytest.raises(ScoringError, match=r"too small.*--sample FILE"):
        compare(Answers(refuses), Answers(double), SIGNATURE, [("rows", ROWS)])


def test_a_failing_device_is_not_taken_for_a_sample_that_does_not_fit():
    def loses(x: Tensor) -> Tensor:
        raise ScoringError(Kind.DEVICE_LOST, "gone")

    with pytest.raises(ScoringError) as error:
        compare(Answers(loses), Answers(double), SIGNATURE, [("rows", ROWS)])
    assert error.value.kind is Kind.DEVICE_LOST


def widely(candidate: Callable[[Tensor], Tensor], reference=double):
    return compare_widely(Answers(reference), Answers(candidate), SIGNATURE, [("rows", ROWS)])


def test_a_difference_below_zero_alone_is_found():
    first, second = widely(lambda x: double(np.abs(x)))
    assert (first.equal, second.equal) == (True, False)
    assert second.sample == "rows, numbers of both signs"


def test_numbers_that_the_reference_makes_no_sense_of_prove_nothing():
    def refuses_negatives(x: Tensor) -> Tensor:
        if (x < 0).any():
            raise ScoringError(Kind.INVALID, "negative")
        return double(x)

    assert [c.equal for c in widely(lambda x: double(np.abs(x)), refuses_negatives)] == [True]
    with np.errstate(invalid="ignore"):
        assert [c.equal for c in widely(lambda x: np.sqrt(np.abs(x)), np.sqrt)] == [True]
