"""examples/accelerator-plugin: a package of somebody else, installed beside the server, checked, allowed and served."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from server_process import run_to_end, serving
from talk import ask

from accelserve.backends.conformance.small_models import onnx_classifier

EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerator-plugin"
MOST_LINES = 150


@pytest.fixture(scope="module")
def environ(tmp_path_factory) -> dict[str, str]:
    """The environment's variables, with the example installed in a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build leaves its traces there
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", source], check=True)
    paths = [str(folder / "site"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(*command: str, environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environ, capture_output=True, text=True)


def chain(folder: Path, *, softmax: bool = False) -> str:
    """A model that another back end could run too, and that names this one."""
    (folder / "chain.accelserve.toml").write_text('runtime = "matmul8"\n')
    return f"--model=chain={onnx_classifier(folder / 'chain.onnx', softmax=softmax)}"


def test_the_example_is_short_enough_to_be_read():
    lines = [line for file in EXAMPLE.rglob("*.py") for line in file.read_text().splitlines()]
    assert 0 < len(lines) < MOST_LINES


def test_the_example_passes_the_conformance_kit_by_the_command_of_its_readme(environ, tmp_path):
    kit = ("pytest", "-p", "no:cacheprovider", "--pyargs", "accelserve.backends.conformance", "--backend", "matmul8")
    assert " ".join(("pytest", *kit[3:])) in (EXAMPLE / "README.md").read_text()
    done = run(*kit, environ=environ, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT TESTED" not in done.stdout


def test_devices_tells_of_it_and_runs_it_only_when_it_is_allowed(environ, tmp_path):
    command = ("accelserve", "devices", "--json")
    shut = json.loads(run(*command, environ=environ, folder=tmp_path).stdout)["backends"]["matmul8"]
    reason = "installed (by accelserve-matmul8 1.0), not allowed: say --backends matmul8"
    assert (shut["unavailable"], shut["devices"]) == (reason, [])
    allowed = run(*command, "--backends", "matmul8", environ=environ, folder=tmp_path)
    (device,) = json.loads(allowed.stdout)["backends"]["matmul8"]["devices"]
    assert (device["id"], device["exclusive"], device["emulated"]) == ("fpga-emulator:matmul8", True, True)


def test_it_is_served_over_http_labelled_as_emulated_and_by_one_server_only(environ, tmp_path):
    rows = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)  # more than the unit takes at once
    arguments = ("--backends", "matmul8", "--device", "fpga-emulator", chain(tmp_path))
    environ = {**environ, "XDG_CACHE_HOME": str(tmp_path)}
    with serving(*arguments, log=tmp_path / "log", environ=environ) as server:
        answer = ask(server, "/v1/models/chain:predict", json.dumps({"instances": rows.tolist()}).encode())
        assert answer.status == 200, answer
        assert answer.headers["x-accelserve-device"] == "fpga-emulator:matmul8; emulated"
        assert int(answer.headers["x-accelserve-modelled-device-us"]) > 0
        got = np.array(answer.json["predictions"])
        alone = ask(server, "/v1/models/chain:predict", json.dumps({"instances": rows[3:4].tolist()}).encode())
        assert alone.json["predictions"] == [got[3].tolist()]
        assert run_to_end(arguments, tmp_path / "second", environ) == 5  # the unit is exclusive
        assert "device fpga-emulator:matmul8 is held by chain" in (tmp_path / "second").read_text()
    np.testing.assert_allclose(got, in_floats(tmp_path / "chain.onnx", rows), atol=0.05)


def in_floats(path: Path, rows: np.ndarray) -> np.ndarray:
    import onnxruntime

    (scores,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": rows})
    return scores


@pytest.mark.parametrize(
    ("allow", "softmax", "code", "words"),
    [
        ((), False, 3, "; matmul8: installed (by accelserve-matmul8 1.0), not allowed: say --backends matmul8"),
        (("--backends", "matmul8"), True, 3, "Softmax 'softmax': matmul8 takes only a chain of plain Gemm and Relu"),
        (("--backends", "matmul9"), False, 2, "there is no back end 'matmul9'; installed are matmul8 (of accelserve-"),
    ],
)
def test_a_server_that_cannot_run_the_model_on_it_says_why(environ, tmp_path, allow, softmax, code, words):
    arguments = (*allow, "--device", "fpga-emulator", chain(tmp_path, softmax=softmax))
    assert run_to_end(arguments, tmp_path / "log", environ) == code
    assert words in (tmp_path / "log").read_text()
