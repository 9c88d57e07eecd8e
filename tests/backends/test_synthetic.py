import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import model_builders
from accelserve.backends.base import Batch, DeviceState, ModelArtifact, SessionOptions
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.backends.synthetic.spec import parse_spec
from accelserve.errors import Kind, ScoringError

X = '[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'


class Sleeps(list):
    """Notes the seconds and passes none of them."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def open_session(folder: Path, text: str, sleep=None, backend=None):
    backend = backend or SyntheticBackend(Sleeps() if sleep is None else sleep)
    path = model_builders.synthetic_model(folder / "m.synthetic.toml", text)
    device = backend.inventory().devices[0]
    prepared = backend.prepare(
        ModelArtifact("m", 1, "synthetic", path), device, SessionOptions(), None, lambda what, done: None
    )
    return backend.load(prepared, device, SessionOptions(), None)


def ask(session, *rows: list[float]):
    x = np.array(rows, np.float32)
    return session.run(Batch("serving_default", {"x": x}, ("y",), len(rows)))


def test_echo_answers_with_the_input_under_the_outputs_name(tmp_path):
    assert ask(open_session(tmp_path, X), [1, 2]).outputs["y"].tolist() == [[1, 2]]


def test_double_answers_with_twice_the_input(tmp_path):
    assert ask(open_session(tmp_path, 'behaviour = "double"\n' + X), [1, 2]).outputs["y"].tolist() == [[2, 4]]


def test_an_answer_shares_no_memory_with_the_question(tmp_path):
    x = np.ones((1, 2), np.float32)
    result = open_session(tmp_path, X).run(Batch("serving_default", {"x": x}, ("y",), 1))
    assert not np.shares_memory(result.outputs["y"], x)


def test_the_model_can_lie_in_a_version_folder(tmp_path):
    backend = SyntheticBackend()
    model_builders.synthetic_model(tmp_path / "1" / "synthetic.toml")
    artifact = ModelArtifact("m", 1, "synthetic", tmp_path / "1")
    prepared = backend.prepare(
        artifact, backend.inventory().devices[0], SessionOptions(), None, lambda what, done: None
    )
    assert list(prepared.payload.signature.inputs) == ["x"]


def test_a_run_takes_its_delay_and_more_for_each_row(tmp_path):
    sleeps = Sleeps()
    session = open_session(tmp_path, "load_delay_ms = 100\ndelay_ms = 2\ndelay_per_row_ms = 0.5\n" + X, sleeps)
    ask(session, [1, 2], [3, 4])
    assert sleeps == pytest.approx([0.1, 0.003])


def test_jitter_varies_within_its_bound_and_repeats_with_its_seed(tmp_path):
    delays = []
    for _ in range(2):
        sleeps = Sleeps()
        session = open_session(tmp_path, "jitter_ms = 5\nseed = 7\n" + X, sleeps)
        for _ in range(20):
            ask(session, [1, 2])
        delays.append(list(sleeps))
    assert delays[0] == delays[1]
    assert len(set(delays[0])) == 20
    assert 0 <= min(delays[0]) <= max(delays[0]) <= 0.005


def test_every_nth_run_fails(tmp_path):
    session = open_session(tmp_path, "fail_every = 3\n" + X)
    failed = []
    for number in range(1, 7):
        try:
            ask(session, [1, 2])
        except ScoringError as error:
            failed.append((number, error.kind))
    assert failed == [(3, Kind.INTERNAL), (6, Kind.INTERNAL)]


def test_a_guilty_element_fails_the_whole_batch_and_no_other(tmp_path):
    session = open_session(tmp_path, "fail_if_contains = 13\n" + X)
    with pytest.raises(ScoringError, match="13") as failure:
        ask(session, [1, 2], [13, 4])
    assert failure.value.kind is Kind.INVALID
    assert ask(session, [1, 2]).outputs["y"].tolist() == [[1, 2]]


def test_a_guilty_row_is_reported_as_that_rows_own_error(tmp_path):
    result = ask(open_session(tmp_path, "item_error_if_contains = 13\n" + X), [1, 2], [3, 13], [5, 6])
    assert list(result.item_errors) == [1]
    assert result.outputs["y"].tolist()[2] == [5, 6]


def test_padding_has_no_errors(tmp_path):
    session = open_session(tmp_path, "item_error_if_contains = 13\n" + X)
    x = np.array([[1, 2], [13, 13]], np.float32)
    assert session.run(Batch("serving_default", {"x": x}, ("y",), rows=1)).item_errors == {}


def test_a_lost_device_stays_lost_and_the_health_says_so(tmp_path):
    backend = SyntheticBackend(Sleeps())
    session = open_session(tmp_path, "lose_device_after = 1\n" + X, backend=backend)
    ask(session, [1, 2])
    assert backend.health(session.device).state is DeviceState.READY
    for _ in range(2):
        with pytest.raises(ScoringError) as failure:
            ask(session, [1, 2])
        assert failure.value.kind is Kind.DEVICE_LOST
    assert backend.health(session.device).state is DeviceState.LOST


def test_a_load_error_fails_the_load(tmp_path):
    with pytest.raises(ScoringError, match="out of cheese") as failure:
        open_session(tmp_path, 'load_error = "out of cheese"\n' + X)
    assert failure.value.kind is Kind.PRECONDITION


def test_close_waits_until_the_run_under_way_has_ended(tmp_path):
    entered, leave, order = threading.Event(), threading.Event(), []

    def sleep(seconds: float) -> None:
        entered.set()
        assert leave.wait(10)
        order.append("ran")

    session = open_session(tmp_path, "delay_ms = 1\n" + X, sleep)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, session, [1, 2])
        assert entered.wait(10)
        closing = pool.submit(lambda: (session.close(), order.append("closed")))
        leave.set()
        closing.result(10)
        assert running.result(10).outputs["y"].tolist() == [[1, 2]]
    assert order == ["ran", "closed"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"delay": 1}, "unknown key delay"),
        ({"signature": 1}, "unknown key signature"),
        ({"behaviour": "triple"}, "echo, double"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"delay_ms": True}, "delay_ms"),
        ({"fail_every": 0}, "fail_every"),
        ({"fail_if_contains": "x"}, "fail_if_contains"),
        ({"inputs": {}}, "at least one input"),
        ({"inputs": {"x": {"type": "float32"}}}, "unknown key inputs.x.type"),
        ({"inputs": {"x": {"dtype": "float31"}}}, "float31"),
        ({"inputs": {"x": {"shape": [-2]}}}, "shape"),
        ({"inputs": {"x": {"shape": 3}}}, "shape"),
        ({"inputs": {"x": {"output": ""}}}, "output"),
        ({"inputs": {"x": {"output": "z"}, "y": {"output": "z"}}}, "one output name"),
        ({"behaviour": "double", "inputs": {"x": {"dtype": "string"}}}, "doubled"),
    ],
)
def test_a_description_with_a_mistake_is_refused_naming_it(table, words):
    with pytest.raises(ValueError, match=words):
        parse_spec({"inputs": {"x": {}}, **table})


def test_a_description_that_is_no_toml_is_refused_naming_the_file(tmp_path):
    with pytest.raises(ScoringError, match=r"m\.synthetic\.toml") as failure:
        open_session(tmp_path, "behaviour = ")
    assert failure.value.kind is Kind.PRECONDITION
