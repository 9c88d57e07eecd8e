"""Kubernetes' objects of a service, held against the strict schemas of many versions."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from accelserve.deploy.definition import Autoscale, ServiceDefinition
from accelserve.deploy.manifests import Cluster, manifests
from accelserve.deploy.rules import problems_of
from accelserve.errors import ScoringError
from accelserve.keys import new_keys

IMAGE = "registry.example.org/resnet:3"
PLAIN = ServiceDefinition("resnet", "rn50", 3, replicas=1, target="kubernetes")
SCRIPT = replace(
    PLAIN,
    entry_script="/src/app/score.py",
    source_directory="/src",
    workers=2,
    max_concurrent=4,
    max_queue_ms=500,
    legacy_tensorflow=True,
    model_files=(("vocabulary", "/data/words.txt"),),
)
FULL = replace(
    SCRIPT,
    device="gpu:2,5",
    replicas=None,
    autoscale=Autoscale(2, 6, 70),
    cpu_cores=2,
    cpu_cores_limit=4,
    memory_gb=4,
    memory_gb_limit=6.5,
    tls_cert="/certs/tls.crt",
    tls_key="/certs/tls.key",
)
CLUSTER = Cluster(namespace="models", keys=new_keys(), tls=("certificate-text\n", "private-key-text\n"))


def objects(definition: ServiceDefinition, cluster: Cluster | None = None) -> dict[str, Any]:
    """By file name."""
    assert problems_of(definition) == []
    return {name: yaml.safe_load(text) for name, text in manifests(definition, IMAGE, cluster).items()}


def pod(definition: ServiceDefinition, cluster: Cluster | None = None) -> dict[str, Any]:
    return objects(definition, cluster)["deployment.yaml"]["spec"]["template"]["spec"]


def container(definition: ServiceDefinition, cluster: Cluster | None = None) -> dict[str, Any]:
    (one,) = pod(definition, cluster)["containers"]
    return one


def option(arguments: list[str], flag: str) -> str | None:
    return arguments[arguments.index(flag) + 1] if flag in arguments else None


def variants() -> Iterator[tuple[ServiceDefinition, Cluster]]:
    for definition in (PLAIN, SCRIPT, FULL, replace(FULL, auth="none", serve_model=False)):
        yield definition, CLUSTER
    yield replace(PLAIN, device="fpga", replicas=3), Cluster(fpga_resource="xilinx.com/fpga-xilinx_u250_shell-0")
    yield replace(PLAIN, replicas=None, autoscale=Autoscale(), cpu_cores=0.1), Cluster(autoscale_by="cpu")


def assert_valid(definition: ServiceDefinition, cluster: Cluster, version: str) -> None:
    for made in objects(definition, cluster).values():
        kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("version", all_versions())
def test_every_kind_of_object_fits_the_strict_schema_of_every_version(version):
    assert_valid(FULL, CLUSTER, version)


def test_every_variant_fits_the_newest_schema():
    for definition, cluster in variants():
        assert_valid(definition, cluster, all_versions()[-1])


def test_the_schemas_would_notice_a_misspelt_field():
    made = objects(PLAIN)["deployment.yaml"]
    made["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, all_versions()[-1], strict=True)


def test_a_plain_service_has_three_objects_and_a_full_one_all():
    assert list(objects(PLAIN)) == ["deployment.yaml", "service.yaml", "service-grpc.yaml"]
    assert set(objects(FULL, CLUSTER)) == {
        *("deployment.yaml", "service.yaml", "service-grpc.yaml", "autoscaler.yaml", "disruption-budget.yaml"),
        *("secret-keys.yaml", "secret-tls.yaml"),
    }


def test_the_same_definition_gives_the_same_bytes():
    assert manifests(FULL, IMAGE, CLUSTER) == manifests(FULL, IMAGE, CLUSTER)


def test_no_secret_is_written_unless_it_is_handed_in():
    cluster = Cluster(namespace="models")
    assert not any(name.startswith("secret-") for name in manifests(FULL, IMAGE, cluster))
    told = manifests(FULL, IMAGE, CLUSTER)
    for name, text in told.items():
        for secret in (CLUSTER.keys.primary, CLUSTER.keys.secondary, "certificate-text", "private-key-text"):
            assert name.startswith("secret-") or secret not in text, name
    assert json.loads(yaml.safe_load(told["secret-keys.yaml"])["stringData"]["keys.json"]) == {
        "primary": CLUSTER.keys.primary,
        "secondary": CLUSTER.keys.secondary,
    }
    assert CLUSTER.keys.primary not in repr(CLUSTER)
    assert "private-key-text" not in repr(CLUSTER)


def test_secrets_are_mounted_where_the_command_line_looks_and_only_for_the_pods_group():
    one, spec = container(FULL), pod(FULL)
    assert option(one["args"], "--auth-keys") == "/etc/accelserve/keys/keys.json"
    assert option(one["args"], "--tls-cert") == "/etc/accelserve/tls/tls.crt"
    mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "keys": "/etc/accelserve/keys", "tls": "/etc/accelserve/tls"}
    secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    assert {name: secret["secretName"] for name, secret in secrets.items()} == {
        "keys": "resnet-keys",
        "tls": "resnet-tls",
    }
    assert all(secret["defaultMode"] == 0o440 for secret in secrets.values())


@pytest.mark.parametrize("serve_model", [True, False])
def test_a_script_finds_the_version_that_the_service_is_of(serve_model):
    arguments = container(replace(SCRIPT, model="m", version=3, serve_model=serve_model))["args"]
    assert option(arguments, "--model-files") == "m=/models/m/3"


def test_without_keys_and_tls_nothing_of_them_is_there():
    plain = replace(PLAIN, auth="none")
    assert [volume["name"] for volume in pod(plain)["volumes"]] == ["tmp"]
    assert option(container(plain)["args"], "--auth-keys") is None
    assert container(plain)["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert container(FULL)["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize("definition", [PLAIN, SCRIPT, FULL, replace(SCRIPT, scoring_timeout_ms=600_000)])
def test_the_cluster_is_more_patient_than_the_server(definition):
    arguments = container(definition)["args"]
    own = int(option(arguments, "--grace-period")) + int(option(arguments, "--drain-timeout"))
    assert pod(definition)["terminationGracePeriodSeconds"] > own
    if definition.entry_script:
        assert int(option(arguments, "--drain-timeout")) * 1000 > definition.scoring_timeout_ms


def test_the_probes_ask_for_readiness_and_life_and_give_time_to_start():
    one = container(PLAIN)
    assert one["startupProbe"]["httpGet"]["path"] == one["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert one["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] == 600


def test_the_pod_has_no_rights_that_it_does_not_need():
    spec, one = pod(FULL), container(FULL)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_devices_are_limits_and_are_counted_from_0_within_the_pod():
    assert container(PLAIN)["resources"] == {}
    gpus = container(FULL)
    assert gpus["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert option(gpus["args"], "--device") == "gpu:0,1"
    assert option(container(replace(PLAIN, device="gpu:3"))["args"], "--device") == "gpu"
    assert option(container(replace(PLAIN, device="cpu"))["args"], "--device") == "cpu"
    assert option(container(PLAIN)["args"], "--device") is None  # the image's own then
    card = container(replace(PLAIN, device="fpga"), Cluster(fpga_resource="xilinx.com/fpga-u250-0"))
    assert card["resources"] == {"limits": {"xilinx.com/fpga-u250-0": "1"}}


def test_cores_and_memory_are_requests_and_limits():
    resources = container(FULL)["resources"]
    assert resources["requests"] == {"cpu": "2000m", "memory": "4000M"}
    assert (resources["limits"]["cpu"], resources["limits"]["memory"]) == ("4000m", "6500M")


def test_a_new_replica_comes_first_unless_it_would_wait_for_an_old_ones_device():
    def rolling(definition):
        return objects(definition)["deployment.yaml"]["spec"]["strategy"]["rollingUpdate"]

    assert rolling(replace(PLAIN, replicas=3)) == {"maxSurge": 1, "maxUnavailable": 0}
    assert rolling(replace(PLAIN, replicas=3, device="gpu")) == {"maxSurge": 0, "maxUnavailable": 1}
    assert rolling(replace(PLAIN, replicas=1, device="gpu")) == {"maxSurge": 1, "maxUnavailable": 0}


def test_with_autoscale_the_number_of_replicas_is_the_autoscalers():
    made = objects(FULL)
    assert "replicas" not in made["deployment.yaml"]["spec"]
    scaler = made["autoscaler.yaml"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == "accelserve_requests_in_flight"
    assert metric["pods"]["target"]["averageValue"] == "2800m"  # 70 % of the 4 that a replica takes at a time


def test_the_metric_of_the_autoscaler_is_one_that_the_server_tells():
    from accelserve.observability import exposition

    assert '"accelserve_requests_in_flight"' in Path(exposition.__file__).read_text()


def test_a_lone_replica_holds_up_no_drained_node():
    assert "disruption-budget.yaml" not in objects(PLAIN)
    assert "disruption-budget.yaml" in objects(replace(PLAIN, replicas=2))


def test_the_services_find_the_pods_by_labels_and_the_ports_by_name():
    for definition in (PLAIN, replace(PLAIN, http_port=80, grpc_port=81)):
        made = objects(definition)
        template = made["deployment.yaml"]["spec"]["template"]
        ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        environment = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}
        assert environment["ACCELSERVE_HTTP_PORT"] == str(ports["http"])
        assert environment["ACCELSERVE_GRPC_PORT"] == str(ports["grpc"])
        for name in ("service.yaml", "service-grpc.yaml"):
            spec = made[name]["spec"]
            assert spec["selector"].items() <= template["metadata"]["labels"].items()
            assert {port["targetPort"] for port in spec["ports"]} <= set(ports)
    assert objects(PLAIN)["service-grpc.yaml"]["spec"]["clusterIP"] == "None"


def test_all_that_is_missing_is_told_at_once():
    wanted = replace(PLAIN, version=None, device="fpga", replicas=None, autoscale=Autoscale())
    with pytest.raises(ScoringError) as refused:
        manifests(wanted, "no image", Cluster(autoscale_by="cpu"))
    for word in ("image", "version", "fpga_resource", "cpu_cores"):
        assert word in refused.value.message
    odd = Cluster(namespace="Not a name", fpga_resource="card")
    with pytest.raises(ScoringError) as refused:
        manifests(replace(PLAIN, device="fpga", http_port=8500), IMAGE, odd)
    for word in ("namespace: want at most", "fpga_resource: want VENDOR.DOMAIN/NAME", "both 8500 (8501 and 8500 by"):
        assert word in refused.value.message
    with pytest.raises(ScoringError, match="autoscale_by"):
        manifests(PLAIN, IMAGE, Cluster(autoscale_by="luck"))


def test_no_text_needs_yamls_anchors():
    for definition, cluster in variants():
        for text in manifests(definition, IMAGE, cluster).values():
            assert not any(word.startswith(("&", "*")) for word in text.split())


def test_every_name_is_one_that_the_cluster_takes():
    longest = replace(PLAIN, name="a" * 32, replicas=2)
    names = [made["metadata"]["name"] for made in objects(longest, CLUSTER).values()]
    assert all(len(name) <= 63 for name in names)
    assert len(set(itertools.chain(names))) >= 2
