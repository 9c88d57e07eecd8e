"""`accelserve azmlinfsrv` as users start it: real workers, real sockets, real ends."""

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
from azml_process import azml_serving, start_azml
from plain_http import ask, get, post
from server_process import Server, end, line_of, wait_until
from talk import Connection, Scrape

RAW = """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init():
    print("init is done")

@rawhttp
def run(request):
    if request.method == "GET":
        return AMLResponse("GET is not supported", 405)
    return AMLResponse(str(len(request.get_data(False))), 200)
"""
TEXT = """
import ctypes, json, os, sys, time

def init():
    pass

def run(raw_data):
    asked = json.loads(raw_data)
    if "sleep" in asked:
        time.sleep(asked["sleep"])
    if "spin" in asked:
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    if "exit" in asked:
        os._exit(asked["exit"])
    if "system_exit" in asked:
        sys.exit(asked["system_exit"])
    if "print" in asked:
        print(asked["print"], flush=True)
        print(asked["print"], file=sys.stderr, flush=True)
    if "child" in asked:
        return os.popen("sleep 600 >/dev/null 2>&1 & echo $!").read()
    return {"pid": os.getpid(), "asked": asked}
"""


@pytest.fixture
def raw(tmp_path) -> Path:
    path = tmp_path / "raw.py"
    path.write_text(RAW)
    return path


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.py"
    path.write_text(TEXT)
    return path


def say(server: Server, **asked: object):
    return post(server, "/score", asked, content_type="application/json")


def message(answer) -> str:
    document = json.loads(answer.body)
    assert document.keys() == {"message"}
    return document["message"]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def workers_of(server: Server) -> set[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


def test_a_raw_script_is_served_with_the_originals_headers(raw, tmp_path):
    with azml_serving(raw, "--worker_count", 2, log=tmp_path / "log") as server:
        assert get(server, "/").body == b"Healthy"
        answer = post(server, "/score", b"12345", content_type="image/jpeg")
        assert (answer.status, answer.body) == (200, b"5")
        assert answer.headers["x-ms-run-function-failed"] == "False"
        assert float(answer.headers["x-ms-run-fn-exec-ms"]) >= 0
        assert (get(server, "/score").status, get(server, "/score").body) == (405, b"GET is not supported")
        assert json.loads(get(server, "/swagger.json").body)["swagger"] == "2.0"
        assert len(workers_of(server)) == 2
        assert server.stop() == 0
        assert "init is done pid=" in server.log.read_text()


def test_large_bodies_pass_through_whole(raw, tmp_path):
    with azml_serving(raw, log=tmp_path / "log") as server:
        for size in (0, 1, 65_535, 65_536, 3_000_000, 60_000_000):
            assert post(server, "/score", bytes(size)).body == b"%d" % size
        assert post(server, "/score", bytes(64 * 2**20 + 1)).status == 413


def test_a_separate_health_endpoint_answers_too(raw, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environ = {"SEPERATE_HEALTH_ENDPOINT": "true"}
    with azml_serving(raw, "--health_port", port, log=tmp_path / "log", environ=environ) as server:
        assert server.grpc == f"http://127.0.0.1:{port}"
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"Healthy"
        connection.close()


def test_health_is_answered_while_all_workers_are_busy(text, tmp_path):
    with azml_serving(text, "--worker_count", 2, log=tmp_path / "log") as server, ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(say, server, sleep=2) for _ in range(2)]
        wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="busy") == 2)
        began = time.monotonic()
        assert get(server, "/").body == b"Healthy"
        assert time.monotonic() - began < 1
        assert not any(each.done() for each in busy)
        assert [each.result().status for each in busy] == [200, 200]


def test_a_run_over_its_limit_is_504_and_the_worker_lives_on(text, tmp_path):
    with azml_serving(text, log=tmp_path / "log", environ={"SCORING_TIMEOUT_MS": "300"}) as server:
        pid = json.loads(say(server).body)["pid"]
        answer = say(server, sleep=60)
        assert (answer.status, message(answer)) == (504, "Scoring timeout after 300 ms")
        assert answer.headers["x-ms-run-function-failed"] == "True"
        assert json.loads(say(server).body)["pid"] == pid


def test_a_run_that_cannot_be_interrupted_ends_with_its_worker_and_others_go_on(text, tmp_path):
    environ = {"SCORING_TIMEOUT_MS": "300"}
    with azml_serving(text, log=tmp_path / "log", environ=environ) as server, ThreadPoolExecutor(2) as pool:
        pid = json.loads(say(server).body)["pid"]
        spinning = pool.submit(say, server, spin=1)
        wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="busy") == 1)
        behind = pool.submit(say, server, after=1)
        assert message(spinning.result()) == "Scoring timeout after 300 ms"
        answer = json.loads(behind.result().body)
        assert (answer["asked"], answer["pid"] != pid) == ({"after": 1}, True)
        assert not is_running(pid)
        assert Scrape(server).sum("accelserve_script_timeouts") == 1


def test_a_worker_that_exits_or_is_killed_costs_its_request_and_is_replaced(text, tmp_path):
    with azml_serving(text, "--worker_count", 2, log=tmp_path / "log") as server, ThreadPoolExecutor(2) as pool:
        answer = say(server, exit=5)
        assert (answer.status, "exit code 5" in message(answer)) == (500, True)
        assert say(server).status == 200
        running = pool.submit(say, server, sleep=60)
        busy = wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="busy"))
        assert busy == 1
        for pid in workers_of(server):
            os.kill(pid, signal.SIGKILL)
        assert running.result().status == 500
        wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="idle") == 2)
        assert say(server).status == 200


def test_system_exit_in_run_is_an_error_and_the_worker_lives_on(text, tmp_path):
    with azml_serving(text, log=tmp_path / "log") as server:
        pid = json.loads(say(server).body)["pid"]
        assert (say(server, system_exit=1).status, json.loads(say(server).body)["pid"]) == (500, pid)


@pytest.mark.full
def test_a_script_that_dies_again_and_again_makes_health_fail_with_the_reason(text, tmp_path):
    with azml_serving(text, log=tmp_path / "log") as server:
        for _ in range(3):
            wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="idle") == 1)
            assert say(server, exit=9).status == 500
        answer = get(server, "/")
        assert (answer.status, "exit code 9 (3 times in a row)" in message(answer)) == (503, True)
        answer = say(server)
        assert (answer.status, answer.headers["x-accelserve-reason"]) == (503, "script_down")
        assert int(answer.headers["retry-after"]) >= 1


def test_what_a_script_prints_is_logged_by_pid_and_does_not_disturb_answers(text, tmp_path):
    with azml_serving(text, log=tmp_path / "log") as server:
        pid = json.loads(say(server, print="a line\nforged=1 \x1b[31m").body)["pid"]
        log = wait_until(lambda: t if (t := server.log.read_text()).count("a line pid=") == 2 else "")
        assert f"a line pid={pid}" in log
        assert "\x1b" not in log


def test_clients_that_leave_free_nothing_but_cost_nobody(text, tmp_path):
    with azml_serving(text, log=tmp_path / "log") as server:
        for _ in range(5):
            with Connection(server.http_port) as gone:
                gone.send("/score", b'{"sleep": 0.1}')
        assert say(server).status == 200
        wait_until(lambda: Scrape(server).sum("accelserve_requests_in_flight") == 0)
        cancelled = Scrape(server).sum("accelserve_requests_total", outcome="cancelled")
        received = Scrape(server).sum("accelserve_requests_received_total")
        assert cancelled + 1 == received == Scrape(server).sum("accelserve_requests_total")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_the_server_ends(text, tmp_path, number):
    with azml_serving(text, "--worker_count", 2, log=tmp_path / "log") as server:
        child = int(json.loads(say(server, child=1).body))
        with Connection(server.http_port) as busy:
            busy.send("/score", b'{"spin": 1}')
            wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="busy") == 1)
            left = workers_of(server) | ({child} if number == signal.SIGTERM else set())
            server.process.send_signal(number)
            if number == signal.SIGTERM:  # the client has to go, or its request is waited for
                busy.close()
            server.process.wait(30)
        try:
            wait_until(lambda: not any(map(is_running, left)))
        finally:
            if is_running(child):
                os.kill(child, signal.SIGKILL)


def test_what_was_accepted_is_answered_at_the_end(text, tmp_path):
    with azml_serving(text, log=tmp_path / "log") as server, ThreadPoolExecutor(2) as pool:
        running = [pool.submit(say, server, sleep=0.5) for _ in range(2)]
        wait_until(lambda: Scrape(server).sum("accelserve_requests_in_flight") == 2)
        assert server.stop() == 0
        assert [each.result().status for each in running] == [200, 200]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("def run(raw_data): return 1", "init"),
        ("import no_such_module", "no_such_module"),
        ("def init():\n    raise ValueError('no weights')\n\ndef run(raw_data): return 1", "ValueError: no weights"),
        ("import os\n\ndef init(): os._exit(7)\n\ndef run(raw_data): return 1", "exit code 7"),
    ],
)
def test_a_script_that_does_not_start_ends_the_process_with_3_and_its_traceback(tmp_path, script, told):
    path, log = tmp_path / "score.py", tmp_path / "log"
    path.write_text(script)
    process = start_azml(["--entry_script", path, "--worker_count", 2], log)
    try:
        assert process.wait(60) == 3
        assert told in log.read_text()
    finally:
        end(process)


@pytest.mark.parametrize(("strict", "code"), [((), 2), (("--strict-compat",), 1)])
def test_a_wrong_configuration_ends_with_the_code_of_the_house_or_of_the_original(tmp_path, strict, code):
    process = start_azml(["--worker_count", 0, *strict], tmp_path / "log")
    try:
        assert process.wait(60) == code
        said = (tmp_path / "log").read_text()
        assert "--worker_count" in said
        assert "--entry_script" in said
    finally:
        end(process)


@pytest.mark.parametrize(("strict", "code"), [((), 5), (("--strict-compat", "--host", "127.0.0.1"), 1)])
def test_a_port_in_use_is_told_before_the_script_is_started(raw, tmp_path, strict, code):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start_azml(["--entry_script", raw, "--port", port, *strict], tmp_path / "log")
        try:
            assert process.wait(60) == code
            assert f"HTTP port {port} on 127.0.0.1 is in use" in (tmp_path / "log").read_text()
        finally:
            end(process)


def test_a_crowd_of_a_thousand_connections_is_answered(raw, tmp_path):
    with azml_serving(raw, log=tmp_path / "log") as server:
        crowd = [socket.create_connection(("127.0.0.1", server.http_port), timeout=30) for _ in range(1000)]
        try:
            for each in crowd:
                each.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
            answers = [each.recv(4096) for each in crowd]
            assert all(answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n3") for answer in answers)
        finally:
            for each in crowd:
                each.close()


def test_who_waits_too_long_is_refused(text, tmp_path):
    with (
        azml_serving(text, "--max-queue-ms", 200, log=tmp_path / "log") as server,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(say, server, sleep=1)
        wait_until(lambda: Scrape(server).sum("accelserve_script_workers", state="busy") == 1)
        answer = ask(server, "POST", "/score", {"late": 1})
        assert (answer.status, answer.headers["x-accelserve-reason"]) == (503, "queue_wait")
        assert "retry-after" in answer.headers
        assert running.result().status == 200


def test_a_script_that_hangs_in_init_ends_the_start(tmp_path):
    path, log = tmp_path / "score.py", tmp_path / "log"
    path.write_text("import time\n\ndef init(): time.sleep(600)\n\ndef run(raw_data): return 1\n")
    process = start_azml(["--entry_script", path, "--script-start-timeout", 2], log)
    try:
        assert process.wait(60) == 3
        assert "it was not ready after 2 s" in log.read_text()
    finally:
        end(process)


def test_a_server_that_is_told_to_stop_while_it_starts_stops(tmp_path):
    path = tmp_path / "score.py"
    path.write_text(
        "import time\n\ndef init():\n    print('begun')\n    time.sleep(600)\n\ndef run(raw_data): return 1\n"
    )
    process = start_azml(["--entry_script", path], tmp_path / "log")
    try:
        wait_until(lambda: "begun" in (tmp_path / "log").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        end(process)


@pytest.mark.full
def test_a_log_that_cannot_be_written_costs_no_answer(text, tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    process = start_azml(["--entry_script", text], tmp_path / "log")
    try:
        port = int(line_of(process).partition("127.0.0.1:")[2].split()[0])
        with Connection(port) as connection:
            for number in range(3):
                body = json.dumps({"print": "lost", "number": number}).encode()
                assert connection.ask("/score", body).json["asked"]["number"] == number
    finally:
        end(process)


@pytest.mark.full
def test_a_script_that_eats_all_memory_it_may_have_costs_its_request(tmp_path):
    path = tmp_path / "score.py"
    path.write_text(
        "import resource\n\ndef init():\n    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n\n"
        "def run(raw_data):\n    return len(bytearray(int(raw_data)))\n"
    )
    with azml_serving(path, log=tmp_path / "log") as server:
        assert post(server, "/score", b"1000").body == b"1000"
        assert post(server, "/score", str(2**33).encode()).status == 500
        assert post(server, "/score", b"2000").body == b"2000"
