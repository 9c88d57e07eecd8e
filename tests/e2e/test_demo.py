"""`accelserve demo`: two right answers end with 0, a wrong one with 1, and its server ends with it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

LIMIT_S = 60.0
COMMAND = [sys.executable, "-m", "accelserve", "demo", "--http-port", "0", "--grpc-port", "0"]


def demo(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S)


def always_zero(path: Path) -> Path:
    """A digits model that says 0 to every picture."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = {"w": np.zeros((32 * 32 * 3, 10), np.float32), "b": np.eye(10, dtype=np.float32)[:1]}
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "always_zero",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_with_the_demo(number):
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            port = process.stdout.readline().partition("http://127.0.0.1:")[2].split()[0]
            while not (line := process.stdout.readline()).startswith("serving on"):
                assert line, "the demo ended by itself"
            process.send_signal(number)
            assert process.wait(LIMIT_S) == 0
        finally:
            watchdog.cancel()
            process.kill()
    assert port.encode() not in listening_ports()


def listening_ports() -> set[bytes]:
    """TCP ports that somebody on this machine listens on, in decimal."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [row.split()[1] for row in rows if row.split()[3] == "0A"]
    return {str(int(address.rpartition(":")[2], 16)).encode() for address in listening}
