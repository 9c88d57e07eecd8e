"""The generated code: it stays out of TensorFlow's way and runs on the protobuf that we ask for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = sorted((ROOT / "server" / "accelserve" / "wire").glob("*_pb2.py"))
OURS = "from accelserve.wire import tensorflow_pb2, tfserving_pb2; tensorflow_pb2.TensorProto(float_val=[1])"
TENSORFLOW = "import tensorflow as tf; tf.make_tensor_proto([1.0])"


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'server'); {code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wire_code_imports_neither_tensorflow_nor_grpc():
    heavy = "[m for m in sys.modules if m.partition('.')[0] in ('tensorflow', 'grpc', 'numpy')]"

    assert run(f"{OURS}; print({heavy})").strip() == "[]"


@pytest.mark.parametrize("module", GENERATED, ids=lambda path: path.stem)
def test_the_wire_code_is_not_newer_than_the_oldest_protobuf_we_allow(module):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = next(r for r in project["dependencies"] if r.startswith("protobuf"))
    oldest = re.search(r">=([\d.]+)", requirement)
    generated = re.search(r"# Protobuf Python Version: ([\d.]+)", module.read_text())

    assert version(generated[1]) <= version(oldest[1])


def version(text):
    return (*map(int, text.split(".")), 0, 0)[:3]


@pytest.mark.tensorflow
@pytest.mark.parametrize("code", [f"{OURS}; {TENSORFLOW}", f"{TENSORFLOW}; {OURS}"], ids=["ours first", "ours last"])
def test_the_wire_code_and_tensorflow_live_in_one_process(code):
    run(code)
