"""A device that is lost while a server serves, several instances of a model, and what is told of them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from server_process import STOP_LIMIT_S, Server, serving, wait_until
from talk import Answer, Calls, Scrape, ask, instances, row

from model_builders import synthetic_model

SPEC = 'behaviour = "double"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
PREDICT = "/v1/models/m:predict"
A_FEW_RUNS = 12  # of which the self-check takes some


def model(folder: Path, name: str, settings: str = "", own_file: str = "") -> str:
    path = synthetic_model(folder / f"{name}.synthetic.toml", SPEC.format(settings=settings))
    if own_file:
        (folder / f"{name}.accelserve.toml").write_text(own_file)
    return f"--model={name}={path}"


def losing(folder: Path, settings: str = "") -> str:
    return model(folder, "m", f"lose_device_after = {A_FEW_RUNS}\n{settings}")


def ask_until_lost(server: Server) -> Answer:
    """The first answer that is not 200."""
    return wait_until(lambda: answer if (answer := ask(server, PREDICT, instances((1, 2)))).status != 200 else None)


def test_a_lost_device_is_503_with_the_reason_and_comes_back_by_itself(tmp_path):
    # It takes a while to come back, so that there is time to ask while it is gone.
    slow = losing(tmp_path, "load_delay_ms = 3000.0")
    with serving(slow, log=tmp_path / "log") as server, Calls(server) as calls:
        failed = ask_until_lost(server)
        assert (failed.status, failed.headers["x-accelserve-reason"]) == (503, "device_lost")
        assert int(failed.headers["retry-after"]) >= 1
        refused = ask(server, PREDICT, instances((1, 2)))
        assert (refused.status, refused.headers["x-accelserve-reason"]) == (503, "device_lost")
        assert int(refused.headers["retry-after"]) >= 1
        error = calls.start("m", {"x": row(1, 2)}).exception()
        trailing = dict(error.trailing_metadata())
        assert (error.code(), trailing["x-accelserve-reason"]) == (grpc.StatusCode.UNAVAILABLE, "device_lost")
        assert int(trailing["retry-after"]) >= 1
        assert ask(server, "/readyz").status == 503
        (status,) = ask(server, "/v1/models/m").json["model_version_status"]
        assert status["status"]["error_code"] == "UNAVAILABLE"
        wait_until(lambda: ask(server, "/readyz").status == 200)
        assert ask(server, PREDICT, instances((1, 2))).json["predictions"] == [[2.0, 4.0]]
        (status,) = ask(server, "/v1/models/m").json["model_version_status"]
        assert (status["state"], status["status"]["error_code"]) == ("AVAILABLE", "OK")


def test_a_device_that_this_process_can_never_use_again_ends_it_with_6(tmp_path):
    arguments = (losing(tmp_path, "sticky_loss = true"), "--reload-attempts=1")
    with serving(*arguments, log=tmp_path / "log") as server:
        ask_until_lost(server)
        assert server.process.wait(STOP_LIMIT_S) == 6
        said = server.log.read_text()
    assert "is tried again in" in said
    assert "the server ends: m:1: cpu:0 was lost, as asked for; 1 failed reloads" in said


def test_without_reloads_a_lost_device_ends_the_process_at_once(tmp_path):
    with serving(losing(tmp_path), "--reload-attempts=0", log=tmp_path / "log") as server:
        ask_until_lost(server)
        assert server.process.wait(STOP_LIMIT_S) == 6


def test_a_lost_device_does_not_end_a_server_that_serves_another_model(tmp_path):
    arguments = (losing(tmp_path, "sticky_loss = true"), model(tmp_path, "other"), "--reload-attempts=1")
    with serving(*arguments, log=tmp_path / "log") as server:
        ask_until_lost(server)
        wait_until(lambda: "1 failed reloads" in ask(server, "/v1/models/m").body.decode())
        assert ask(server, "/v1/models/other:predict", instances((1, 2))).status == 200
        assert ask(server, "/readyz").json["models"]["other"] == "AVAILABLE"
        assert ask(server, PREDICT, instances((1, 2))).status == 503
        assert server.stop() == 0


# --- instances


@pytest.mark.parametrize("how", ["--instances=3", "own file", "table"])
def test_several_instances_run_at_once_and_are_counted(tmp_path, how):
    own_file = "[batching]\nmax_batch_size = 1\n"
    if how == "own file":
        own_file = "instances = 3\n" + own_file
    arguments = [model(tmp_path, "m", "delay_ms = 1000.0\ndelay_if_contains = 7.0", own_file)]
    if how == "table":
        path = arguments[0].rpartition("=")[2]
        (tmp_path / "server.toml").write_text(f"[models.m]\npath = {json.dumps(path)}\ninstances = 3\n")
        arguments = [f"--config={tmp_path / 'server.toml'}"]
    elif how.startswith("--"):
        arguments.append(how)
    with serving(*arguments, log=tmp_path / "log") as server, ThreadPoolExecutor(4) as pool:
        assert Scrape(server).sum("accelserve_instances", model="m", state="serving") == 3
        assert Scrape(server).sum("accelserve_instances", model="m", state="lost") == 0
        asked = [pool.submit(ask, server, PREDICT, instances((7, i))) for i in range(4)]
        wait_until(lambda: Scrape(server).sum("accelserve_batches_running", model="m") == 3)
        assert Scrape(server).sum("accelserve_queue_rows", model="m") == 1
        answers = [future.result() for future in asked]
        assert [answer.json["predictions"] for answer in answers] == [[[14.0, 2.0 * i]] for i in range(4)]
        assert {answer.headers["x-accelserve-device"] for answer in answers} == {"cpu:0"}
        assert Scrape(server).sum("accelserve_batches_total", model="m", device="cpu:0") == 4
        assert "in 3 instances" in server.log.read_text()
