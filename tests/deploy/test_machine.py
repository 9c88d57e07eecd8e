"""What is told of a right definition: what this machine or a cluster cannot give, or does not enforce."""

from dataclasses import replace

from accelserve.deploy.definition import Autoscale, ServiceDefinition
from accelserve.deploy.machine import cluster_remarks, remarks

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


def told_of_a_cluster(**changes):
    definition = replace(NUMBERS, target="kubernetes", tls_cert="/c.pem", tls_key="/k.pem")
    return list(cluster_remarks(replace(definition, **changes)))


def test_on_a_cluster_it_is_told_what_protects_a_service_not_and_what_is_otherwise_there():
    assert told_of_a_cluster() == []
    assert "no key is asked for" in told_of_a_cluster(auth="none")[0]
    (clear,) = told_of_a_cluster(tls_cert="", tls_key="")
    assert clear == "without --tls-cert and --tls-key keys and requests travel in clear text within the cluster"
    assert told_of_a_cluster(host="0.0.0.0") == ["host 0.0.0.0: a pod listens on all its addresses"]
    assert told_of_a_cluster(http_port=443)[0].startswith("http_port 443: the pods have no root")
    assert told_of_a_cluster(http_port=8443) == []
    assert told_of_a_cluster(cpu_cores=1.5) == ["cpu_cores 1.5: each model session gets 2 threads"]
    assert told_of_a_cluster(replicas=None, autoscale=Autoscale(1, 4)) == []
    assert "the cluster's to say" in told_of_a_cluster(replicas=None, autoscale=Autoscale(1, 4, 70, 5))[0]
    assert "steers autoscaling only" in told_of_a_cluster(max_concurrent=4)[0]
