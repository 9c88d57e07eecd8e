"""How `accelserve serve` ends, and what it says, when it cannot serve what it was told to."""

import socket
import time
from pathlib import Path

import grpc
import pytest
from server_process import end, run_to_end, serving, start
from talk import Calls, ask, instances, outputs_of, row

from model_builders import onnx_affine, synthetic_model

LINGERING = "load_delay_ms = 120000.0\n[inputs.x]\nshape = [-1, 2]\n"
BROKEN = 'load_error = "the flux is unstable"\n[inputs.x]\nshape = [-1, 2]\n'


def ended(tmp_path: Path, *arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """The exit code and what was said."""
    log = tmp_path / "log"
    code = run_to_end(arguments, log, environ)
    said = log.read_text()
    assert "Traceback" not in said
    return code, said


def good(tmp_path: Path) -> str:
    return f"--model=good={synthetic_model(tmp_path / 'good.synthetic.toml')}"


def corrupt_onnx(tmp_path: Path) -> Path:
    whole = onnx_affine(tmp_path / "corrupt.onnx").read_bytes()
    (tmp_path / "corrupt.onnx").write_bytes(whole[: len(whole) // 2] + b"\xff" * 20)
    return tmp_path / "corrupt.onnx"


# --- nothing can be served


@pytest.mark.parametrize(("flag", "protocol"), [("--http-port", "HTTP"), ("--grpc-port", "gRPC")])
def test_a_taken_port_ends_with_5_and_says_which(tmp_path, flag, protocol):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = ended(tmp_path, good(tmp_path), f"{flag}={port}")
    assert code == 5
    assert f"{protocol} port {port}" in said
    assert flag in said


def test_a_second_server_does_not_share_the_ports_of_the_first(tmp_path):
    with serving(good(tmp_path), log=tmp_path / "first") as first:
        assert ended(tmp_path, good(tmp_path), f"--http-port={first.http_port}")[0] == 5
        assert ended(tmp_path, good(tmp_path), f"--grpc-port={first.grpc.rpartition(':')[2]}")[0] == 5
        assert ask(first, "/readyz").status == 200


def test_a_missing_path_ends_with_4_and_names_it(tmp_path):
    code, said = ended(tmp_path, f"--model=m={tmp_path / 'nowhere'}")
    assert code == 4
    assert str(tmp_path / "nowhere") in said


def test_a_corrupt_onnx_file_ends_with_3_and_names_it(tmp_path):
    code, said = ended(tmp_path, f"--model=m={corrupt_onnx(tmp_path)}")
    assert code == 3
    assert "model m does not load" in said
    assert "corrupt.onnx" in said


def test_a_folder_without_a_model_ends_with_3(tmp_path):
    (tmp_path / "empty").mkdir()
    code, said = ended(tmp_path, f"--model=m={tmp_path / 'empty'}")
    assert code == 3
    assert "saved_model.pb, model.onnx" in said


def test_an_unknown_key_in_the_models_own_file_ends_with_3_and_names_it(tmp_path):
    path = synthetic_model(tmp_path / "m.synthetic.toml")
    (tmp_path / "m.accelserve.toml").write_text("max_batch_sise = 3\n")
    code, said = ended(tmp_path, f"--model=m={path}")
    assert code == 3
    assert "max_batch_sise" in said
    assert "m.accelserve.toml" in said


def test_a_required_gpu_that_is_missing_ends_with_6_and_names_the_missing_pieces(tmp_path):
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a GPU's driver")
    code, said = ended(tmp_path, f"--model=m={onnx_affine(tmp_path / 'm.onnx')}", "--device=gpu")
    assert code == 6
    assert "needs gpu" in said
    assert "libcuda.so.1" in said
    assert "onnxruntime" in said


def test_a_gpu_that_is_to_decode_pictures_and_is_not_there_ends_with_6(tmp_path):
    code, said = ended(tmp_path, f"{good(tmp_path)}", "--jpeg-decoder=gpu:7")
    assert code == 6
    assert "pictures cannot be decoded on gpu:7" in said


def test_a_required_fpga_that_is_missing_ends_with_6_and_names_every_missing_piece(tmp_path):
    model = f"--model=m={onnx_affine(tmp_path / 'm.onnx')}"
    code, said = ended(tmp_path, model, "--device=fpga", environ={"XILINX_VISIBLE_DEVICES": "none"})
    assert code == 6
    assert 'model "m" needs fpga' in said
    for piece in ("FPGA", "libxrt_core", "VitisAIExecutionProvider", "XLNX_VART_FIRMWARE"):
        assert piece in said


@pytest.mark.parametrize("device", ["gpu:3", "fpga", "fpga-emulator"])
def test_a_required_device_that_nobody_drives_ends_with_6(tmp_path, device):
    code, said = ended(tmp_path, f"{good(tmp_path)}", f"--device={device}")
    assert code == 6
    assert device in said


def test_all_mistakes_of_the_command_line_and_the_file_are_told_at_once_with_2(tmp_path):
    (tmp_path / "c.toml").write_text('http_prot = 1\n[models.m]\npath = "m.onnx"\ncolour = "red"\ndevice = "loom"\n')
    code, said = ended(
        tmp_path,
        f"--config={tmp_path / 'c.toml'}",
        "--http-port=70000",
        "--threads=none",
        "--device=abacus",
        "--log-format=xml",
        "--grace-period=-1",
        "--model=-=x",
        "--default-model=nobody",
        environ={"ACCELSERVE_KEEP_ALIVE": "long"},
    )
    assert code == 2
    for mistake in (
        "'http_prot'",
        "'colour'",
        "--http-port",
        "--threads",
        "'abacus'",
        "[models.m] device: 'loom': want auto, cpu",
        "--log-format",
        "--grace-period",
        "--model",
        "'nobody'",
        "ACCELSERVE_KEEP_ALIVE",
    ):
        assert mistake in said, f"{mistake} is not told:\n{said}"


def test_an_unknown_flag_ends_with_2(tmp_path):
    code, said = ended(tmp_path, good(tmp_path), "--colour=red")
    assert code == 2
    assert "--colour" in said


def test_no_model_at_all_ends_with_2(tmp_path):
    code, said = ended(tmp_path)
    assert code == 2
    assert "--model NAME=PATH" in said


# --- some can and some cannot


def test_with_strict_the_first_failure_ends_with_3_at_once(tmp_path):
    lingering = synthetic_model(tmp_path / "slow.synthetic.toml", LINGERING)
    started = time.monotonic()
    code, said = ended(
        tmp_path, good(tmp_path), f"--model=slow={lingering}", f"--model=bad={corrupt_onnx(tmp_path)}", "--strict"
    )
    assert code == 3
    assert "model bad does not load" in said
    assert time.monotonic() - started < 20


def test_without_strict_the_good_model_serves_and_the_bad_one_says_why_it_does_not(tmp_path):
    broken = synthetic_model(tmp_path / "bad.synthetic.toml", BROKEN)
    with serving(good(tmp_path), f"--model=bad={broken}", log=tmp_path / "log") as server, Calls(server) as calls:
        assert ask(server, "/readyz").status == 200
        assert ask(server, "/readyz/good").status == 200
        assert ask(server, "/readyz/bad").status == 503
        assert ask(server, "/v1/models/good:predict", instances((1, 2))).json["predictions"] == [[2.0, 4.0]]
        status = ask(server, "/v1/models/bad").json["model_version_status"][0]
        assert status["state"] == "END"
        assert "the flux is unstable" in status["status"]["error_message"]
        assert status["status"]["error_code"] == "FAILED_PRECONDITION"
        refused = ask(server, "/v1/models/bad:predict", instances((1, 2)))
        assert refused.status == 404
        assert "the flux is unstable" in refused.json["error"]
        error = calls.start("bad", {"x": row(1, 2)}).exception()
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert outputs_of(calls.start("good", {"x": row(1, 2)}).result())["y"].tolist() == [[2.0, 4.0]]
        assert server.stop() == 0


def test_when_every_model_fails_it_ends_with_the_first_failures_code(tmp_path):
    models = (f"--model=a={tmp_path / 'nowhere'}", f"--model=b={corrupt_onnx(tmp_path)}")
    code, said = ended(tmp_path, *models)
    assert code == 4
    assert "model a does not load" in said
    assert "model b does not load" in said


# --- what is odd but no reason to end


def test_a_cache_that_cannot_be_written_does_not_stop_it(tmp_path):
    model = f"--model=m={onnx_affine(tmp_path / 'm.onnx')}"
    for number, environ in enumerate(({"HOME": "/dev/null"}, {"XDG_CACHE_HOME": "/proc/nope"})):
        with serving(model, log=tmp_path / f"log{number}", environ={"XDG_CACHE_HOME": "", **environ}) as server:
            assert ask(server, "/v1/models/m:predict", b'{"instances": [[2.0]]}').json["predictions"] == [[3.0]]


def test_an_unknown_environment_variable_is_a_warning_and_kubernetes_own_are_nothing(tmp_path):
    environ = {"ACCELSERVE_COLOUR": "red", "ACCELSERVE_SERVICE_HOST": "10.0.0.1", "ACCELSERVE_PORT_8501_TCP": "tcp://x"}
    with serving(good(tmp_path), log=tmp_path / "log", environ=environ) as server:
        said = server.log.read_text()
    assert "ACCELSERVE_COLOUR" in said
    assert "ACCELSERVE_SERVICE_HOST" not in said
    assert "ACCELSERVE_PORT" not in said


def test_a_server_that_ends_while_it_starts_leaves_its_ports_free(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert ended(tmp_path, f"--model=m={tmp_path / 'nowhere'}", f"--http-port={port}")[0] == 4
    process = start([good(tmp_path), f"--http-port={port}"], tmp_path / "again")
    try:
        assert f":{port} (HTTP)" in process.stdout.readline()
    finally:
        end(process)
