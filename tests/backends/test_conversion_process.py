"""The converter as a child process; the children here are small scripts that play its part."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accelserve.backends.conversion import ConversionOptions, read_settings, run_conversion
from accelserve.errors import Kind, ScoringError

WAIT_S = 20.0
WRITES = "import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--output') + 1]).mkdir();"
SAYS = WRITES + "say = lambda text: print(text, file=sys.stderr, flush=True);"


def convert(tmp_path, script: str, **options):
    steps: list[tuple[str, float]] = []
    command = [sys.executable, "-c", script]
    run_conversion(
        "m:1",
        tmp_path / "source",
        tmp_path / "out",
        ConversionOptions(**options),
        lambda what, done: steps.append((what, done)),
        command,
    )
    return steps


def refused(tmp_path, script: str, **options) -> str:
    with pytest.raises(ScoringError) as error:
        convert(tmp_path, script, **options)
    assert error.value.kind is Kind.PRECONDITION
    assert error.value.message.startswith("m:1: ")
    assert not (tmp_path / "out").exists(), "half an artifact is left"
    return error.value.message


def test_a_conversions_settings_are_read_from_all_that_a_model_has():
    extra = {"opset": 15, "tolerance": 0, "limit_s": 60, "sample": "/s.npz", "io_binding": True}
    assert read_settings("m:1", extra) == ConversionOptions(opset=15, tolerance=0, limit_s=60, sample="/s.npz")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("opset", 99, "a number from 13 to 23, got 99"),
        ("opset", True, "a number from 13 to 23, got True"),
        ("tolerance", 5.0, "a number from 0 to 1, got 5.0"),
        ("tolerance", float("nan"), "a number from 0 to 1, got nan"),
        ("limit_s", 0, "whole seconds from 1 to 604800, got 0"),
        ("limit_s", 10**14, "whole seconds from 1 to 604800"),
        ("sample", "", "the path of a file, got ''"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_with_what_is_wanted(key, value, wanted):
    with pytest.raises(ScoringError, match=f'm:1: setting "{key}" wants {wanted}') as error:
        read_settings("m:1", {key: value})
    assert error.value.kind is Kind.INVALID


def test_progress_is_relayed_and_other_lines_are_not(tmp_path):
    script = SAYS + 'say("a warning"); say(\'{"progress": "cutting", "done": 0.25}\'); say("{not json}")'
    assert convert(tmp_path, script) == [("cutting", 0.25)]
    assert (tmp_path / "out").is_dir()


def test_the_converters_options_reach_it(tmp_path):
    script = SAYS + "import json; (say('accelserve: ' + json.dumps(sys.argv[1:])), sys.exit(3))"
    told = refused(tmp_path, script, opset=18, sample="cat.jpg", tolerance=0.01)
    for part in ('"--opset", "18"', '"--sample", "cat.jpg"', '"--tolerance", "0.01"', '"--end-with-stdin"'):
        assert part in told


def test_the_converters_own_error_is_the_error(tmp_path):
    script = SAYS + "(say('noise'), say('accelserve: resnet: DecodeJpeg \"d\" ...'), sys.exit(3))"
    assert refused(tmp_path, script) == 'm:1: resnet: DecodeJpeg "d" ...'


def test_a_crash_is_told_with_its_last_words(tmp_path):
    assert refused(tmp_path, SAYS + "(say('Traceback'), say('KeyError: 3'), sys.exit(1))") == (
        "m:1: the conversion ended with code 1: Traceback | KeyError: 3"
    )


def test_a_killed_converter_is_told_by_its_signal(tmp_path):
    message = refused(tmp_path, SAYS + "import os; os.kill(os.getpid(), 9)")
    assert "ended by SIGKILL; the machine may be out of memory" in message


def test_a_conversion_over_its_time_is_ended_with_the_remedy(tmp_path):
    message = refused(tmp_path, WRITES + "import time; time.sleep(600)", limit_s=1)
    assert "took longer than 1 s" in message
    assert "limit_s" in message


def parent_and_child(tmp_path, after: str) -> tuple[subprocess.Popen, Path]:
    """A process whose daemon thread converts, as a server's does, and where the converter writes its id.

    after: what the main thread does once the converter runs.
    """
    pid_file = tmp_path / "pid"
    child = (
        f"import os, pathlib; pathlib.Path({str(pid_file)!r} + '.new').write_text(str(os.getpid()));"
        f"os.rename({str(pid_file)!r} + '.new', {str(pid_file)!r});"
        "from accelserve.commands.convert import _end_with_stdin; _end_with_stdin()"
    )
    parent = f"""
import pathlib, signal, sys, threading, time
from accelserve.backends.conversion import ConversionOptions, run_conversion
command = [sys.executable, "-c", {child!r}]
work = lambda: run_conversion("m", pathlib.Path("s"), pathlib.Path("o"), ConversionOptions(), print, command)
threading.Thread(target=work, daemon=True).start()
while not pathlib.Path({str(pid_file)!r}).exists():
    time.sleep(0.01)
{after}
"""
    return subprocess.Popen([sys.executable, "-c", parent]), pid_file


def test_the_converter_ends_when_the_server_is_killed(tmp_path):
    server, pid_file = parent_and_child(tmp_path, "signal.pause()")
    with server:
        _until(pid_file.exists)
        pid = int(pid_file.read_text())
        server.send_signal(signal.SIGKILL)
        server.wait(WAIT_S)
        _until(lambda: not _runs(pid))


def test_a_server_that_stops_waits_for_no_conversion_and_leaves_none_behind(tmp_path):
    server, pid_file = parent_and_child(tmp_path, "sys.exit(0)")
    with server:
        assert server.wait(WAIT_S) == 0
        pid = int(pid_file.read_text())
        _until(lambda: not _runs(pid))


def _until(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        os.sched_yield()


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
