"""The very command of an image, as a plain process with the image's environment: serve, be healthy, stop."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from server_process import READY, START_LIMIT_S, Server, end, line_of
from talk import ask, instances

from accelserve.models.store import ModelStore
from dockerfiles import CHECKOUT, IMAGES, Image
from model_builders import onnx_mlp

BUILTIN = CHECKOUT / "server" / "accelserve" / "builtin"
TINI = ["/usr/bin/tini", "--"]
CHECK_LIMIT_S = 20.0
HERE = {
    "ACCELSERVE_HOST": "127.0.0.1",
    "ACCELSERVE_HTTP_PORT": "0",
    "ACCELSERVE_GRPC_PORT": "0",
    "ACCELSERVE_GRACE_PERIOD": "0",
    "MODEL_NAME": "digits",
    "MODEL_BASE_PATH": str(BUILTIN),
}
CPU = [image for image in IMAGES if image.device == "cpu"]
FPGA = [image for image in IMAGES if image.device == "fpga-emulator"]
GPU = [image for image in IMAGES if image.device == "gpu"]


def environment(image: Image, **changes: str) -> dict[str, str]:
    """The image's, with this Python for its own and nothing of ours but what says where the package is."""
    own = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**own, **image.environment, "PATH": path, **HERE, **changes}


def start(image: Image, log: Path, *arguments: str, **changes: str) -> subprocess.Popen:
    """ENTRYPOINT and CMD, and arguments to the latter; without the init where it is not installed."""
    command = image.command
    if not Path(TINI[0]).exists():
        assert command[:2] == TINI
        command = command[2:]
    with log.open("wb") as errors:
        return subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(image, **changes),
            cwd="/",
        )


def is_healthy(image: Image, changes: Mapping[str, str]) -> bool:
    command = image.health_check
    done = subprocess.run(command, env=environment(image, **changes), capture_output=True, timeout=CHECK_LIMIT_S)
    return done.returncode == 0


@pytest.mark.parametrize("image", CPU, ids=str)
def test_an_images_command_serves_is_healthy_and_stops_with_0(tmp_path, image):
    process = start(image, tmp_path / "log")
    try:
        found = READY.search(line_of(process))
        assert found, (tmp_path / "log").read_text()
        server = Server(process, found["http"], found["grpc"], tmp_path / "log")
        port = {"ACCELSERVE_HTTP_PORT": str(server.http_port)}
        assert is_healthy(image, port)
        answer = ask(server, "/score?top=1", (BUILTIN / "pictures" / "digit-7.jpg").read_bytes())
        assert answer.json[0]["label"] == "seven"
        assert server.stop() == 0
        assert not is_healthy(image, port)
        assert "WARNING" not in (tmp_path / "log").read_text()
    finally:
        end(process)


@pytest.mark.parametrize("image", CPU, ids=str)
@pytest.mark.parametrize("told", ["variable", "variable with a model", "flag", "file"])
def test_a_store_wins_over_the_model_that_an_image_names(tmp_path, image, told):
    store = tmp_path / "store"
    for name in ("a", "b"):
        ModelStore(store).register(name, BUILTIN / "digits")
    (tmp_path / "server.toml").write_text('store = "store"\n')
    changes, arguments, served = {
        "variable": ({"ACCELSERVE_STORE": str(store)}, (), "serving a:1 on cpu:0, b:1 on cpu:0"),
        "variable with a model": ({"ACCELSERVE_STORE": str(store), "ACCELSERVE_MODEL": "b:1"}, (), "serving b:1 on"),
        "flag": ({}, ("--store", str(store)), "serving a:1 on cpu:0, b:1 on cpu:0"),
        "file": ({}, ("--config", str(tmp_path / "server.toml")), "serving a:1 on cpu:0, b:1 on cpu:0"),
    }[told]
    process = start(image, tmp_path / "log", *arguments, **changes)
    try:
        assert served in line_of(process), (tmp_path / "log").read_text()
    finally:
        end(process)


@pytest.mark.parametrize("image", GPU, ids=str)
def test_the_gpu_images_command_ends_with_6_where_there_is_no_gpu(tmp_path, image):
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a GPU's driver")
    process = start(image, tmp_path / "log")
    try:
        assert process.wait(START_LIMIT_S) == 6
        assert "libcuda.so.1" in (tmp_path / "log").read_text()
    finally:
        end(process)


@pytest.mark.parametrize("image", GPU, ids=str)
def test_the_gpu_image_serves_on_the_cpu_only_when_it_is_told_to(tmp_path, image):
    process = start(image, tmp_path / "log", ACCELSERVE_DEVICE="cpu")
    try:
        assert "digits:1 on cpu:0" in line_of(process)
    finally:
        end(process)


@pytest.mark.parametrize("image", IMAGES, ids=str)
def test_without_a_model_in_its_place_an_image_says_where_it_looked(tmp_path, image):
    process = start(image, tmp_path / "log", MODEL_NAME="model", MODEL_BASE_PATH=str(tmp_path / "models"))
    try:
        assert process.wait(START_LIMIT_S) == 4
        assert str(tmp_path / "models" / "model") in (tmp_path / "log").read_text()
    finally:
        end(process)


@pytest.mark.parametrize("image", FPGA, ids=str)
def test_the_fpga_images_command_serves_on_the_emulated_card_and_says_so(tmp_path, image):
    onnx_mlp(tmp_path / "m.onnx", features=16)
    changes = {"ACCELSERVE_MODEL": f"m={tmp_path / 'm.onnx'}", "ACCELSERVE_LEASE_DIR": str(tmp_path / "leases")}
    process = start(image, tmp_path / "log", **changes)
    try:
        found = READY.search(line_of(process))
        assert found, (tmp_path / "log").read_text()
        server = Server(process, found["http"], found["grpc"], tmp_path / "log")
        assert is_healthy(image, {"ACCELSERVE_HTTP_PORT": str(server.http_port)})
        answer = ask(server, "/v1/models/m:predict", instances([0.5] * 16))
        assert answer.headers["x-accelserve-device"] == "fpga-emulator:0; emulated"
        second = start(image, tmp_path / "second", **changes)
        try:
            assert second.wait(START_LIMIT_S) == 5
            assert "held by m" in (tmp_path / "second").read_text()
        finally:
            end(second)
        assert server.stop() == 0
    finally:
        end(process)


@pytest.mark.parametrize("image", FPGA, ids=str)
def test_the_fpga_images_command_ends_with_6_where_a_card_is_required_and_none_is_there(tmp_path, image):
    if Path("/dev/xclmgmt0").exists():
        pytest.skip("this machine has a card")
    onnx_mlp(tmp_path / "m.onnx", features=16)
    changes = {"ACCELSERVE_MODEL": f"m={tmp_path / 'm.onnx'}", "ACCELSERVE_DEVICE": "fpga"}
    process = start(image, tmp_path / "log", **changes)
    try:
        assert process.wait(START_LIMIT_S) == 6
        assert "fpga" in (tmp_path / "log").read_text()
    finally:
        end(process)
