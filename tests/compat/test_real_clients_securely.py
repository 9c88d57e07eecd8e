"""The real accel client of Azure ML with TLS and keys, its roots by the variable that its documentation names."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accel_dialect import dense_accel
from secure_talk import KEYS, make_files
from server_process import serving

from model_builders import jpeg

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-compat" / "bin" / "python"
COLOUR = (200, 100, 50)

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason="THE REAL CLIENTS WERE NOT ASKED: .venv-compat is absent; `make test` or scripts/compat-env makes it",
    ),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("secure")
    files, picture = make_files(folder), folder / "good.jpg"
    picture.write_bytes(jpeg(COLOUR))
    secured = ("--auth-keys", files.keys, "--tls-cert", files.pair.cert, "--tls-key", files.pair.key)
    with serving(f"--model=dense={dense_accel(folder / 'dense.onnx')}", *secured, log=folder / "log") as server:
        host, _, port = server.grpc.rpartition(":")
        arguments = (host, port, picture, KEYS.primary, KEYS.secondary)
        command = [str(PYTHON), "-W", "ignore", str(HERE / "ask_accel_securely.py"), *map(str, arguments)]
        environ = {**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(files.ca.cert)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environ)
        assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("flow", ["file, primary", "file, secondary"])
def test_it_scores_a_file_with_either_key(told, flow):
    answer = told[flow]["answer"]
    assert answer["shape"] == [3]
    np.testing.assert_allclose(answer["scores"], np.array(COLOUR) / 255, atol=0.02)


def test_it_scores_arrays(told):
    assert told["arrays, primary"]["answer"] == {"shape": [2, 3], "scores": [1.0] * 6}


@pytest.mark.parametrize("flow", ["wrong key", "no key"])
def test_it_is_told_that_its_key_is_no_good(told, flow):
    assert told[flow]["code"] == "UNAUTHENTICATED"


def test_it_tries_a_bad_key_five_times(told):
    """It repeats everything but INVALID_ARGUMENT, each time after twice as many seconds."""
    assert told["waits"]["answer"] == [1, 2, 4, 8] * 2
