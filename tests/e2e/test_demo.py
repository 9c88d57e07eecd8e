"""`accelserve demo`: two right answers end with 0, a wrong one with 1, and its server ends with it."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from server_process import wait_until

from model_builders import synthetic_model

LIMIT_S = 60.0
COMMAND = [sys.executable, "-m", "accelserve", "demo", "--http-port", "0", "--grpc-port", "0"]


def demo(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S)


def always_zero(path: Path, scores: str = "scores") -> Path:
    """A digits model that says 0 to every picture. scores: what it calls its output."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = {"w": np.zeros((32 * 32 * 3, 10), np.float32), "b": np.eye(10, dtype=np.float32)[:1]}
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], [scores]),
    ]
    graph = helper.make_graph(
        nodes,
        "always_zero",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_two_right_answers_end_with_0_and_say_how_to_repeat_them():
    done = demo("--exit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right") == 2
    for part in ("truth", "curl --data-binary @", "/metrics"):
        assert part in done.stdout


def test_a_wrong_answer_ends_with_1(tmp_path):
    done = demo("--exit", "--model", always_zero(tmp_path / "zero.onnx"))
    assert done.returncode == 1
    assert done.stdout.count("WRONG") == 2


def test_a_model_that_is_not_there_ends_with_the_servers_code(tmp_path):
    assert demo("--exit", "--model", tmp_path / "nowhere.onnx").returncode == 4


@contextmanager
def running(*arguments):
    """A demo in the background, ended by force if it does not end."""
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def read_to_the_end(process) -> str:
    """The demo's first line; its two answers are then given."""
    first = process.stdout.readline()
    while not (line := process.stdout.readline()).startswith("serving on"):
        assert line, "the demo ended by itself"
    return first


def server_of(process) -> int:
    """The pid of the demo's only child."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(wait_until(lambda: children.read_text().split())[0])


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    mask = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(mask, 16) >> (number - 1) & 1)


def lingering(tmp_path: Path) -> Path:
    """A model that takes longer to load than any test waits."""
    text = "load_delay_ms = 120000.0\n[inputs.x]\nshape = [-1, 2]\n"
    return synthetic_model(tmp_path / "slow.synthetic.toml", text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_with_the_demo(number):
    with running() as process:
        port = read_to_the_end(process).partition("http://127.0.0.1:")[2].split()[0]
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 0
    assert port.encode() not in listening_ports()


def test_a_server_that_is_killed_while_it_starts_ends_the_demo_with_1_and_one_line(tmp_path):
    with running("--exit", "--model", lingering(tmp_path)) as process:
        os.kill(server_of(process), signal.SIGKILL)
        assert process.wait(LIMIT_S) == 1
        (line,) = process.stderr.read().splitlines()
    assert "SIGKILL" in line


def test_a_server_that_is_killed_while_it_serves_ends_the_demo_with_1_and_one_line():
    with running() as process:
        read_to_the_end(process)
        os.kill(server_of(process), signal.SIGKILL)
        assert process.wait(LIMIT_S) == 1
        (line,) = process.stderr.read().splitlines()
    assert "SIGKILL" in line


def test_a_server_that_is_told_to_end_before_it_is_ready_is_no_success(tmp_path):
    with running("--exit", "--model", lingering(tmp_path)) as process:
        server = server_of(process)
        wait_until(lambda: catches(server, signal.SIGTERM))
        os.kill(server, signal.SIGTERM)
        assert process.wait(LIMIT_S) == 1
        (line,) = process.stderr.read().splitlines()
    assert "before it was ready" in line


def test_a_model_that_takes_no_pictures_ends_the_demo_with_1_and_one_line(tmp_path):
    done = demo("--exit", "--model", synthetic_model(tmp_path / "m.synthetic.toml"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the body is a JPEG" in line


def test_a_model_without_scores_ends_the_demo_with_1_and_one_line_that_names_its_outputs(tmp_path):
    done = demo("--exit", "--model", always_zero(tmp_path / "zero.onnx", scores="votes"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert '"scores"' in line
    assert "votes" in line


def listening_ports() -> set[bytes]:
    """TCP ports that somebody on this machine listens on, in decimal."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [row.split()[1] for row in rows if row.split()[3] == "0A"]
    return {str(int(address.rpartition(":")[2], 16)).encode() for address in listening}
