"""What a server of a service is told: words that it knows, the same here and in a pod but for where things are."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from accelserve.cli import _parser
from accelserve.commands.serve import _load
from accelserve.config import ServerConfig
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.pods import serve_arguments
from accelserve.deploy.processes import Patience
from accelserve.deploy.replica import command
from accelserve.deploy.rules import problems_of
from accelserve.supervised import Supervised

PLAIN = ServiceDefinition("numbers", "m", 3, "/store", replicas=2)
SCRIPT = replace(PLAIN, serve_model=False, entry_script="/src/app/score.py", source_directory="/src")
FULL = replace(
    SCRIPT,
    serve_model=True,
    device="cpu",
    cpu_cores=1.5,
    workers=2,
    scoring_timeout_ms=1_234_567,
    max_queue_ms=500,
    max_concurrent=4,
    legacy_tensorflow=True,
    model_files=(("words", "/data/words.txt"),),
    tls_cert="/certs/a.pem",
    tls_key="/certs/b.pem",
)
WHERE = ("host", "grpc_port", "store", "models", "entry_script", "model_files", "grace_period_s")
SECRETS = ("auth_keys", "tls_cert", "tls_key")


def understood(words: list[str]) -> ServerConfig:
    """As `accelserve serve` reads them, in an empty environment."""
    parsed = _parser().parse_args(words)
    return _load(parsed).config


def both(definition: ServiceDefinition) -> tuple[ServerConfig, ServerConfig]:
    assert problems_of(definition) == []
    local = command(definition, 0, Path("/services/numbers/keys.json"), Supervised(3, 4, 99))
    return understood(local[3:]), understood(serve_arguments(definition))


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    for name in os.environ:
        if name.startswith(("ACCELSERVE_", "MODEL_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("definition", [PLAIN, SCRIPT, FULL, replace(FULL, auth="none")])
def test_a_pod_is_told_what_a_replica_is_told(definition):
    local, pod = both(definition)
    places = {name: getattr(local, name) for name in (*WHERE, *SECRETS)}
    assert replace(pod, device="auto", **places) == replace(local, device="auto")
    for name in (*SECRETS, "entry_script"):
        assert bool(getattr(local, name)) == bool(getattr(pod, name)), name
    assert [model.name for model in local.models] == [model.name for model in pod.models]
    assert [name for name, _ in local.model_files] == [name for name, _ in pod.model_files]


def test_a_script_that_does_not_start_is_told_by_the_server_before_the_server_is_killed():
    for config in both(SCRIPT):
        assert config.script_start_timeout_s < Patience().start_s
        assert config.scoring_timeout_s == 60


def test_no_digit_of_a_time_is_lost():
    for config in both(FULL):
        assert config.scoring_timeout_s == 1234.567
