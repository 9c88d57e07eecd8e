"""`accelserve.score` in an entry script: a model of the server, asked over gRPC."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from script_worker import JSON, post, worker
from server_process import serving

from accelserve.keys import write_new_keys
from model_builders import onnx_affine

SCRIPT = """
import accelserve, json

def init():
    pass

def run(raw_data):
    asked = json.loads(raw_data)
    return accelserve.score(asked.pop("model", ""), asked.pop("inputs"), **asked)
"""
ASYNC = """
import accelserve, asyncio, json

def init():
    pass

async def run(raw_data):
    return await asyncio.to_thread(accelserve.score, "affine", {"x": json.loads(raw_data)})
"""
BUSY = """
[inputs.x]
dtype = "float32"
shape = [-1]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    slow = folder / "slow.synthetic.toml"
    slow.write_text('behaviour = "echo"\ndelay_ms = 1000\ndelay_if_contains = 7.0\n' + BUSY)
    models = [f"affine={onnx_affine(folder / 'affine.onnx')}", f"slow={slow}"]
    arguments = [part for model in models for part in ("--model", model)]
    with serving(*arguments, log=folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def script(tmp_path_factory, server):
    with worker(tmp_path_factory.mktemp("script"), SCRIPT, score_address=server.grpc) as made:
        yield made


def ask(script, **asked):
    return script.ask(post(json.dumps(asked), *JSON))


def test_a_script_asks_a_model_by_name(script):
    answer = ask(script, model="affine", inputs={"x": [[2.0], [4.0]]})
    assert json.loads(answer.body) == {"y": [[3.0], [4.0]]}


def test_an_async_script_asks_in_a_thread(tmp_path, server):
    with worker(tmp_path, ASYNC, score_address=server.grpc) as made:
        numbers = {made.send(post(f"[[{number}.0]]")): number for number in range(10)}
        for _ in numbers:
            request_id, answer = made.receive()
            assert json.loads(answer.body) == {"y": [[numbers[request_id] * 0.5 + 2]]}


def test_a_mistake_of_the_script_is_its_own(script):
    for asked in ({"model": "none", "inputs": {"x": [[1.0]]}}, {"model": "affine", "inputs": {"z": [1.0]}}):
        assert ask(script, **asked).status == 500


def test_a_time_limit_that_a_script_lets_through_is_the_answer(script):
    answer = ask(script, model="slow", inputs={"x": [7.0]}, timeout_s=0.05)
    assert (answer.status, answer.failed, answer.report) == (504, True, "")


def test_a_run_that_waits_for_a_model_is_ended_by_its_own_time_limit(tmp_path, server):
    with worker(tmp_path, SCRIPT, score_address=server.grpc, timeout_ms=200) as made:
        answer = ask(made, model="slow", inputs={"x": [7.0]}, timeout_s=20)
        assert (answer.status, json.loads(answer.body)) == (504, {"message": "Scoring timeout after 200 ms"})


def test_a_server_that_is_not_there_is_503(tmp_path):
    with worker(tmp_path, SCRIPT, score_address=f"unix:{tmp_path}/none") as made:
        assert ask(made, model="m", inputs={"x": [1.0]}).status == 503


def test_a_server_without_models_is_said_in_the_log(tmp_path):
    with worker(tmp_path, SCRIPT) as made:
        answer = ask(made, model="m", inputs={"x": [1.0]})
    assert answer.status == 500
    assert "this server has no models" in answer.report


def test_a_served_script_has_a_door_to_the_models_that_wants_no_users_key(tmp_path):
    keys = write_new_keys(tmp_path / "keys.json")
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT)
    arguments = ["--entry-script", script, "--model", f"affine={onnx_affine(tmp_path / 'affine.onnx')}"]
    with serving(*arguments, "--auth-keys", tmp_path / "keys.json", log=tmp_path / "log") as running:
        asked = Request(f"{running.http}/score", json.dumps({"model": "affine", "inputs": {"x": [[2.0]]}}).encode())
        with pytest.raises(HTTPError, match="401"):
            urlopen(asked, timeout=30)
        asked.add_header("Authorization", f"Bearer {keys.primary}")
        with urlopen(asked, timeout=30) as answer:
            assert json.load(answer) == {"y": [[3.0]]}
    assert keys.primary not in (tmp_path / "log").read_text()
