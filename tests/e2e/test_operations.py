"""What an operator sees: readiness while models load, many models at once, and the log."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from server_process import Server, end, serving, start, wait_until
from talk import Calls, ask, instances, outputs_of, row

from model_builders import onnx_affine, synthetic_model

DOUBLE = 'behaviour = "double"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
PREDICT = "/v1/models/{}:predict"
Status = health_pb2.HealthCheckResponse


def model(folder: Path, name: str, settings: str = "") -> str:
    path = synthetic_model(folder / f"{name}.synthetic.toml", DOUBLE.format(settings=settings))
    return f"--model={name}={path}"


def health(server: Server, service: str = "") -> int:
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        asked = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        return Status.FromString(check(asked, timeout=10)).status


# --- while a model loads


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def starting(log: Path, *arguments: str) -> Iterator[Server]:
    """A server that listens, ready or not."""
    http_port, grpc_port = free_ports()
    process = start([*arguments, f"--http-port={http_port}", f"--grpc-port={grpc_port}"], log)
    try:
        server = Server(process, f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", log)
        wait_until(lambda: is_alive(server))
        yield server
    finally:
        end(process)


def is_alive(server: Server) -> bool:
    try:
        return ask(server, "/healthz").status == 200
    except ConnectionRefusedError:
        return False


def test_while_a_model_loads_the_server_is_alive_not_ready_and_says_when_to_come_again(tmp_path):
    arguments = (model(tmp_path, "slow", "load_delay_ms = 120000.0"), model(tmp_path, "quick"))
    with starting(tmp_path / "log", *arguments) as server, Calls(server) as calls:
        wait_until(lambda: ask(server, "/readyz/quick").status == 200)
        assert ask(server, "/healthz").status == 200
        ready = ask(server, "/readyz")
        assert (ready.status, ready.json["models"]) == (503, {"slow": "LOADING", "quick": "AVAILABLE"})
        assert ask(server, "/readyz/slow").status == 503
        assert (health(server), health(server, "slow")) == (Status.NOT_SERVING, Status.NOT_SERVING)
        assert health(server, "quick") == Status.SERVING
        assert ask(server, "/v1/models/slow").json["model_version_status"][0]["state"] == "LOADING"
        refused = ask(server, PREDICT.format("slow"), instances((1, 1)))
        assert (refused.status, refused.headers["x-accelserve-reason"]) == (503, "loading")
        assert int(refused.headers["retry-after"]) >= 1
        assert ask(server, "/score?model=slow", b"x").status == 503
        error = calls.start("slow", {"x": row(1, 1)}).exception()
        trailing = dict(error.trailing_metadata())
        assert (error.code(), trailing["x-accelserve-reason"]) == (grpc.StatusCode.UNAVAILABLE, "loading")
        assert int(trailing["retry-after"]) >= 1
        assert ask(server, PREDICT.format("quick"), instances((1, 2))).json["predictions"] == [[2.0, 4.0]]


def test_it_gets_ready_by_itself_when_loading_is_over(tmp_path):
    with starting(tmp_path / "log", model(tmp_path, "m", "load_delay_ms = 1000.0")) as server:
        assert ask(server, "/readyz").status == 503
        assert ask(server, PREDICT.format("m"), instances((1, 1))).status == 503
        wait_until(lambda: ask(server, "/readyz").status == 200)
        assert health(server) == Status.SERVING
        assert ask(server, PREDICT.format("m"), instances((1, 1))).status == 200
        assert "ready: http://" in server.process.stdout.readline()


# --- several models


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("several")
    arguments = (
        model(folder, "double"),
        f"--model=affine={onnx_affine(folder / 'affine.onnx')}",
        model(folder, "broken", 'load_error = "no"'),
        model(folder, "failing", "fail_every = 1"),
        "--log-format=json",
    )
    with serving(*arguments, log=folder / "log") as server:
        yield server


def test_several_models_are_told_apart_by_name(several):
    assert ask(several, "/score?model=double", instances((1, 2))).json == [[2.0, 4.0]]
    assert ask(several, "/score?model=affine", instances((2,))).json == [[3.0]]
    assert ask(several, "/api/v1/service/affine/score", instances((2,))).json == [[3.0]]
    answer = ask(several, "/score?model=double", instances((1, 2)))
    assert answer.headers["x-accelserve-model"] == "double:1"
    with Calls(several) as calls:
        assert outputs_of(calls.start("affine", {"x": row(2)}).result())["y"].tolist() == [[3.0]]
        assert outputs_of(calls.start("double", {"x": row(1, 2)}).result())["y"].tolist() == [[2.0, 4.0]]


def test_the_readiness_of_one_model_tells_where_its_versions_run_and_why_one_does_not(tmp_path):
    (tmp_path / "m").mkdir()
    onnx_affine(tmp_path / "m" / "1" / "model.onnx")
    with serving(f"--model=m={tmp_path / 'm'}", "--poll-interval=0.1", log=tmp_path / "log") as server:
        (tmp_path / "m" / "2").mkdir()
        (tmp_path / "m" / "2" / "model.onnx").write_bytes(b"no model")
        newest, served = wait_until(lambda: both_settled(server))
    assert (newest["version"], newest["state"]) == (2, "END")
    assert "does not load" in newest["error"]
    assert "devices" not in newest
    assert served == {
        "version": 1,
        "state": "AVAILABLE",
        "backend": "onnx_runtime",
        "devices": ["cpu:0"],
        "emulated": False,
        "numerics": "fp32",
        "nodes": {"CPUExecutionProvider": 2},
    }


def both_settled(server: Server) -> list[dict] | None:
    versions = ask(server, "/readyz/m").json["versions"]
    return versions if [each["state"] for each in versions] == ["END", "AVAILABLE"] else None


def test_a_request_that_names_no_model_is_told_which_are_loaded(several):
    refused = ask(several, "/score", instances((1, 2)))
    assert (refused.status, refused.headers["x-accelserve-reason"]) == (400, "model_not_named")
    assert "affine, double, failing" in refused.json["error"]
    assert "broken" not in refused.json["error"]
    with Calls(several) as calls:
        error = calls.start("", {"x": row(1, 2)}).exception()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "affine, double, failing" in error.details()


def test_a_model_that_is_not_there_and_one_that_did_not_load_are_both_404(several):
    assert ask(several, "/score?model=nobody", b"x").status == 404
    broken = ask(several, "/score?model=broken", b"x")
    assert (broken.status, broken.headers["x-accelserve-reason"]) == (404, "load_failed")


def test_the_default_model_answers_for_requests_that_name_none(tmp_path):
    arguments = (model(tmp_path, "double"), f"--model=affine={onnx_affine(tmp_path / 'a.onnx')}")
    with serving(*arguments, "--default-model=double", log=tmp_path / "log") as server, Calls(server) as calls:
        assert ask(server, "/score", instances((1, 2))).json == [[2.0, 4.0]]
        assert ask(server, "/score?model=affine", instances((2,))).json == [[3.0]]
        assert outputs_of(calls.start("", {"x": row(1, 2)}).result())["y"].tolist() == [[2.0, 4.0]]


# --- the log


def lines_of(server: Server) -> list[dict]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_every_line_of_a_json_log_is_an_object_with_time_level_and_message(several):
    lines = lines_of(several)
    assert any("AVAILABLE" in line["message"] for line in lines)
    for line in lines:
        assert {"ts", "level", "logger", "message"} <= line.keys()


def logged_under(server: Server, request_id: str) -> dict:
    """The line with a traceback that a request left behind; every line must parse."""
    return wait_until(lambda: next((e for e in lines_of(server) if e.get("request_id") == request_id), None))


def test_an_internal_failure_is_500_without_a_trace_and_the_log_has_it_under_the_request_id(several):
    answer = ask(several, PREDICT.format("failing"), instances((1, 2)))
    assert answer.status == 500
    assert b"Traceback" not in answer.body
    assert b".py" not in answer.body
    entry = logged_under(several, answer.headers["x-request-id"])
    assert entry["level"] == "ERROR"
    assert "Traceback" in entry["exc"]
    assert "_fail_if_asked" in entry["exc"], "the traceback shows where the model failed"


def test_an_internal_failure_over_grpc_is_logged_under_the_id_that_the_client_chose(several):
    with Calls(several) as calls:
        error = calls.start("failing", {"x": row(1, 2)}, metadata=[("x-request-id", "chosen-1")]).exception()
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "Traceback" not in error.details()
    assert dict(error.trailing_metadata())["x-request-id"] == "chosen-1"
    assert "_fail_if_asked" in logged_under(several, "chosen-1")["exc"]


def test_the_clients_own_mistakes_leave_no_traceback_in_the_log(several):
    before = len(lines_of(several))
    assert ask(several, "/score?model=double", b"\xff\xfe").status in (400, 415)
    assert ask(several, PREDICT.format("double"), b"{").status == 400
    assert ask(several, PREDICT.format("double"), b"{}", {"x-request-id": "two words"}).status == 400
    assert [line for line in lines_of(several)[before:] if line["level"] in ("ERROR", "WARNING")] == []
