"""Plug-ins that are broken in every way, installed beside a server: it says so of each, and serves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import serving
from talk import ask, instances

from model_builders import synthetic_model

PROBES = """
import sys, threading

def hangs():
    threading.Event().wait()

def exits():
    sys.exit(7)

def answers_rubbish():
    return ["bad"]

def is_of_another_version():
    from accelserve.backends.base import Offer
    from accelserve.devices import DeviceKind
    formats, kinds = frozenset({"synthetic"}), frozenset({DeviceKind.CPU})
    return Offer("is_of_another_version", formats, kinds, "bad_probes:Old", preference=99)

class Old:
    name, api_version = "old", 0
"""
REASONS = {
    "hangs": "did not answer within 5 s",
    "exits": "SystemExit: 7",
    "answers_rubbish": "returned list, not an Offer",
    "raises_at_import": "RuntimeError: no driver",
    "is_of_another_version": "speaks version 0 of the back-end interface, this server version 1",
}


@pytest.fixture(scope="module")
def environ(tmp_path_factory) -> dict[str, str]:
    """The environment's variables, with a package of bad plug-ins installed and all of them allowed."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad_probes.py").write_text(PROBES)
    (folder / "bad_import.py").write_text('raise RuntimeError("no driver")\n')
    about = folder / "bad_plug_ins-2.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plug-ins\nVersion: 2.1\n")
    points = [f"{name} = bad_probes:{name}" for name in REASONS if name != "raises_at_import"]
    lines = ["[accelserve.backends]", *points, "raises_at_import = bad_import:probe"]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = os.pathsep.join(filter(None, paths))
    return {**os.environ, "PYTHONPATH": path, "ACCELSERVE_BACKENDS": ",".join(REASONS)}


def test_devices_says_of_each_bad_plug_in_what_is_wrong_with_it(environ, tmp_path):
    command = [sys.executable, "-m", "accelserve", "devices", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    backends = json.loads(done.stdout)["backends"]
    for name, words in REASONS.items():
        told = json.dumps([backends[name]["unavailable"], backends[name]["missing"]])
        assert words in told, name
    assert [device["id"] for device in backends["synthetic"]["devices"]] == ["cpu:0"]


def test_a_server_beside_bad_plug_ins_serves_and_logs_what_is_wrong_with_them(environ, tmp_path):
    model = f"--model=m={synthetic_model(Path(tmp_path) / 'm.synthetic.toml')}"
    prompt = {**environ, "ACCELSERVE_BACKENDS": ",".join(REASONS.keys() - {"hangs"})}
    with serving(model, log=tmp_path / "log", environ=prompt) as server:
        assert ask(server, "/v1/models/m:predict", instances((1, 2))).json["predictions"] == [[2.0, 4.0]]
    log = (tmp_path / "log").read_text()
    for name in ("exits", "answers_rubbish", "raises_at_import"):
        assert f"back end {name}: its probe" in log
