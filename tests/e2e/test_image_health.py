"""The images' health check, run as it stands there: alive whatever the server asks of those who want answers."""

import os
import socket
import subprocess
import sys

import pytest
from secure_talk import double, make_files
from server_process import serving

from dockerfiles import IMAGES


def exit_code(image, port: int) -> int:
    _, *arguments = image.health_check
    environ = {**os.environ, "ACCELSERVE_HTTP_PORT": str(port)}
    return subprocess.run([sys.executable, *arguments], env=environ, timeout=60, capture_output=True).returncode


@pytest.mark.parametrize("secured", ["", "keys", "TLS", "client certificates"])
def test_a_server_that_runs_is_healthy_whatever_it_asks_for(tmp_path, secured):
    files = make_files(tmp_path)
    tls = ("--tls-cert", files.pair.cert, "--tls-key", files.pair.key)
    asked = {
        "": (),
        "keys": ("--auth-keys", files.keys, "--auth-everywhere"),
        "TLS": tls,
        "client certificates": (*tls, "--tls-client-ca", files.ca.cert),
    }
    with serving(f"--model=m={double(tmp_path)}", *asked[secured], log=tmp_path / "log") as server:
        assert {exit_code(image, server.http_port) for image in IMAGES} == {0}


def test_a_port_where_nobody_answers_is_not():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert exit_code(IMAGES[0], silent.getsockname()[1]) == 1
