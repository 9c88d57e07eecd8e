"""A batch in memory that the session lends: stacked there once, and no answer of an earlier batch changes."""

import numpy as np

from accelserve.backends.base import Batch, BatchResult, Device, Placement
from accelserve.batching.batch_run import BatchRunner
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.work import Work
from accelserve.clock import MonotonicClock
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, TensorSpec

SPEC = TensorSpec("x", BY_NAME["float32"], (-1, 2), "x")
SIGNATURE = Signature("serving_default", {"x": SPEC}, {"y": TensorSpec("y", BY_NAME["float32"], (-1, 2), "y")})


class Lender:
    """y = 2 x; lends one piece of memory, and notes whether its batches came in it."""

    def __init__(self, lends: bool = True) -> None:
        self.signatures = {"serving_default": SIGNATURE}
        self.device = Device("cpu:0", DeviceKind.CPU, "played")
        self.placement = Placement()
        self.memory = np.zeros((8, 2), np.float32)
        self.in_place: list[bool] = []
        self._lends = lends
        self.asked: list[tuple[str, int]] = []

    def buffers(self, signature, rows):
        self.asked.append((signature, rows))
        return {"x": self.memory[:rows]} if self._lends else None

    def run(self, batch: Batch) -> BatchResult:
        self.in_place.append(np.shares_memory(batch.inputs["x"], self.memory))
        return BatchResult({"y": batch.inputs["x"] * 2})

    def close(self) -> None: ...


def work(*values: float, dtype=np.float32) -> Work:
    return Work(SIGNATURE, {"x": np.array([[value, -value] for value in values], dtype)}, ("y",), len(values), True)


def run(session, *works: Work, sizes: tuple[int, ...] = ()):
    policy = BatchPolicy(max_batch_size=8, allowed_batch_sizes=sizes)
    report = BatchRunner(session, policy, MonotonicClock(), "m").run(works)
    return [outcome["y"].tolist() for _, outcome in report.answers]


def test_several_requests_are_stacked_in_the_sessions_memory():
    lender = Lender()
    assert run(lender, work(1), work(2, 3)) == [[[2, -2]], [[4, -4], [6, -6]]]
    assert lender.in_place == [True]


def test_memory_is_asked_for_the_rows_that_run():
    lender = Lender()
    assert run(lender, work(1), work(2), sizes=(4, 8)) == [[[2, -2]], [[4, -4]]]
    assert lender.asked == [("serving_default", 4)]
    assert lender.memory[:4, 0].tolist() == [1, 2, 2, 2]


def test_a_lone_request_is_left_to_the_session_to_copy():
    lender = Lender()
    run(lender, work(1))
    assert lender.asked == []
    assert lender.in_place == [False]


def test_without_memory_to_lend_a_batch_is_stacked_elsewhere():
    lender = Lender(lends=False)
    assert run(lender, work(1), work(2)) == [[[2, -2]], [[4, -4]]]
    assert lender.in_place == [False]


class OneByOne(Lender):
    """Runs rows one by one; rows that begin with 13 fail."""

    runs_apart = True

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[list[list[float]]] = []

    def run(self, batch: Batch) -> BatchResult:
        self.ran.append(batch.inputs["x"].tolist())
        if batch.inputs["x"][0, 0] == 13:
            raise ScoringError(Kind.INVALID, "thirteen")
        return super().run(batch)


def test_requests_of_a_session_that_runs_apart_are_not_stacked():
    session = OneByOne()
    assert run(session, work(1), work(2, 3)) == [[[2, -2]], [[4, -4], [6, -6]]]
    assert session.ran == [[[1, -1]], [[2, -2], [3, -3]]]
    assert session.asked == []


def test_requests_that_need_padding_are_stacked_all_the_same():
    session = OneByOne()
    assert run(session, work(1), work(2), sizes=(4, 8)) == [[[2, -2]], [[4, -4]]]
    assert session.asked == [("serving_default", 4)]


def test_of_requests_run_apart_a_bad_one_fails_alone():
    policy = BatchPolicy(max_batch_size=8)
    report = BatchRunner(OneByOne(), policy, MonotonicClock(), "m").run([work(1), work(13), work(2)])
    outcomes = [outcome for _, outcome in report.answers]
    assert outcomes[0]["y"].tolist() == [[2, -2]]
    assert outcomes[2]["y"].tolist() == [[4, -4]]
    assert isinstance(outcomes[1], ScoringError)
    assert str(outcomes[1]) == "thirteen"
