"""The package from outside: what importing it costs, what it says of itself, what it ships."""

import json
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import accelserve

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
HEAVY = ("tensorflow", "onnxruntime", "cv2", "grpc", "fastapi")
PROBE = f"""
import json, sys, time
began = time.process_time()  # on a busy machine it takes longer, and costs the same
import accelserve, accelserve.cli
took = time.process_time() - began
print(json.dumps([took, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


def import_in_a_fresh_process() -> tuple[float, list[str]]:
    """(seconds of CPU that the import cost, the heavy modules that it loaded)"""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60)
    cost_s, loaded = json.loads(done.stdout)
    return cost_s, loaded


def test_the_command_line_loads_nothing_heavy_and_is_there_within_a_second():
    cost_s, loaded = import_in_a_fresh_process()
    assert loaded == []
    assert cost_s < 1.0


def test_the_version_is_said_once():
    assert accelserve.__version__ == PYPROJECT["project"]["version"]


def test_type_checkers_are_told_that_the_package_is_typed():
    assert files("accelserve").joinpath("py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["accelserve"]
