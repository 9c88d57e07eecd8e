"""What is told of resources that this machine cannot give or does not enforce."""

from dataclasses import replace

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.machine import remarks

NUMBERS = ServiceDefinition("numbers", "m", 1, replicas=2)


def told(**changes):
    return [line.partition(":")[0] for line in remarks(replace(NUMBERS, **changes), cores=2, memory_bytes=8 * 10**9)]


def test_nothing_asked_for_is_nothing_told():
    assert told() == []


def test_what_is_not_enforced_or_not_there_is_told():
    assert told(cpu_cores=0.5) == ["cpu_cores 0.5"]
    assert told(cpu_cores=1.5)[1] == "cpu_cores 1.5 x 2 replicas is more than the 2 cores of this machine"
    assert told(cpu_cores_limit=1.0) == []
    assert told(cpu_cores_limit=0.5) == ["cpu_cores_limit 0.5"]
    assert told(cpu_cores_limit=4.0) == ["cpu_cores_limit 4"]
    assert told(memory_gb=4.0) == []
    assert told(memory_gb=4.5) == [
        "memory_gb 4.5 x 2 replicas is more than the 8.0 GB of this machine; nothing is reserved"
    ]
    assert told(memory_gb_limit=4.5) == ["memory_gb_limit 4.5"]
    assert told(max_concurrent=4) == ["max_concurrent 4"]
    assert told(max_concurrent=4, entry_script="/s.py") == []


def test_a_service_that_others_can_reach_is_told_what_protects_it_not():
    assert told(host="localhost") == told(host="127.0.0.2") == told(host="::1") == []
    assert told(host="0.0.0.0") == ["host 0.0.0.0"]
    assert told(host="0.0.0.0", auth="none") == ["host 0.0.0.0"] * 2
    assert told(host="0.0.0.0", tls_cert="/c.pem", tls_key="/k.pem") == []
