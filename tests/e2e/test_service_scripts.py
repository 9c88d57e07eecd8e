"""Entry scripts as services: copied, changed one replica after the other, refused when they do not start."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
from local_services import Service, is_running, shop
from server_process import wait_until
from talk import ask

HEAR = "import os\nANSWER = {answer!r}\ndef init(): pass\ndef run(raw_data): return [ANSWER, os.getpid()]\n"
WITH_NEIGHBOUR = (
    "from words import ANSWER\nimport os\ndef init(): pass\ndef run(raw_data): return [ANSWER, os.getpid()]\n"
)
SERVICE = "--entry-script {script} --auth none --wait --timeout 60"


@pytest.fixture
def opened(tmp_path, monkeypatch, capsys):
    with shop(tmp_path, monkeypatch, capsys) as made:
        yield made


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def answer(service: Service) -> list:
    said = ask(service.address, f"/api/v1/service/{service.name}/score", b"{}")
    assert said.status == 200, said.body
    return said.json


def test_what_is_deployed_is_a_copy_and_a_changed_script_takes_over_when_it_is_deployed(opened, tmp_path):
    script = write(tmp_path / "score.py", HEAR.format(answer="one"))
    opened.type("deploy scripted --replicas 2 " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    script.write_text(HEAR.format(answer="two"))
    os.kill(service.replicas[0], signal.SIGKILL)
    wait_until(lambda: service.status["replicas"][0]["restarts"] == 1)
    service.becomes("Healthy")
    assert {answer(service)[0] for _ in range(8)} == {"one"}
    opened.type(f"services update scripted --entry-script {script} --wait --timeout 60")
    wait_until(lambda: {answer(service)[0] for _ in range(8)} == {"two"})
    wait_until(lambda: [path.name for path in service.folder.glob("app-*")] == ["app-2"])


OPENS = """
import os
from azureml.core.model import Model
def init():
    global words
    with open(os.path.join(Model.get_model_path("words"), "words.txt")) as file:
        words = file.read().split()
def run(raw_data):
    return [words, os.environ["AZUREML_MODEL_DIR"]]
"""


def test_a_model_that_only_the_script_opens_is_registered_deployed_and_not_deleted_under_it(opened, tmp_path):
    write(tmp_path / "outputs" / "model" / "words.txt", "one two")
    opened.type(f"register {tmp_path}/outputs/model --name words --custom")
    script = write(tmp_path / "score.py", OPENS)
    opened.type("deploy scripted --model words " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    assert answer(service) == [["one", "two"], str(tmp_path / "store" / "words" / "1")]
    assert "deployed as service scripted" in opened.type("delete words:1", code=5)


def test_a_script_whose_init_fails_is_refused_with_3_and_the_one_before_serves_on(opened, tmp_path):
    script = write(tmp_path / "score.py", HEAR.format(answer="one"))
    opened.type("deploy scripted " + SERVICE.format(script=script))
    bad = write(tmp_path / "bad.py", "def init(): raise ValueError('no weights here')\ndef run(raw_data): return 1\n")
    said = opened.type(f"services update scripted --entry-script {bad} --wait --timeout 60", code=3)
    assert "revision 2 is refused: replica 0 ended with 3" in said
    service = Service(opened, "scripted")
    assert answer(service)[0] == "one"
    assert service.status["definition"]["entry_script"].endswith("/app-1/score.py")
    said = opened.type("deploy others " + SERVICE.format(script=bad), code=3)
    assert "no weights here" in said


@pytest.mark.full
def test_only_the_script_opens_the_model_unless_the_server_is_to_load_it_too(opened, tmp_path):
    opened.register()
    script = write(tmp_path / "score.py", HEAR.format(answer="one"))
    opened.type("deploy scripted --model m " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    assert service.status["definition"]["serve_model"] is False
    assert ask(service.address, "/score?model=m", b"{}").status == 404
    said = opened.type(
        "deploy scripted --model m --serve-model --overwrite --cpu-cores 0.5 " + SERVICE.format(script=script)
    )
    assert service.status["definition"]["serve_model"] is True
    assert "note: cpu_cores 0.5" in said


@pytest.mark.full
def test_a_folder_goes_with_its_script_and_the_script_is_found_in_it(opened, tmp_path):
    folder = tmp_path / "sources"
    write(folder / "score.py", WITH_NEIGHBOUR)
    write(folder / "words.py", "ANSWER = 'from beside'\n")
    write(folder / "__pycache__" / "old.pyc", "x")
    line = f"deploy scripted --source-directory {folder} " + SERVICE.format(script="score.py")
    opened.type(line)
    service = Service(opened, "scripted")
    assert answer(service)[0] == "from beside"
    assert sorted(path.name for path in (service.folder / "app-1").iterdir() if path.name != "__pycache__") == [
        *("score.py", "words.py"),
    ]
    away = write(tmp_path / "away.py", WITH_NEIGHBOUR)
    said = opened.type(f"deploy others --source-directory {folder} --entry-script {away} --auth none", code=2)
    assert "is not within source_directory" in said


@pytest.mark.full
def test_a_script_below_its_source_directory_starts_where_that_begins(opened, tmp_path):
    folder = tmp_path / "sources"
    script = "from words import ANSWER\nimport os\ndef init(): open('words.py').close()\n"
    write(folder / "code" / "score.py", script + "def run(raw_data): return [ANSWER, os.environ['AML_APP_ROOT']]\n")
    write(folder / "words.py", "ANSWER = 'from above'\n")
    opened.type(f"deploy scripted --source-directory {folder} " + SERVICE.format(script="code/score.py"))
    service = Service(opened, "scripted")
    assert answer(service) == ["from above", str(service.folder / "app-1")]


def test_a_killed_supervisor_takes_the_scripts_processes_with_it_even_busy_ones(opened, tmp_path):
    busy = "import os, time\ndef init(): pass\ndef run(raw_data):\n    return os.getpid()\n"
    script = write(tmp_path / "score.py", busy)
    opened.type("deploy scripted --workers 2 " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    worker = ask(service.address, "/score", b"{}").json
    os.kill(worker, signal.SIGSTOP)
    supervisor, pids = service.status["supervisor"], service.replicas
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, [worker, *pids])))


@pytest.mark.full
def test_what_a_script_has_started_ends_with_its_replica_and_with_a_killed_supervisor_at_the_next_start(
    opened, tmp_path
):
    starts = (
        "import subprocess\ndef init():\n    global started\n"
        "    started = [subprocess.Popen(['sleep', '600'], start_new_session=own).pid for own in (False, True)]\n"
        "def run(raw_data): return started\n"
    )
    script = write(tmp_path / "score.py", starts)
    opened.type("deploy scripted " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    first = answer(service)
    os.kill(service.replicas[0], signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, first)))
    wait_until(lambda: service.status["replicas"][0]["restarts"] == 1)
    service.becomes("Healthy")
    second = answer(service)
    os.kill(service.status["supervisor"], signal.SIGKILL)
    service.becomes("Failed")
    opened.type("services start scripted --wait --timeout 60")
    assert not any(map(is_running, second))
    third = answer(service)
    opened.type("services delete scripted")
    assert not any(map(is_running, third))


@pytest.mark.full
def test_a_script_above_its_memory_is_replaced_while_another_answers(opened, tmp_path):
    eats = (
        "import os\nkept = []\ndef init(): pass\n"
        "def run(raw_data):\n    kept.append(bytearray(os.urandom(1)) * 600_000_000) if raw_data == 'eat' else None\n"
        "    return os.getpid()\n"
    )
    script = write(tmp_path / "score.py", eats)
    opened.type("deploy scripted --memory-gb-limit 0.6 " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    (before,) = service.replicas
    assert ask(service.address, "/score", b"eat").status == 200
    wait_until(lambda: not is_running(before), 40)
    service.becomes("Healthy")
    assert service.status["replicas"][0]["restarts"] == 1
    assert "GB of the 0.6 GB that it may" in opened.type("services logs scripted")


@pytest.mark.full
def test_an_update_waits_for_a_run_that_takes_longer_than_a_plain_model_may(opened, tmp_path):
    long = (
        "import time\ndef init(): pass\n"
        "def run(raw_data):\n    time.sleep(33 if raw_data == 'long' else 0)\n    return ['one']\n"
    )
    script = write(tmp_path / "score.py", long)
    opened.type("deploy scripted --workers 2 " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    connection = HTTPConnection("127.0.0.1", service.address.http_port, timeout=90)
    connection.request("POST", "/score", b"long")
    wait_until(lambda: service.status["replicas"][0]["in_flight"] == 1)
    two = write(tmp_path / "two.py", HEAR.format(answer="two"))
    opened.type(f"services update scripted --entry-script {two} --wait --timeout 60")
    wait_until(lambda: answer(service)[0] == "two")
    assert [replica["phase"] for replica in service.status["replicas"]] == ["stopping", "ready"]
    said = connection.getresponse()
    assert (said.status, said.read()) == (200, b'["one"]')
    connection.close()
    wait_until(lambda: len(service.replicas) == 1)
    assert service.state == "Healthy"


@pytest.mark.full
def test_a_busy_service_grows(opened, tmp_path):
    slow = "import time\ndef init(): pass\ndef run(raw_data):\n    time.sleep(2)\n    return 1\n"
    script = write(tmp_path / "score.py", slow)
    opened.type("deploy scripted --autoscale 1:2:50 --max-concurrent 4 --workers 3 " + SERVICE.format(script=script))
    service = Service(opened, "scripted")
    assert len(service.replicas) == 1
    address = service.address
    with ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(ask, address, "/score", b"{}") for _ in range(6)]
        wait_until(lambda: service.status["wanted"] == 2)
    assert {future.result().status for future in asked} == {200}
    wait_until(lambda: len([pid for pid in service.replicas if pid]) == 2)
    service.becomes("Healthy")
