"""Two models, and two versions, for the one emulated card, as their clients see it."""

import shutil

import grpc
import numpy as np
from server_process import serving, wait_until
from talk import Calls, ask, instances

from model_builders import onnx_mlp

ROW = np.random.default_rng(3).normal(size=(1, 16)).astype(np.float32)
PREDICT = "/v1/models/m:predict"


def test_a_second_model_gets_409_and_the_name_of_the_first(tmp_path):
    for name in ("m", "n"):
        onnx_mlp(tmp_path / f"{name}.onnx", features=16)
    models = [f"--model={name}={tmp_path / name}.onnx" for name in ("m", "n")]
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "ACCELSERVE_LEASE_DIR": str(tmp_path / "leases")}
    with serving(*models, "--device=fpga-emulator", log=tmp_path / "log", environ=environ) as server:
        answers = {name: ask(server, f"/v1/models/{name}:predict", instances(*ROW.tolist())) for name in ("m", "n")}
        served, refused = sorted(answers, key=lambda name: answers[name].status)
        assert [answers[served].status, answers[refused].status] == [200, 409]
        holder = f"model {refused} has no device: device fpga-emulator:0 is held by {served} (process "
        assert f"{holder}{server.process.pid})" in answers[refused].json["error"]
        with Calls(server) as calls:
            call = calls.start(refused, {"images": ROW})
            assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert holder in call.details()
    assert [path.name for path in (tmp_path / "leases").iterdir()] == ["fpga-emulator%3A0.lease"]


def test_while_the_card_is_programmed_with_a_new_version_clients_are_told_to_come_back(tmp_path):
    base = tmp_path / "m"
    (base / "1").mkdir(parents=True)
    onnx_mlp(base / "1" / "model.onnx", features=16)
    (base / "accelserve.toml").write_text('device = "fpga-emulator"\n[backend]\nflash_s = 1.5\n')
    with serving(
        f"--model=m={base}",
        "--poll-interval=0.05",
        log=tmp_path / "log",
        environ={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    ) as server:
        before = ask(server, PREDICT, instances(*ROW.tolist()))
        assert before.status == 200
        shutil.copytree(base / "1", tmp_path / "next")
        (tmp_path / "next").rename(base / "2")

        def refused_while_programming():
            answer = ask(server, PREDICT, instances(*ROW.tolist()))
            return answer if b"programmed" in answer.body else None

        answer = wait_until(refused_while_programming)
        assert answer.status == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 2
        assert "fpga-emulator:0 is being programmed with m:2" in answer.json["error"]
        with Calls(server) as calls:
            assert calls.start("m", {"images": ROW}).code() is grpc.StatusCode.UNAVAILABLE
        told = ask(server, "/readyz/m").json["versions"][0]
        assert (told["version"], told["state"], told["device_state"]) == (2, "LOADING", "programming")

        def served_by_the_new_one():
            answer = ask(server, PREDICT, instances(*ROW.tolist()))
            return answer if answer.headers.get("x-accelserve-model") == "m:2" else None

        assert wait_until(served_by_the_new_one).json == before.json
