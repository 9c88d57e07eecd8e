"""How a replica is started: what it is told, what of the environment it sees, which cores it gets."""

import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.descendants import MARK, mark_of
from accelserve.deploy.replica import Replica, command, cores_of, environment, start
from accelserve.supervised import Supervised

PLAIN = ServiceDefinition("numbers", "m", 3, "/store", replicas=2, grpc_port=8500)
SCRIPT = replace(
    PLAIN, serve_model=False, entry_script="/s/app-1/score.py", workers=2, scoring_timeout_ms=1500, max_queue_ms=500
)
GIVEN = Supervised(3, 4, 99)


def told(definition: ServiceDefinition, slot: int = 0) -> dict[str, str]:
    words = command(definition, slot, Path("/services/numbers/keys.json"), GIVEN)[4:]
    return {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}


def test_a_model_is_served_in_its_version_and_no_other():
    options = told(PLAIN)
    wanted = {"--store": "/store", "--model": "m:3", "--poll-interval": "0", "--service": "numbers"}
    assert wanted.items() <= options.items()
    assert "--strict" in command(PLAIN, 0, Path("/keys.json"), GIVEN)
    assert options["--supervised"] == "3:4:99"


def test_no_secret_is_on_the_command_line():
    assert told(PLAIN)["--auth-keys"] == "/services/numbers/keys.json"
    assert "--auth-keys" not in told(replace(PLAIN, auth="none"))


def test_a_script_that_opens_its_model_gets_its_folder():
    options = told(SCRIPT)
    assert "--model" not in options
    assert options["--model-files"] == "m=/store/m/3"
    assert (options["--workers"], options["--scoring-timeout"], options["--max-queue-ms"]) == ("2", "1.5", "500")
    both = told(replace(SCRIPT, serve_model=True))
    assert both["--model-files"] == "m=/store/m/3"
    assert (both["--model"], both["--entry-script"]) == ("m:3", "/s/app-1/score.py")


def test_a_replica_that_ends_has_time_for_the_longest_run():
    assert told(PLAIN)["--drain-timeout"] == "30"
    assert told(replace(SCRIPT, scoring_timeout_ms=60_000))["--drain-timeout"] == "65"
    assert told(replace(SCRIPT, scoring_timeout_ms=600_500))["--drain-timeout"] == "606"


def test_devices_that_are_named_are_shared_out():
    assert [told(replace(PLAIN, device="gpu:0,1"), slot)["--device"] for slot in (0, 1)] == ["gpu:0", "gpu:1"]


def test_cores_become_threads_and_a_limit_binds_to_whole_ones():
    assert told(replace(PLAIN, cpu_cores=0.5))["--threads"] == "1"
    assert "--threads" not in told(PLAIN)
    limited = replace(PLAIN, cpu_cores_limit=1.5)
    assert [cores_of(limited, slot, (0, 1, 4, 5)) for slot in range(3)] == [{0, 1}, {4, 5}, {0, 1}]
    assert cores_of(limited, 0, (0, 1)) is None
    assert cores_of(PLAIN, 0, (0, 1)) is None


def test_what_would_configure_a_server_is_kept_from_it():
    environ = {
        *("ACCELSERVE_HTTP_PORT", "ACCELSERVE_MODEL", "ACCELSERVE_STORE", "MODEL_NAME", "MODEL_BASE_PATH"),
        *("AZUREML_MODEL_DIR", "AZUREML_ENTRY_SCRIPT", "AML_APP_ROOT", "SERVICE_NAME", "SERVICE_PATH_PREFIX"),
        *("WORKSPACE_NAME", "SCORING_TIMEOUT_MS", "WORKER_COUNT"),
        *("PATH", "HOME", "LD_LIBRARY_PATH", "ACCELSERVE_LEASE_DIR", "ACCELSERVE_OPENVINO_PLUGINS"),
    }
    seen = environment(dict.fromkeys(environ, "x"), PLAIN)
    assert seen.keys() == {"PATH", "HOME", "LD_LIBRARY_PATH", "ACCELSERVE_LEASE_DIR", "ACCELSERVE_OPENVINO_PLUGINS"}


def test_a_script_is_at_home_where_its_source_directory_begins():
    assert environment({}, SCRIPT) == {"AML_APP_ROOT": "/s/app-1"}
    deep = replace(SCRIPT, entry_script="/s/app-1/code/score.py", source_directory="/s/app-1")
    assert environment({"AML_APP_ROOT": "/of/the/terminal"}, deep) == {"AML_APP_ROOT": "/s/app-1"}


@pytest.mark.parametrize("call", ["sched_setaffinity", "pidfd_open"])
def test_a_started_process_that_cannot_be_watched_does_not_live_on(monkeypatch, call):
    started = []

    class Sleeper(subprocess.Popen):
        def __init__(self, _, **given):
            super().__init__([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            started.append(self)

    def fails(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", Sleeper)
    monkeypatch.setattr(os, call, fails)
    with socket.socket() as http, pytest.raises(OSError, match="Too many"):
        start(PLAIN, 0, Path("/keys.json"), http, 2, {0}, "")
    (process,) = started
    process.stdin.close()
    assert process.returncode == -signal.SIGKILL


WORKER = """
import subprocess, sys
sleeper = [sys.executable, '-c', 'import time; time.sleep(60)']
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
print('up', flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("dies_by_itself", [False, True])
def test_what_a_replicas_workers_started_ends_with_it(dies_by_itself, tmp_path):
    server = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}], process_group=0)"
    mark = mark_of(tmp_path, 1)
    process = subprocess.Popen(
        [sys.executable, "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, MARK: mark}
    )
    line, other = socket.socketpair()
    replica = Replica(process, line, mark)
    process.stdout.readline()
    if dies_by_itself:
        process.kill()
        select.select([replica.exits], [], [], 10)
    else:
        replica.kill()
    assert replica.close() == -signal.SIGKILL
    all_ended, _, _ = select.select([process.stdout], [], [], 10)
    assert all_ended, "something that could write to it lives on"
    other.close()
    process.stdin.close()
    process.stdout.close()
