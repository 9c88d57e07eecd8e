"""ResNet-50 as on the FPGA service: built, registered, converted, served on the emulated card, asked by its client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_process import Server, run_to_end, serving
from talk import Scrape, ask

from model_builders import jpeg

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-compat" / "bin" / "python"
LIMIT_S = 180.0
CONVERTED = "resnet50.1.accelonnx"

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason="THE REAL CLIENTS WERE NOT ASKED: .venv-compat is absent; `make test` or scripts/compat-env makes it",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the store, into which ResNet-50 went by the commands of docs/fpga.md, and with the cache."""
    folder = tmp_path_factory.mktemp("chain")
    for line in (
        "recipes build resnet50 --weights seeded",
        "register resnet50 --name resnet50",
        "convert resnet50:1 --to accelonnx --register",
    ):
        command = [sys.executable, "-m", "accelserve", *line.split()]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=os.environ | environ(folder), timeout=LIMIT_S
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
    return folder


def environ(folder: Path) -> dict[str, str]:
    return {"ACCELSERVE_STORE": str(folder / "store"), "XDG_CACHE_HOME": str(folder / "cache")}


ARGUMENTS = ("--store", "--model", CONVERTED, "--device", "fpga-emulator")


@pytest.fixture(scope="module")
def server(place) -> Iterator[Server]:
    with serving(*ARGUMENTS, log=place / "log", environ=environ(place)) as found:
        yield found


@pytest.fixture(scope="module")
def picture(place) -> Path:
    (place / "good.jpg").write_bytes(jpeg((200, 100, 50)))
    return place / "good.jpg"


@pytest.fixture(scope="module")
def told(server, place, picture) -> dict[str, dict[str, Any]]:
    (place / "broken.jpg").write_bytes(picture.read_bytes()[:40] + bytes(400))
    host, _, port = server.grpc.rpartition(":")
    command = [str(PYTHON), "-W", "ignore", str(HERE / "ask_accel_chain.py"), host, port]
    done = subprocess.run([*command, picture, place / "broken.jpg"], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("flow", ["by tensor name", "default output", "names of the signature"])
def test_the_real_client_gets_what_http_answers(told, server, picture, flow):
    answer = ask(server, "/score", picture.read_bytes())
    assert answer.headers["x-accelserve-device"] == "fpga-emulator:0; emulated"
    assert told[flow].get("answer", told[flow])["shape"] == [1000]
    np.testing.assert_allclose(told[flow]["answer"]["scores"], answer.json, rtol=1e-5)
    assert sum(answer.json) == pytest.approx(1, abs=1e-4)


def test_the_real_client_sends_pictures_in_batches_encoded_or_decoded(told):
    alone = told["by tensor name"]["answer"]["scores"]
    batch = told["batch of strings"]["answer"]
    assert batch["shape"] == [2, 1000]
    np.testing.assert_allclose(np.reshape(batch["scores"], (2, 1000)), [alone, alone], rtol=1e-5)
    decoded = told["decoded pictures"]["answer"]
    assert decoded["shape"] == [2, 1000]
    np.testing.assert_allclose(np.reshape(decoded["scores"], (2, 1000)).sum(axis=1), 1, atol=1e-4)


REFUSED = ("no picture", "batch with a broken one", "decoded pictures of another size")


@pytest.mark.parametrize("flow", [*REFUSED, "wrong input", "wrong input of numbers"])
def test_what_does_not_fit_is_refused_at_once(told, flow):
    """The client tries again for 15 s after everything but INVALID_ARGUMENT."""
    assert told[flow]["code"] == "INVALID_ARGUMENT", told[flow]
    assert told[flow]["took_s"] < 1


def test_the_models_input_is_told_as_encoded_pictures(server):
    about = ask(server, f"/v1/models/{CONVERTED}/metadata").json
    (signature,) = about["metadata"]["signature_def"]["signature_def"].values()
    assert signature["inputs"]["images"]["dtype"] == "DT_STRING"
    assert signature["inputs"]["images"]["name"] == "Placeholder:0"


def test_its_answers_are_counted_as_emulated(told, server):
    page = Scrape(server)
    assert page.sum("accelserve_device_info", emulated="true", model=CONVERTED) == 1
    assert page.sum("accelserve_modelled_device_seconds_count", model=CONVERTED) >= 3


def test_a_second_server_on_the_same_device_is_refused(server, place):
    log = place / "second"
    assert run_to_end((*ARGUMENTS, "--strict"), log, environ(place)) == 5
    assert f"device fpga-emulator:0 is held by {CONVERTED} (process {server.process.pid})" in log.read_text()
