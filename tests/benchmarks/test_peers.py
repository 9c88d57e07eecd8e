"""The peers' kit: what cannot be had is named and left out, and a wrong answer is not measured."""

import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import beside, hot_path, load, suite
from benchmarks.load import Request, WrongAnswer
from benchmarks.peers import environments
from benchmarks.peers.cases import CASES
from benchmarks.peers.catalog import FORMS, OWN_FORM, PEERS, environment_of
from benchmarks.tables import OURS, part_table, ratio, read


@pytest.fixture
def settings(tmp_path):
    return beside.Settings(work=tmp_path, results=tmp_path, left_out={"mosec": "could not be installed: no network"})


class Said(beside.Contender):
    """A contender that says what it is told to."""

    def __init__(self, name, *costs, rounds=9, error=None):
        self.name, self.rounds, self.costs, self.error = name, rounds, list(costs), error
        self.left = 0

    def leave(self):
        self.left += 1

    def measure(self):
        if self.error:
            raise self.error
        yield {
            "clients": 8, "cpu_us": self.costs.pop(0), "rps": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 0,
            "foreign_cpus": 0.01,
        }  # fmt: skip


def results(settings, name="case"):
    return beside.Results(settings.results / f"{name}.jsonl", "a claim", settings)


def test_every_case_can_be_asked_of_each_of_its_peers():
    for name, case in CASES.items():
        for peer in (*case.peers, *case.slow_peers, *case.quick_peers):
            form = PEERS[peer].forms.get(case.kind, OWN_FORM[case.kind])
            assert case.kind in PEERS[peer].paths, (name, peer)
            assert form in FORMS, (name, peer)


def test_every_peer_has_its_server_and_the_versions_of_its_packages():
    for name in PEERS:
        requirements = (environments.REQUIREMENTS / f"{environment_of(name)}.txt").read_text()
        assert all("==" in line for line in requirements.splitlines() if line and not line.startswith("#")), name


def test_a_peer_whose_packages_cannot_be_had_is_named_with_the_reason(tmp_path, monkeypatch):
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "nobody.txt").write_text("no-such-package-anywhere==1.0\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", requirements)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    left_out = environments.prepare(["nobody"], tmp_path / "venvs")
    assert "could not be installed" in left_out["nobody"]
    assert "no-such-package-anywhere" in left_out["nobody"]


def test_a_peer_that_wants_an_older_python_is_left_out_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "find_python", lambda newest: "" if newest else sys.executable)
    assert environments.prepare(["pytriton"], tmp_path) == {"pytriton": "wants Python 3.11 up to 3.11.2"}


def test_without_a_private_network_the_reason_says_what_is_missing(monkeypatch):
    monkeypatch.delenv(environments.PRIVATE, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    assert environments.enter_private_network(["true"]) == "unshare is missing, so there is no private network"


def test_without_perf_and_py_spy_the_profile_names_them(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    monkeypatch.setattr(hot_path.sys, "executable", str(tmp_path / "python"))
    for tool, name in ((hot_path.perf, "perf"), (hot_path.py_spy, "py-spy")):
        with pytest.raises(hot_path.NoTool, match=f"{name} is missing"):
            tool(None, tmp_path, 1)


def test_without_a_load_generator_the_one_in_python_is_taken_and_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    with Answers({"predictions": [[1.0, 2.0]]}) as url:
        seen = load.drive(Request(url, b"{}", "application/json", (1.0, 2.0)), 1, 1, 0)
    assert seen.generator == "benchmarks.clients http"
    assert seen.answered > 0


def test_who_fails_is_named_and_the_others_are_measured_on(settings):
    broken = Said("mosec_tuned", error=WrongAnswer("want about 1, got 2"))
    out = results(settings)
    assert beside.take_turns([Said(OURS, 10.0, 11.0), broken], 2, out) == {"mosec_tuned"}
    result = read(out.path)
    assert [point["server"] for point in result.points] == [OURS, OURS]
    text = "\n".join(part_table(read(out.path)))
    assert "Failed: mosec_tuned: want about 1, got 2" in text
    assert "Left out: mosec: could not be installed: no network." in text


def test_ratios_are_taken_within_a_round(settings):
    out = results(settings)
    beside.take_turns([Said(OURS, 10.0, 40.0, 10.0), Said("naive_fastapi", 100.0, 400.0, 120.0)], 3, out)
    assert ratio(read(out.path), 8, "naive_fastapi", OURS, "cpu_us") == 10.0


def test_a_slow_peer_takes_part_in_its_rounds_only_and_then_leaves(settings):
    out = results(settings)
    slow = Said("azureml", 9.0, 9.0, rounds=2)
    assert not beside.take_turns([Said(OURS, 1.0, 1.0, 1.0), slow], 3, out)
    assert slow.left == 1
    assert [point["round"] for point in read(out.path).points if point["server"] == "azureml"] == [0, 1]


def test_a_wrong_answer_is_not_measured():
    with Answers({"predictions": [[1.0, 2.5]]}) as url, pytest.raises(WrongAnswer, match="want about"):
        Request(url, b"{}", "application/json", (1.0, 2.0)).check()


def test_a_quick_run_leaves_the_committed_results_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["suite", "tiny", "--quick"])
    assert suite.settings_of(suite.arguments(), {}, True).results == suite.WORK / "results"


def test_the_command_line_names_what_it_does_not_know(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["suite", "tinny"])
    with pytest.raises(SystemExit):
        suite.arguments()
    assert "unknown: tinny" in capsys.readouterr().err


class Answers:
    """A server that answers every POST with the same JSON."""

    def __init__(self, value):
        body = json.dumps(value).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/predict"

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_the_folder_for_environments_is_not_part_of_the_checkout():
    assert ".peers-work/" in (Path(suite.__file__).parents[1] / ".gitignore").read_text().splitlines()
