"""`accelserve score` as users type it, against real servers and real scripts."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from server_process import serving, wait_until

from accelserve.builtin import digits_path, pictures
from accelserve.cli import main

LIMIT_S = 60
COMMAND = [sys.executable, "-m", "accelserve", "score"]
PICTURES = pictures()[0][0].parent


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("score") / "server.log"
    with serving("--model", f"digits={digits_path()}", log=log) as started:
        yield started


def score(*arguments, code: int = 0, environ=None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **(environ or {})}
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environ)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "accelserve/cli.py" not in done.stderr  # no traceback of ours; a script's own is shown
    return done


def over(server, protocol: str) -> list[str]:
    return ["--url", server.http] if protocol == "http" else ["--url", server.grpc, "--grpc"]


def best_of(done: subprocess.CompletedProcess[str]) -> list[int | None]:
    """Of each file the best class's index, None where it failed."""
    files = json.loads(done.stdout)["files"]
    return [file["top"][0]["index"] if file["ok"] else None for file in files]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_folder_of_digits_is_scored_in_order(server, protocol, batch):
    done = score(*over(server, protocol), PICTURES, "--match", "*.jpg", "--batch", batch, "--json")
    assert best_of(done) == list(range(10))
    summary = json.loads(done.stdout)["summary"]
    assert (summary["scored"], summary["failed"], summary["devices"]) == (10, 0, ["cpu:0"])
    assert all(summary["latency_ms"]["median"][part] is not None for part in ("queue", "decode", "compute", "network"))


def test_people_get_the_best_classes_with_the_models_labels_and_the_latency_split(server):
    said = score("--url", server.http, PICTURES / "digit-7.jpg", "--top", "3").stdout.splitlines()
    assert said[0] == f"{PICTURES}/digit-7.jpg:"
    assert said[1].split()[0] == "1"
    assert said[1].split()[2:] == ["7", "seven"]
    assert len(said[1:4]) == 3
    assert said[5].startswith("1 file: 1 scored, 0 failed")
    assert said[7].split()[3:] == ["queue", "decode", "compute", "network", "total"]


def test_labels_of_the_users_go_before_the_models(server, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f"cypher {n}" for n in range(10)))
    done = score("--url", server.http, PICTURES / "digit-7.jpg", "--labels", tmp_path / "labels.txt", "--top", "1")
    assert done.stdout.splitlines()[0].endswith("cypher 7")
    assert "--labels" not in done.stderr
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    done = score("--url", server.http, PICTURES / "digit-7.jpg", "--labels", tmp_path / "labels.txt")
    assert "--labels names 2 classes, and the answers have 10" in done.stderr


def test_input_and_output_can_be_named_and_wrong_ones_are_told(server):
    asked = [*over(server, "grpc"), PICTURES / "digit-3.jpg"]
    assert best_of(score(*asked, "--input", "image", "--output", "scores", "--json")) == [3]
    assert "nothing" in score(*asked, "--input", "nothing", code=1).stderr
    assert "nothing" in score(*asked, "--output", "nothing", code=1).stderr


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_answer_as_it_is(server, protocol):
    done = score(*over(server, protocol), PICTURES / "digit-7.jpg", "--top", "0", "--json")
    (file,) = json.loads(done.stdout)["files"]
    assert len(file["answer"]) == 10
    assert int(np.argmax(file["answer"])) == 7


@pytest.mark.parametrize("batch", [1, 3])
def test_arrays_travel_as_arrays(server, tmp_path, batch):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((2, 32, 32, 3), 255, np.uint8))
    done = score(*over(server, "grpc"), tmp_path, "--batch", batch, "--top", "0", "--json")
    files = json.loads(done.stdout)["files"]
    assert [np.shape(file["answer"]) for file in files] == [(2, 10)] * 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_files_that_cannot_be_scored_cost_themselves_alone(server, protocol, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "broken.npy").write_bytes(b"no array")
    asked = [tmp_path / "none.jpg", tmp_path / "bad.jpg", PICTURES / "digit-1.jpg", tmp_path / "broken.npy"]
    done = score(*over(server, protocol), *asked, "--json", "--batch", "4", code=1)
    assert best_of(done) == [None, None, 1, None]
    told = score(*over(server, protocol), *asked, code=1)
    assert "none.jpg: UNREADABLE: No such file or directory" in told.stderr
    assert "bad.jpg" in told.stderr
    assert "digit-1.jpg" in told.stdout


@pytest.mark.parametrize("name", ["a b.jpg", "zoë 数.jpg", "line\nbreak.jpg", "-dash.jpg"])
def test_names_of_all_kinds(server, tmp_path, name):
    (tmp_path / name).write_bytes((PICTURES / "digit-5.jpg").read_bytes())
    assert best_of(score("--url", server.http, "--json", tmp_path / name)) == [5]
    assert score("--url", server.http, tmp_path).stdout.count("\n") == 11


def test_nobody_at_the_address_is_told_in_one_line_and_nothing_else_is_tried(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken and not listening: nobody else gets it
        port = free.getsockname()[1]
        for arguments in (["--url", f"http://127.0.0.1:{port}"], ["--url", f"127.0.0.1:{port}", "--grpc"]):
            done = score(*arguments, PICTURES, code=4)
            assert done.stderr.count("\n") == 1
            assert "refused" in done.stderr
            assert "not tried" in done.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_that_is_not_there_ends_it(server, protocol):
    done = score(*over(server, protocol), PICTURES, "--model", "nothing", code=4)
    assert "nothing" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_service_that_is_not_there_is_told(tmp_path):
    done = score("nothing", PICTURES, environ={"ACCELSERVE_SERVICES": str(tmp_path)}, code=4)
    assert 'no service "nothing"' in done.stderr
    picture = PICTURES / "digit-1.jpg"
    assert "--url" in score(picture, picture, environ={"ACCELSERVE_SERVICES": str(tmp_path)}, code=4).stderr


def test_a_folder_without_files_is_told(server, tmp_path):
    assert "no files in" in score("--url", server.http, tmp_path, code=4).stderr


def ended_with(arguments) -> int:
    """The exit code, without a process of its own."""
    try:
        return main(["score", *map(str, arguments)])
    except SystemExit as ended:  # argparse
        return int(ended.code)


def test_all_mistakes_of_usage_end_with_2(server, tmp_path):
    for arguments in (
        ["some-service"],
        ["--url", "nonsense", PICTURES],
        ["--url", server.http, "--labels", tmp_path / "none", PICTURES],
        ["--url", server.http, "--key-file", tmp_path / "none", PICTURES],
        ["--url", server.http, "--script", "score.py", PICTURES],
        ["--url", server.http, "--batch", "0", PICTURES],
        ["--url", server.http, "--legacy-tensorflow", PICTURES],
        ["--url", server.http],
    ):
        assert ended_with(arguments) == 2, arguments


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.full)])
def test_a_folder_of_thousands_of_files(server, tmp_path, count):
    picture = (PICTURES / "digit-2.jpg").read_bytes()
    (tmp_path / "first.jpg").write_bytes(picture)
    for number in range(count - 1):
        os.link(tmp_path / "first.jpg", tmp_path / f"{number:05}.jpg")
    done = score("--url", server.http, tmp_path, "--concurrency", "8", "--top", "1")
    assert f"{count} files: {count} scored, 0 failed" in done.stdout


def test_whoever_reads_may_have_enough(server):
    command = " ".join([*COMMAND, "--url", server.http, "--top", "1", *[str(PICTURES)] * 50])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@contextmanager
def slow_server(key: str = "", answers: int = 0) -> Iterator[tuple[str, threading.Event]]:
    """Answers the first so many requests; the others wait until the end. The event: one is waiting."""
    waiting, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        seen = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            allowed = not key or self.headers.get("authorization") == f"Bearer {key}"
            Handler.seen += 1
            if allowed and Handler.seen > answers:
                waiting.set()
                over.wait(LIMIT_S)
            body = b"[0.25, 0.75]" if allowed else b'{"error": "which key?"}'
            self.send_response(200 if allowed else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", waiting
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_ctrl_c_tells_what_there_is_and_waits_for_nobody():
    with slow_server(answers=3) as (url, waiting):
        command = [*COMMAND, "--url", url, "--timeout", "50", "--json", "--concurrency", "1", str(PICTURES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert waiting.wait(LIMIT_S)
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "Traceback" not in errors
    summary = json.loads(out)["summary"]
    assert (summary["scored"], summary["interrupted"]) == (3, True)


def test_the_key_comes_from_a_file_or_the_environment_and_is_never_shown(tmp_path):
    key = "0123456789abcdef-secret"
    (tmp_path / "key").write_text(key + "\n")
    picture = PICTURES / "digit-1.jpg"
    with slow_server(key, answers=100) as (url, _):
        assert best_of(score("--url", url, "--key-file", tmp_path / "key", "--json", picture)) == [1]
        assert best_of(score("--url", url, "--json", picture, environ={"ACCELSERVE_KEY": key})) == [1]
        refused = score("--url", url, PICTURES, environ={"ACCELSERVE_KEY": key[:-1]}, code=2)
    assert "401" in refused.stderr
    assert "--key-file" in refused.stderr
    assert key[:-1] not in refused.stderr + refused.stdout


def test_a_server_that_does_not_answer_in_time_fails_that_file():
    with slow_server() as (url, _):
        done = score("--url", url, "--timeout", "0.2", PICTURES / "digit-1.jpg", code=1)
    assert "no answer in time" in done.stderr


# --- offline: the entry script alone

SCRIPT = """
import json, os, time

def init():
    print("init in", os.getpid())

def run(raw_data):
    data = json.loads(raw_data)["data"]
    if data == "exit":
        os._exit(9)
    if data == "hang":
        time.sleep(1000)
    if data == "raise":
        raise ValueError("not this one")
    return [x / 2 for x in data]
"""


def script(tmp_path: Path, text: str = SCRIPT) -> Path:
    path = tmp_path / "score.py"
    path.write_text(text)
    return path


def documents(tmp_path: Path, *contents: object) -> list[Path]:
    made = []
    for number, content in enumerate(contents):
        made.append(tmp_path / f"{number}.json")
        made[-1].write_text(json.dumps({"data": content}))
    return made


def test_an_entry_script_is_run_without_a_server(tmp_path):
    asked = documents(tmp_path, [1, 2], [9, 3])
    done = score("--script", script(tmp_path), *asked, "--json")
    assert best_of(done) == [1, 0]
    assert "init in" in done.stderr  # what it prints is not among the answers


def test_a_script_that_raises_hangs_or_ends_costs_that_file_alone(tmp_path):
    asked = documents(tmp_path, [1, 2], "raise", "exit", "hang", [3, 4])
    done = score("--script", script(tmp_path), *asked, "--json", "--timeout", "1", code=1)
    assert best_of(done) == [1, None, None, None, 1]
    assert [file.get("status") for file in json.loads(done.stdout)["files"][1:4]] == ["500", "SCRIPT ENDED", "504"]
    assert done.stderr.count("ValueError: not this one") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def init(): pass", "run()"),
        ("def init(): 1 / 0\ndef run(data): pass", "ZeroDivisionError"),
        ("import not_a_module\ndef init(): pass\ndef run(data): pass", "not_a_module"),
        ("import os\ndef init(): os._exit(5)\ndef run(data): pass", "exit code 5"),
        ("def init(:", "line 1"),
    ],
)
def test_a_script_that_cannot_be_loaded_ends_with_3(tmp_path, text, told):
    done = subprocess.run(
        [*COMMAND, "--script", str(script(tmp_path, text)), str(PICTURES)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 3, done.stderr
    assert told in done.stderr


def test_a_script_that_is_not_there_ends_with_4(tmp_path):
    assert "no such script" in score("--script", tmp_path / "none.py", PICTURES, code=4).stderr


def test_the_scripts_models_are_named_by_hand(tmp_path):
    (tmp_path / "weights.txt").write_text("0.5")
    text = (
        "from azureml.core.model import Model\n"
        "def init():\n    global w\n    w = float(open(Model.get_model_path('net')).read())\n"
        "def run(raw_data):\n    return [w, w * 2]\n"
    )
    (document,) = documents(tmp_path, 1)
    models = ["--model-files", f"net={tmp_path}/weights.txt"]
    done = score("--script", script(tmp_path, text), *models, document, "--json")
    assert [place["score"] for place in json.loads(done.stdout)["files"][0]["top"]] == [1.0, 0.5]


def test_a_terminal_of_few_letters_gets_the_others_spelled_out(server, tmp_path):
    (tmp_path / "zoë 数.jpg").write_bytes((PICTURES / "digit-5.jpg").read_bytes())
    done = score("--url", server.http, tmp_path, environ={"PYTHONIOENCODING": "ascii"})
    assert "zo\\xeb \\u6570.jpg:" in done.stdout


def test_no_script_process_outlives_the_command(tmp_path):
    pid = tmp_path / "pid"
    text = f"import os\ndef init():\n    open({str(pid)!r}, 'w').write(str(os.getpid()))\ndef run(raw_data): return 1\n"
    (document,) = documents(tmp_path, 1)
    score("--script", script(tmp_path, text), document)
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_what_a_script_has_started_does_not_outlive_the_command(tmp_path):
    pid = tmp_path / "pid"
    started = f"open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '1000']).pid))"
    text = f"import subprocess\ndef init():\n    {started}\ndef run(raw_data): return 1\n"
    (document,) = documents(tmp_path, 1)
    score("--script", script(tmp_path, text), document)
    wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists())


@pytest.mark.parametrize("where", ["init", "run"])
def test_ctrl_c_ends_a_script_wherever_it_is(tmp_path, where):
    pid = tmp_path / "pid"
    stuck = f"    with open({str(pid)!r}, 'w') as f: f.write(str(os.getpid()))\n    time.sleep(1000)\n"
    parts = {name: stuck if name == where else "    pass\n" for name in ("init", "run")}
    text = f"import os, time\ndef init():\n{parts['init']}def run(raw_data):\n{parts['run']}"
    (document,) = documents(tmp_path, 1)
    command = [*COMMAND, "--script", str(script(tmp_path, text)), str(document)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: pid.exists() and pid.read_text())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in errors
    wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists())
