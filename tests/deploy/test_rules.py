"""What may be asked of a service, and what is told of all mistakes at once."""

from dataclasses import replace

import pytest

from accelserve.deploy.definition import Autoscale, ServiceDefinition
from accelserve.deploy.rules import problems_of

GOOD = ServiceDefinition("resnet50-service", "resnet50", 3, "/data/store", replicas=2)
SCRIPTED = replace(GOOD, entry_script="/home/ann/score.py", source_directory="/home/ann")


def test_a_definition_with_nothing_wrong_has_no_problems():
    assert problems_of(GOOD) == []
    assert problems_of(SCRIPTED) == []
    assert problems_of(replace(GOOD, replicas=None, autoscale=Autoscale(1, 4))) == []


@pytest.mark.parametrize("name", ["abc", "a-1", "resnet50-service", "a" * 32, "x00"])
def test_azures_service_names_are_taken(name):
    assert problems_of(replace(GOOD, name=name)) == []


@pytest.mark.parametrize(
    "name", ["", "ab", "a" * 33, "Abc", "1abc", "abc-", "-abc", "a_c", "a.c", "abc\n", "abç", "../abc"]
)
def test_other_service_names_are_refused_with_the_rule(name):
    (problem,) = problems_of(replace(GOOD, name=name))
    assert problem.startswith("service name: want 3 to 32 lower-case letters")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "", "entry_script": "/x/score.py"}, "version: want a number above 0, of a model"),
        ({"model": "", "version": None}, "model: want NAME or NAME:VERSION"),
        ({"model": "a b"}, "model: 'a b' is no model's name"),
        ({"version": 0}, "version: want a number above 0"),
        ({"serve_model": False}, "serve_model: without an entry script"),
        ({"entry_script": "/x/score.sh"}, "entry_script: want a Python file"),
        ({"source_directory": "/x"}, "source_directory: is of entry scripts"),
        ({"model_files": (("m", "/m"),)}, "model_files: is of entry scripts"),
        ({"workers": 2}, "workers: is of entry scripts"),
        ({"legacy_tensorflow": True}, "legacy_tensorflow: is of entry scripts"),
        ({"max_queue_ms": 500}, "max_queue_ms: is of entry scripts"),
        ({"autoscale": Autoscale()}, "replicas: cannot be given with autoscale"),
        ({"replicas": None}, "replicas: has to be given when autoscale is off"),
        ({"replicas": 0}, "replicas: want a whole number from 1"),
        ({"replicas": -3}, "replicas: want a whole number from 1"),
        ({"replicas": None, "autoscale": Autoscale(0, 4)}, "autoscale min: want a whole number from 1"),
        ({"replicas": None, "autoscale": Autoscale(4, 2)}, "autoscale: max 2 is below min 4"),
        ({"replicas": None, "autoscale": Autoscale(1, 2, 0)}, "autoscale target_percent: want a percentage"),
        ({"replicas": None, "autoscale": Autoscale(1, 2, 101)}, "autoscale target_percent: want a percentage"),
        ({"replicas": None, "autoscale": Autoscale(1, 2, 70, 0)}, "autoscale refresh_s: want a whole number"),
        ({"cpu_cores": 0.0}, "cpu_cores: want a number above 0"),
        ({"cpu_cores": float("nan")}, "cpu_cores: want a number above 0"),
        ({"memory_gb": -1.0}, "memory_gb: want a number above 0"),
        ({"memory_gb_limit": float("inf")}, "memory_gb_limit: want a number above 0"),
        ({"cpu_cores": 2.0, "cpu_cores_limit": 1.5}, "cpu_cores_limit: 1.5 is below cpu_cores 2"),
        ({"memory_gb": 4.0, "memory_gb_limit": 2.0}, "memory_gb_limit: 2 is below memory_gb 4"),
        ({"scoring_timeout_ms": 0}, "scoring_timeout_ms: want a number above 0"),
        ({"max_concurrent": 0}, "max_concurrent: want a number above 0"),
        ({"cpu_cores": 1025.0}, "cpu_cores: want a number of threads from 1 to 1024, got 1025.0"),
        ({"max_concurrent": 10**7}, "max_concurrent: want a number of requests from 1 to 1000000"),
        ({"entry_script": "/x/score.py", "workers": 257}, "workers: want a number of workers from 1 to 256, got 257"),
        ({"entry_script": "/x/score.py", "max_queue_ms": 10**9}, "max_queue_ms: want a number of milliseconds"),
        ({"entry_script": "/x/score.py", "scoring_timeout_ms": 10**12}, "scoring_timeout_ms: want a number of seconds"),
        ({"entry_script": "/x/score.py", "model_files": (("../m", "/m"),)}, "model_files: want a name without slashes"),
        ({"device": "tpu"}, "device: want auto, cpu, gpu"),
        ({"device": "fpga"}, "device: fpga serves one replica"),
        ({"device": "fpga-emulator"}, "device: fpga-emulator serves one replica"),
        ({"host": "no host"}, "host: want an address"),
        ({"http_port": 70000}, "http_port: want a port"),
        ({"grpc_port": -1}, "grpc_port: want a port"),
        ({"http_port": 9000, "grpc_port": 9000}, "http_port and grpc_port are both 9000"),
        ({"target": "aks"}, "target: want local or kubernetes"),
        ({"auth": "token"}, "auth: want key or none"),
        ({"tls_cert": "/c.pem"}, "tls_cert and tls_key: want both or none; tls_key is missing"),
        ({"tls_key": "/k.pem"}, "tls_cert and tls_key: want both or none; tls_cert is missing"),
    ],
)
def test_each_mistake_is_told_in_one_line_that_names_the_field(changes, told):
    (problem,) = problems_of(replace(GOOD, **changes))
    assert problem.startswith(told)


def test_all_mistakes_are_told_at_once():
    wrong = replace(GOOD, name="X", replicas=None, memory_gb=0.0, auth="token", tls_cert="/c.pem", http_port=-1)
    assert len(problems_of(wrong)) == 6


def test_model_files_of_one_name_clash_also_with_the_model():
    files = (("resnet50", "/a"), ("b", "/b"), ("b", "/c"))
    told = problems_of(replace(SCRIPTED, model_files=files))
    assert [line.split(":")[1].split()[0] for line in told] == ["b", "resnet50"]


def test_an_fpga_on_each_machine_of_a_cluster_serves_a_replica():
    assert problems_of(replace(GOOD, device="fpga", target="kubernetes")) == []
    assert problems_of(replace(GOOD, device="fpga", replicas=1)) == []
    assert problems_of(replace(GOOD, device="fpga:a,b")) == []
