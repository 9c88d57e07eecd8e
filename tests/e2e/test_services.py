"""`accelserve deploy` and `services`: replicas that come back, updates without a lost request, nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hammering import all_have_seen, hammering
from local_services import (
    Service,
    faults_of,
    is_running,
    over_kept_http,
    over_new_http,
    over_patient_grpc,
    processes_of,
    shop,
)
from server_process import wait_until
from talk import Calls, ask, instances, row

from accelserve.deploy.folder import ServiceFolder
from accelserve.deploy.ports import Ports, open_ports
from accelserve.errors import ScoringError

COMMAND = [sys.executable, "-m", "accelserve"]


@pytest.fixture
def opened(tmp_path, monkeypatch, capsys):
    with shop(tmp_path, monkeypatch, capsys) as made:
        yield made


def zombies_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if not is_running(int(child))]


def test_two_replicas_are_deployed_answer_and_are_deleted(opened):
    opened.register()
    said = opened.type("deploy numbers --model m --replicas 2 --device cpu --auth none --wait --timeout 60")
    lines = said.splitlines()
    assert lines[0] == "numbers: Transitioning: 0 of 2 replicas ready"
    assert "numbers: Healthy: 2 of 2 replicas ready" in lines
    uri = next(line.split()[1] for line in lines if line.startswith("scoring_uri"))
    status = json.loads(opened.type("services status numbers --json"))
    assert (status["state"], status["scoring_uri"], status["definition"]["version"]) == ("Healthy", uri, 1)
    port = status["definition"]["http_port"]
    assert uri == f"http://127.0.0.1:{port}/api/v1/service/numbers/score"
    server = type("Address", (), {"http_port": port, "http": uri.partition("/api")[0]})
    assert ask(server, "/api/v1/service/numbers/score", instances((1, 3))).json == [[1, 3]]
    assert status["swagger_uri"] == uri.replace("/score", "/swagger.json")
    swagger = ask(server, "/api/v1/service/numbers/swagger.json")
    assert (swagger.status, swagger.json) == (200, ask(server, "/swagger.json").json)
    assert opened.type("services list").splitlines()[1].split() == ["numbers", "Healthy", "2/2", "m:1", "-", "cpu", uri]
    pids = [replica["pid"] for replica in status["replicas"]]
    assert len(set(pids)) == 2
    assert opened.type("services delete numbers") == "deleted numbers\n"
    assert not any(map(is_running, [*pids, status["supervisor"]]))
    assert opened.type("services list") == "there is no service\n"
    assert "there is no service" in opened.type("services status numbers", code=4)


def test_a_replica_that_is_killed_comes_back_and_the_service_answers_all_the_while(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m --replicas 2")
    first, second = service.replicas
    supervisor = service.status["supervisor"]
    os.kill(first, signal.SIGKILL)
    address = service.address
    for _ in range(20):
        assert ask(address, "/v1/models/m:predict", instances((1, 3))).status == 200
    wait_until(lambda: service.status["replicas"][0]["restarts"] == 1)
    service.becomes("Healthy")
    assert service.replicas[1] == second
    assert service.replicas[0] != first
    assert zombies_of(supervisor) == []
    said = opened.type("services logs numbers -n 1000")
    assert "[supervisor]" in said
    assert "Unhealthy: 1 of 2 replicas ready; replica 0 was killed by SIGKILL" in said
    start = opened.type("services logs numbers --init")
    assert start.count("replica starts") == 2
    assert "replica is ready" in start


def test_an_update_to_a_new_version_loses_no_request_and_a_broken_one_changes_nothing(opened):
    opened.register("echo", "delay_ms = 1.0")
    opened.register("double", "delay_ms = 1.0")
    opened.register(settings='load_error = "the weights are gone"')
    service = opened.deploy("numbers", "--model m:1 --replicas 2")
    with Calls(service.address) as calls:
        clients = [*(over_kept_http(service) for _ in range(3)), *(over_new_http(service) for _ in range(2))]
        clients += [over_patient_grpc(calls) for _ in range(3)]
        with hammering(clients):
            opened.type("services update numbers --model m:2 --wait --timeout 60")
            wait_until(all_have_seen(clients, 2))
            said = opened.type("services update numbers --model m:3 --wait --timeout 60", code=3)
    assert faults_of(clients) == []
    assert all(factor == version for client in clients for version, factor in client.answers)
    assert "revision 3 is refused: replica 0 ended with 3" in said
    assert "the weights are gone" in said
    status = service.status
    assert (status["state"], status["definition"]["version"]) == ("Healthy", 2)
    assert status["refused"]["revision"] == 3


def test_a_killed_supervisor_leaves_nothing_running_is_told_of_and_can_be_started_again(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m --replicas 2")
    pids, before = service.replicas, service.address
    os.kill(service.status["supervisor"], signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, pids)))
    status = service.status
    assert status["state"] == "Failed"
    assert "was killed, and its replicas with it" in status["reason"]
    assert "accelserve services start numbers" in status["reason"]
    assert status["supervisor"] is None
    refusal = opened.type("delete m:1", code=5)
    assert refusal == "accelserve: m:1 is not deleted: deployed as service numbers\n"
    opened.type("services start numbers --wait --timeout 60")
    assert service.address == before
    assert service.state == "Healthy"
    assert opened.type("services start numbers").startswith("numbers: Healthy")


def ports_if_free(service: Service) -> Ports | None:
    try:
        return open_ports(ServiceFolder(service.folder).read()[1])
    except ScoringError:
        return None


@pytest.mark.full
def test_a_service_goes_on_whose_starter_was_killed_before_it_heard_of_it(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m")
    os.kill(service.status["supervisor"], signal.SIGKILL)
    heard, told = os.pipe()
    os.close(heard)
    with closing(wait_until(lambda: ports_if_free(service))) as ports:
        given = (ports.http.fileno(), ports.grpc.fileno(), told)
        command = [sys.executable, "-m", "accelserve.deploy.supervise", str(service.folder), *map(str, given)]
        subprocess.run(command, pass_fds=given, check=True, timeout=60)
    os.close(told)
    service.becomes("Healthy")


@pytest.mark.full
def test_a_supervisor_that_is_killed_during_an_update_leaves_a_service_that_starts_in_one_of_the_two(opened):
    opened.register("echo", "load_delay_ms = 300.0")
    opened.register("double", "load_delay_ms = 300.0")
    service = opened.deploy("numbers", "--model m:1 --replicas 2")
    opened.type("services update numbers --model m:2")
    wait_until(lambda: service.state == "Transitioning")
    os.kill(service.status["supervisor"], signal.SIGKILL)
    wait_until(lambda: service.state == "Failed")
    opened.type("services start numbers --wait --timeout 60")
    assert ask(service.address, "/v1/models/m:predict", instances((1, 3))).json == {"predictions": [[2, 6]]}


@pytest.mark.full
def test_a_model_that_does_not_load_ends_in_failed_with_its_code_and_the_logs_end(opened):
    opened.register(settings='load_error = "the weights are gone"')
    said = opened.type("deploy numbers --model m --replicas 2 --auth none --wait --timeout 60", code=3)
    assert "numbers: Failed: replica" in said
    assert "ended with 3 (the model or the entry script does not load)" in said
    assert "the weights are gone" in said
    assert "Failed" in opened.type("services list")
    wait_until(lambda: processes_of(opened.services) == [])
    opened.register()
    opened.type("services update numbers --model m:2 --wait --timeout 60")


def test_all_mistakes_are_told_at_once_and_nothing_is_made(opened, tmp_path):
    (tmp_path / "score.py").write_text("def run(raw_data): return 1\n")
    said = opened.type(
        f"deploy Num --entry-script {tmp_path}/score.py --memory-gb 0 --replicas two --autoscale 1:2 --auth token "
        f"--tls-cert {tmp_path}/no.pem --device gpu:x",
        code=2,
    )
    for told in (
        *("--replicas 'two': want a whole number", "service name: want 3 to 32", "memory_gb: want a number above 0"),
        *("auth: want key or none", "tls_cert and tls_key: want both", "there is no file", "device: want auto, cpu"),
        "it has no init() at its top level",
    ):
        assert told in said, told
    assert not opened.services.exists()


def test_a_faulty_script_alone_ends_with_3(opened, tmp_path):
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(raw_data: return 1\n")
    assert "score.py, line 2" in opened.type(f"deploy numbers --entry-script {tmp_path}/score.py", code=3)


def test_what_is_not_there_is_refused_before_anything_starts(opened):
    said = opened.type("deploy numbers --model m", code=4)
    assert "has no model" in said
    opened.register()
    assert "m has: 1" in opened.type("deploy numbers --model m:7", code=4)
    assert "gpu" in opened.type("deploy numbers --model m --device gpu", code=6)
    assert "fpga" in opened.type("deploy numbers --model m --device fpga", code=6)
    assert not opened.services.exists()


@pytest.mark.full
def test_a_service_is_deleted_at_once_while_its_replicas_still_start(opened):
    opened.register()
    for _ in range(3):
        opened.type("deploy numbers --model m --replicas 2 --auth none")
        began = time.monotonic()
        opened.type("services delete numbers")
        assert time.monotonic() - began < 20, "a replica did not hear that it is to end"


@pytest.mark.full
def test_of_two_who_deploy_one_name_at_once_one_wins(opened):
    opened.register()
    command = [*COMMAND, "deploy", "numbers", "--model", "m", "--auth", "none", "--wait", "--timeout", "60"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=90)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 5], said
    assert len(processes_of(opened.services)) == 1


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_port_that_is_taken_is_refused_and_nothing_is_left(opened, kind):
    opened.register()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = taken.getsockname()[1]
        said = opened.type(f"deploy numbers --model m --auth none --{kind}-port {port}", code=5)
    assert f"port {port} on 127.0.0.1 is in use; choose another with --{kind}-port" in said
    assert os.listdir(opened.services) == [] if opened.services.exists() else True


@pytest.mark.full
def test_two_services_cannot_have_one_grpc_port(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m")
    port = service.address.grpc.rpartition(":")[2]
    assert "is in use" in opened.type(f"deploy others --model m --auth none --grpc-port {port}", code=5)


def test_a_folder_that_cannot_be_used_is_told_of(opened, tmp_path, monkeypatch):
    opened.register()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACCELSERVE_SERVICES", str(tmp_path / "file" / "services"))
    said = opened.type("deploy numbers --model m --auth none", code=5)
    assert "choose another with ACCELSERVE_SERVICES" in said
    monkeypatch.setenv("ACCELSERVE_SERVICES", str(opened.services))


@pytest.mark.full
def test_damaged_files_stop_no_service_and_are_told_of(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m")
    (service.folder / "state.json").write_text("{")
    service.becomes("Healthy")
    (service.folder / "definition.json").write_bytes(b"\0" * 100)
    assert "cannot be read" in opened.type("services update numbers --replicas 2", code=5)
    assert [status["definition"] for status in json.loads(opened.type("services list --json"))["services"]] == [None]
    assert is_running(service.replicas[0])
    assert opened.type("services delete numbers") == "deleted numbers\n"


@pytest.mark.full
def test_a_supervisor_ignores_a_closed_terminal_and_drains_when_it_is_told_to_end(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m")
    supervisor, pids = service.status["supervisor"], service.replicas
    assert os.getsid(supervisor) != os.getsid(0)
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(supervisor, number)
    assert ask(service.address, "/readyz").status == 200
    assert service.status["supervisor"] == supervisor
    os.kill(supervisor, signal.SIGTERM)
    service.becomes("Failed")
    wait_until(lambda: not is_running(supervisor))
    assert service.status["reason"] == "the supervisor was told to stop"
    assert not any(map(is_running, pids))


@pytest.mark.full
def test_a_changed_number_of_replicas_touches_no_other_replica(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m")
    first = service.replicas
    opened.type("services update numbers --replicas 3 --wait --timeout 60")
    assert len(service.replicas) == 3
    opened.type("deploy numbers --model m --auth none --overwrite --wait --timeout 60")
    wait_until(lambda: service.replicas == first)


@pytest.mark.full
def test_the_services_name_is_its_route_on_grpc_too(opened):
    opened.register()
    service = opened.deploy("numbers", "--model m")
    with Calls(service.address) as calls:
        route = (("x-ms-aml-grpc-service-route", "/api/v1/service/numbers"),)
        assert calls.start("", {"x": row(1, 3)}, metadata=route).result()
