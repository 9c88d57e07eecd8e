"""`serve --entry-script`: a script answers /score, beside models that it and clients may ask."""

import json
import stat
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from grpc_health.v1 import health_pb2
from plain_http import ask, check_books, check_log, ended, get, post
from server_process import Server, run_to_end, serving, wait_until
from talk import Scrape

from accelserve.keys import new_keys, write_keys
from model_builders import synthetic_model

DOUBLE = 'behaviour = "double"\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
SCRIPT = """
import json
import os

import accelserve
from azureml.core.model import Model


def init():
    pass


def run(raw_data):
    asked = json.loads(raw_data)
    if "score" in asked:
        return accelserve.score("double", {"x": asked["score"]})
    if "path" in asked:
        return Model.get_model_path(asked["path"])
    if "exit" in asked:
        os._exit(asked["exit"])
    if "address" in asked:
        return [os.environ.get("AZUREML_MODEL_DIR", ""), open("/proc/self/cmdline").read()]
    return asked
"""


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "score.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def double(tmp_path) -> Path:
    return synthetic_model(tmp_path / "double.synthetic.toml", DOUBLE)


def grpc_health(server: Server) -> int:
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return health_pb2.HealthCheckResponse.FromString(check(b"", timeout=10)).status


def test_score_is_the_scripts_and_a_named_model_is_asked_itself(script, double, tmp_path):
    with serving("--entry-script", script, f"--model=double={double}", log=tmp_path / "log") as server:
        assert "serving score.py in 1 worker, double:1" in server.ready
        for path in ("/score", "/api/v1/service/anything/score"):
            answer = post(server, path, {"a": 1})
            assert (answer.status, answer.body) == (200, b'{"a":1}')
            assert answer.headers["x-ms-run-function-failed"] == "False"
        assert post(server, "/score?model=double", {"instances": [[1, 2]]}).json == [[2.0, 4.0]]
        assert post(server, "/v1/models/double:predict", {"instances": [[1, 2]]}).json == {"predictions": [[2.0, 4.0]]}
        answer = get(server, "/score")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert post(server, "/score?model=none", {"a": 1}).status == 404
        check_books(server)
        check_log(server)
        assert server.stop() == 0


def test_a_script_asks_the_servers_models_through_a_socket_of_its_own(script, double, tmp_path):
    arguments = ("--entry-script", script, f"--model=double={double}")
    with (
        TemporaryDirectory(dir="/tmp") as place,  # the path of a Unix socket is short
        serving(*arguments, log=tmp_path / "log", environ={"TMPDIR": place}) as server,
    ):
        assert post(server, "/score", {"score": [[1.0, 2.0]]}).json == {"y": [[2.0, 4.0]]}
        assert post(server, "/score", {"score": [[1.0, 2.0, 3.0]]}).status >= 400
        (folder,) = Path(place).glob("accelserve-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert server.stop() == 0
        assert list(Path(place).iterdir()) == []


def test_with_keys_the_script_still_asks_models_and_clients_need_one(script, double, tmp_path):
    keys = new_keys()
    write_keys(tmp_path / "keys.json", keys)
    arguments = ("--entry-script", script, f"--model=double={double}", "--auth-keys", tmp_path / "keys.json")
    with serving(*arguments, log=tmp_path / "log") as server:
        assert post(server, "/score", {"score": [[1.0, 2.0]]}).status == 401
        key = json.loads((tmp_path / "keys.json").read_text())["primary"]
        answer = post(server, "/score", {"score": [[1.0, 2.0]]}, authorization=f"Bearer {key}")
        assert answer.json == {"y": [[2.0, 4.0]]}
        said = post(server, "/score", {"address": 1}, authorization=f"Bearer {key}").json
        assert key not in said[1]
        assert key not in server.log.read_text()


def test_a_server_with_a_script_needs_no_model(script, tmp_path):
    with serving("--entry-script", script, "--workers", 2, log=tmp_path / "log") as server:
        assert "serving score.py in 2 workers" in server.ready
        assert get(server, "/readyz").json["status"] == "ready"
        assert grpc_health(server) == health_pb2.HealthCheckResponse.SERVING
        assert post(server, "/score", {"a": 1}).status == 200
        assert post(server, "/v1/models/m:predict", {"instances": [1]}).status == 404
        assert Scrape(server).sum("accelserve_script_workers", state="idle") == 2
        assert server.stop() == 0


def test_a_scripts_swagger_is_where_azures_services_had_it(script, tmp_path):
    with serving("--entry-script", script, "--service", "numbers", log=tmp_path / "log") as server:
        path = "/api/v1/service/numbers/swagger.json"
        assert get(server, path).json["swagger"] == "2.0"
        assert get(server, path).json["info"]["title"] == "numbers"
        assert get(server, f"{path}?version=3.1").json["openapi"] == "3.1.0"
        assert "Supported versions: [2, 3, 3.1]" in get(server, f"{path}?version=9").error
        assert path.replace("numbers", "{name}") in get(server, "/swagger.json").json["paths"]


def test_files_and_models_are_found_by_get_model_path(script, double, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.npz").touch()
    arguments = ("--entry-script", script, f"--model=double={double}", f"--model-files=mnist={tmp_path / 'weights'}")
    with serving(*arguments, log=tmp_path / "log") as server:
        assert post(server, "/score", {"path": "mnist"}).json == str(tmp_path / "weights")
        assert post(server, "/score", {"path": "double"}).json == str(double)
        assert post(server, "/score", {"path": "none"}).status == 500


def test_readiness_and_health_follow_the_scripts_workers(script, tmp_path):
    with serving("--entry-script", script, log=tmp_path / "log") as server:
        for _ in range(3):
            wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="idle") == 1)
            answer = post(server, "/score", {"exit": 7})
            assert (answer.status, "exit code 7" in answer.error) == (500, True)
        ready = get(server, "/readyz")
        assert (ready.status, "3 times in a row" in ready.json["reason"]) == (503, True)
        assert grpc_health(server) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert get(server, "/healthz").status == 200
        assert ended(server, reason="script_crashed") == 3
        check_books(server)
        check_log(server)


def test_a_script_that_is_wrong_ends_the_server_before_anything_starts(tmp_path):
    path, log = tmp_path / "score.py", tmp_path / "log"
    path.write_text("def run(): pass\n")
    assert run_to_end(["--entry-script", path], log) == 3
    assert "init()" in log.read_text()
    assert run_to_end(["--entry-script", tmp_path / "none.py"], log) == 4
    path.write_text("def init(): raise ValueError('no weights')\n\ndef run(raw_data): pass\n")
    assert run_to_end(["--entry-script", path], log) == 3
    assert "ValueError: no weights" in log.read_text()


def test_a_model_that_does_not_load_ends_a_server_whose_script_would_ask_it(script, tmp_path):
    broken = synthetic_model(tmp_path / "broken.synthetic.toml", 'load_error = "it is broken"\n' + DOUBLE)
    assert run_to_end(["--entry-script", script, f"--model=double={broken}"], tmp_path / "log") == 3


def test_packed_bodies_and_deadlines_are_the_servers_business(script, tmp_path):
    with serving("--entry-script", script, log=tmp_path / "log") as server:
        assert post(server, "/score", zlib.compress(b'{"a": 1}'), content_encoding="deflate").json == {"a": 1}
        assert ask(server, "POST", "/score", b"{}", x_accelserve_timeout_ms="never").status == 400
        assert post(server, "/score", b"{}", x_accelserve_timeout_ms="60000").status == 200
