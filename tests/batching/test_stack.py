"""Joining requests into a batch and cutting them apart again."""

import numpy as np
import pytest

from accelserve.batching.stack import cut_rows, join_rows, split_rows, stack_rows
from accelserve.errors import Kind, ScoringError


def rows(*values, dtype=np.float32):
    return np.array([[value, -value] for value in values], dtype)


def test_requests_are_joined_in_order():
    batch = stack_rows([rows(1, 2), rows(3)], 3)
    assert np.array_equal(batch, rows(1, 2, 3))
    assert batch.dtype == np.float32


def test_padding_repeats_the_last_row():
    assert np.array_equal(stack_rows([rows(1), rows(2)], 4), rows(1, 2, 2, 2))


def test_one_request_that_fills_the_batch_is_not_copied():
    part = rows(1, 2)
    assert stack_rows([part], 2) is part


def test_one_request_is_padded_too():
    assert np.array_equal(stack_rows([rows(7)], 2), rows(7, 7))


def test_rows_are_joined_and_padded_in_memory_that_is_given():
    out = np.zeros((4, 2), np.float32)
    assert stack_rows([rows(1), rows(2)], 4, out) is out
    assert np.array_equal(out, rows(1, 2, 2, 2))


@pytest.mark.parametrize("out", [np.zeros((4, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((4, 2), np.int8)])
def test_memory_that_does_not_fit_is_left_alone(out):
    assert np.array_equal(stack_rows([rows(1), rows(2)], 4, out), rows(1, 2, 2, 2))
    assert not out.any()


def test_strings_are_joined_and_padded():
    batch = stack_rows([np.array([b"a"], object), np.array([b"\0b\0", b""], object)], 5)
    assert batch.tolist() == [b"a", b"\0b\0", b"", b"", b""]
    assert batch.dtype == object


def test_requests_without_rows_ride_along():
    assert np.array_equal(stack_rows([rows(1), np.empty((0, 2), np.float32)], 2), rows(1, 1))


@pytest.mark.parametrize(
    ("parts", "pad_to"),
    [
        ([rows(1), rows(1, dtype=np.float64)], 2),
        ([rows(1), np.zeros((1, 3), np.float32)], 2),
        ([rows(1), np.float32(1)[()].reshape(())], 2),
        ([rows(1, 2)], 1),
        ([np.empty((0, 2), np.float32)], 1),
    ],
    ids=["dtype", "inner shape", "rank 0", "too many rows", "no row to repeat"],
)
def test_what_cannot_be_joined_is_invalid(parts, pad_to):
    with pytest.raises(ScoringError) as caught:
        stack_rows(parts, pad_to)
    assert caught.value.kind is Kind.INVALID


def test_a_refusal_names_both_tensors():
    with pytest.raises(ScoringError, match=r"float64\[1,2\] cannot join float32\[1,2\]"):
        stack_rows([rows(1), rows(1, dtype=np.float64)], 2)


def test_splitting_gives_views_and_leaves_padding_out():
    batch = rows(1, 2, 3, 3)
    first, second = split_rows(batch, [1, 2])
    assert np.array_equal(first, rows(1))
    assert np.array_equal(second, rows(2, 3))
    assert np.shares_memory(first, batch)
    assert np.shares_memory(second, batch)


def test_splitting_into_single_rows_gives_views_too():
    batch = np.arange(12).reshape(4, 3)[:, 1:]
    pieces = split_rows(batch, [1, 1, 1])
    assert [piece.tolist() for piece in pieces] == [[[1, 2]], [[4, 5]], [[7, 8]]]
    assert all(np.shares_memory(piece, batch) for piece in pieces)
    assert [piece.tolist() for piece in split_rows(np.array([b"a", b"b"], object), [1, 1])] == [[b"a"], [b"b"]]


def test_splitting_undoes_stacking():
    parts = [rows(1, 2), rows(3), rows(4, 5, 6)]
    again = split_rows(stack_rows(parts, 8), [2, 1, 3])
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_a_large_request_is_cut_into_views_of_every_input():
    x, names = rows(1, 2, 3, 4, 5), np.array([b"1", b"2", b"3", b"4", b"5"], object)
    parts = cut_rows({"x": x, "names": names}, 2)
    assert [part["names"].tolist() for part in parts] == [[b"1", b"2"], [b"3", b"4"], [b"5"]]
    assert all(np.shares_memory(part["x"], x) for part in parts)


def test_joining_undoes_cutting():
    inputs = {"x": rows(1, 2, 3, 4, 5), "y": np.arange(5)}
    joined = join_rows(cut_rows(inputs, 2))
    assert list(joined) == ["x", "y"]
    assert all(np.array_equal(joined[name], inputs[name]) for name in inputs)


def test_parts_whose_outputs_do_not_fit_together_name_the_output():
    with pytest.raises(ScoringError, match='output "boxes" of a request that ran in 2 parts') as caught:
        join_rows([{"boxes": np.zeros((1, 3))}, {"boxes": np.zeros((1, 4))}])
    assert caught.value.kind is Kind.PRECONDITION
