"""What the command line says of itself, and what it refuses before anything heavy is loaded."""

import os
import re
import subprocess
import sys

import pytest

from accelserve.cli import _parser, main
from accelserve.config_options import OPTIONS
from model_builders import onnx_mlp


def said_by(capsys, *arguments):
    """The exit code of arguments that argparse answers itself, and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, "".join(capsys.readouterr())


def test_the_help_of_serve_names_every_option_and_every_other_source(capsys):
    code, text = said_by(capsys, "serve", "--help")
    assert code == 0
    for part in (*(option.flag for option in OPTIONS), "ACCELSERVE_MODEL", "ACCELSERVE_CONFIG", "MODEL_BASE_PATH"):
        assert part in text, part


def test_the_help_of_serve_says_what_a_card_and_an_emulated_one_are(capsys):
    text = " ".join(said_by(capsys, "serve", "--help")[1].split())
    assert "fpga-emulator runs a model as such a card would, on the CPU, and every answer says so" in text
    assert "accelserve devices" in text


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "demo", "show", "devices", "register", "list", "update", "delete", "path", "convert", "verify"),
        *("deploy", "package", "score", "azmlinfsrv", "services", "services status", "services logs"),
        *("services keys", "services update", "services start", "recipes", "recipes build"),
    ],
)
def test_every_option_of_every_command_has_a_help_text(capsys, command):
    lines = said_by(capsys, *command.split(), "--help")[1].splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  -"):
            below = lines[number + 1] if number + 1 < len(lines) else ""
            assert "  " in line.strip() or below.startswith("     "), f"{line!r} has no help"


def test_an_update_has_no_defaults_since_what_is_not_said_stays(capsys):
    commands = (("deploy",), ("services", "update"))
    deploy, update = (" ".join(said_by(capsys, *command, "--help")[1].split()) for command in commands)
    assert "(default: key)" in deploy
    assert re.findall(r"\(default: .*?\)", update) == ["(default: 600)"]  # of --wait
    assert "the rest stays as it is" in update


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("show", "--device", "foo", "m.onnx"), "want auto, cpu"),
        (("demo", "--http-port", "70000"), "want a port"),
        (("demo", "--grpc-port", "many"), "want a port"),
        (("serve", "--colour", "red"), "--colour"),
        ((), "COMMAND"),
    ],
)
def test_an_argument_that_makes_no_sense_ends_with_2_and_says_what_does(capsys, arguments, wanted):
    code, text = said_by(capsys, *arguments)
    assert code == 2
    assert wanted in text


def test_a_configuration_that_is_wrong_ends_with_2_and_every_mistake(capsys):
    assert main(["serve", "--model", "m", "--read-timeout", "0"]) == 2
    said = capsys.readouterr().err
    assert "want NAME=PATH" in said
    assert "--read-timeout: '0': want" in said


def test_the_help_needs_no_model_library_and_no_server():
    code = "import sys; from accelserve.cli import main\ntry: main(['serve', '--help'])\nexcept SystemExit: pass\n"
    code += "print({'grpc', 'fastapi', 'uvicorn', 'onnxruntime', 'tensorflow', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("svc", "a.jpg", "b.jpg", "--top", "1", "--grpc"),
        ("svc", "--top", "1", "a.jpg", "--grpc", "b.jpg"),
        ("--grpc", "--top", "1", "svc", "a.jpg", "b.jpg"),
        ("--top", "1", "svc", "--grpc", "--", "a.jpg", "b.jpg"),
    ],
)
def test_files_to_score_may_stand_between_the_flags(arguments):
    parsed = _parser().parse_args(["score", *arguments])
    assert (parsed.files, parsed.top, parsed.grpc) == (["svc", "a.jpg", "b.jpg"], 1, True)


@pytest.mark.parametrize("arguments", [("score",), ("score", "--top", "1"), ("score", "a.jpg", "--colour", "red")])
def test_what_is_missing_or_unknown_of_scoring_is_told(capsys, arguments):
    code, text = said_by(capsys, *arguments)
    assert code == 2
    assert "--colour" in text if "--colour" in arguments else "[SERVICE] FILE" in text


def test_the_beginning_of_a_flag_is_no_flag(capsys):
    code, text = said_by(capsys, "serve", "--max-body", "5")
    assert code == 2
    assert "unrecognized arguments" in text


def test_each_command_that_compares_tells_its_own_default_tolerance(capsys):
    convert, verify = (" ".join(said_by(capsys, command, "--help")[1].split()) for command in ("convert", "verify"))
    assert "(default: 1e-4; fp16: 0.02)" in convert
    assert "(default: 1e-4; a copy in fp16 wants 0.02)" in verify


def test_a_reader_that_has_enough_is_no_reason_for_a_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        command = [sys.executable, "-m", "accelserve", "devices", "--json"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "arguments", [("devices",), ("show", "."), ("verify", "m.onnx"), ("register", "m.onnx", "--name", "m")]
)
def test_a_plug_in_that_is_not_installed_is_refused_naming_those_that_are(capsys, monkeypatch, arguments):
    for flags, source in ((["--backends", "nobody"], "--backends"), ([], "ACCELSERVE_BACKENDS")):
        monkeypatch.setenv("ACCELSERVE_BACKENDS", "nobody")
        assert main([*arguments, *flags]) == 2
        error = capsys.readouterr().err
        assert f"accelserve: {source}: there is no back end 'nobody'; " in error
        assert "always allowed: " in error


def test_a_server_that_is_to_run_a_plug_in_that_is_not_installed_does_not_start(capsys):
    assert main(["serve", "--model", "m=m.onnx", "--backends", "nobody"]) == 2
    assert "--backends: there is no back end 'nobody'" in capsys.readouterr().err


def test_no_library_leaves_telemetry_in_the_users_cache(tmp_path):
    """ONNX Runtime does, unless it is told before it is imported."""
    model = onnx_mlp(tmp_path / "m.onnx", features=16)
    environ = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environ |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "accelserve", "show", str(model)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    left = [str(path) for place in ("home", "cache") for path in (tmp_path / place).rglob("*")]
    assert not [path for path in left if "Microsoft" in path or "onnxruntime" in path], left


def test_grpcio_is_told_who_reads_its_sockets_before_it_is_imported():
    """It reads that variable as it is imported, and never again."""
    environ = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"}
    script = (
        "import os, sys\n"
        "from accelserve.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    print('grpc' in sys.modules, os.environ['GRPC_EXPERIMENTS'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False -event_engine_listener"
