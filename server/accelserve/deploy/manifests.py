"""A service as Kubernetes' objects: pure, from the definition to YAML text.

The image is one that `accelserve package` describes: it holds the model and the script where `image_layout` says.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.pods import GRPC_PORT, HTTP_PORT, grpc_port, http_port, pod_template
from accelserve.errors import Kind, ScoringError
from accelserve.keys import KeyFileError, Keys, parse_keys

AUTOSCALE_METRIC = "accelserve_requests_in_flight"
_NAMES = ("deployment", "service", "service-grpc", "autoscaler", "disruption-budget", "secret-keys", "secret-tls")
FILES = tuple(f"{name}.yaml" for name in _NAMES)  # all that there may be
_MANAGED_BY = ("app.kubernetes.io/managed-by", "accelserve")
_SCALE_DOWN_S = 300  # a new replica has to load its model first
AUTOSCALE_BY = ("requests", "cpu")
_NAMESPACE = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the cluster is, and what is to be written for it.

    fpga_resource: the device plugin's name for the card, for example xilinx.com/fpga-xilinx_u250_...-0.
    autoscale_by: "requests" wants a metrics adapter that knows Prometheus' metric; "cpu" wants `cpu_cores`.
    keys, tls: (certificate, key), PEM; given, they are written into Secrets in clear. None of them is in a repr.
    """

    namespace: str = ""
    fpga_resource: str = ""
    autoscale_by: str = "requests"
    keys: Keys | None = None
    tls: tuple[str, str] | None = field(default=None, repr=False)


def manifests(definition: ServiceDefinition, image: str, cluster: Cluster | None = None) -> dict[str, str]:
    """File name -> YAML text; the names that begin with "secret-" hold secrets and are for their owner's eyes.

    Raises ScoringError(INVALID) with all that is missing.
    """
    cluster = cluster or Cluster()
    if problems := list(_problems(definition, image, cluster)):
        raise ScoringError(Kind.INVALID, "\n".join(problems))
    return {f"{name}.yaml": _text(name, made, definition) for name, made in _objects(definition, image, cluster)}


def _problems(d: ServiceDefinition, image: str, cluster: Cluster) -> Iterator[str]:
    if not image or not image.isascii() or any(letter.isspace() for letter in image):
        yield f"image: want a name that the cluster can pull, such as registry.example.org/{d.name}:1; got {image!r}"
    if d.model and d.version is None:
        yield f"version: an image holds one version of {d.model}; say which"
    if d.device.partition(":")[0] == "fpga" and not cluster.fpga_resource:
        yield "fpga_resource: want the name that the cluster's device plugin gives its cards (kubectl describe node)"
    if cluster.fpga_resource and not _RESOURCE.fullmatch(cluster.fpga_resource):
        yield f"fpga_resource: want VENDOR.DOMAIN/NAME, got {cluster.fpga_resource!r}"
    if cluster.namespace and not _NAMESPACE.fullmatch(cluster.namespace):
        yield f"namespace: want at most 63 lower-case letters, digits and dashes, got {cluster.namespace!r}"
    if http_port(d) == grpc_port(d):
        default = f"{HTTP_PORT} and {GRPC_PORT} by default"
        yield f"http_port and grpc_port are both {http_port(d)} ({default}); they must differ"
    if cluster.autoscale_by not in AUTOSCALE_BY:
        yield f"autoscale_by: want {' or '.join(AUTOSCALE_BY)}, got {cluster.autoscale_by!r}"
    if d.autoscale and cluster.autoscale_by == "cpu" and d.cpu_cores is None:
        yield "autoscale_by: by cpu needs cpu_cores, which usage is compared with"


def _objects(d: ServiceDefinition, image: str, cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "deployment", _deployment(d, image, cluster)
    yield "service", _service(d, cluster)
    yield "service-grpc", _headless(d, cluster)
    if d.autoscale:
        yield "autoscaler", _autoscaler(d, cluster)
    if d.least > 1:  # with one replica it would hold up every drained node, or nothing
        yield "disruption-budget", _disruption_budget(d, cluster)
    if cluster.keys is not None and d.auth == "key":
        content = {"primary": cluster.keys.primary, "secondary": cluster.keys.secondary}
        yield "secret-keys", _secret(d, cluster, keys_secret(d), "Opaque", {"keys.json": _json(content)})
    if cluster.tls is not None and d.tls_cert:
        certificate, key = cluster.tls
        told = {"tls.crt": certificate, "tls.key": key}
        yield "secret-tls", _secret(d, cluster, tls_secret(d), "kubernetes.io/tls", told)


def _head(kind: str, version: str, name: str, d: ServiceDefinition, cluster: Cluster) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if cluster.namespace:
        metadata["namespace"] = cluster.namespace
    metadata["labels"] = {**_selector(d), _MANAGED_BY[0]: _MANAGED_BY[1]}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _selector(d: ServiceDefinition) -> dict[str, str]:
    return {"app.kubernetes.io/name": "accelserve", "app.kubernetes.io/instance": d.name}


def keys_secret(d: ServiceDefinition) -> str:
    return f"{d.name}-keys"


def tls_secret(d: ServiceDefinition) -> str:
    return f"{d.name}-tls"


def is_ours(text: str) -> bool:
    """Whether a file's text is such as `manifests` makes, of whatever service."""
    return f"{_MANAGED_BY[0]}: {_MANAGED_BY[1]}\n" in text


def keys_in(text: str, d: ServiceDefinition) -> Keys | None:
    """What an earlier secret-keys.yaml of this service holds; None where that cannot be told."""
    try:
        made = yaml.safe_load(text)
        if made["metadata"]["name"] != keys_secret(d):
            return None
        return parse_keys(made["stringData"]["keys.json"].encode(), Path("keys.json"))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, KeyFileError):
        return None


def left_in_cluster(removed: Iterable[str], d: ServiceDefinition) -> list[str]:
    """kubectl's names of the objects of files that are there no more; Secrets are none of them, which pods may use."""
    kinds = {"autoscaler.yaml": "hpa", "disruption-budget.yaml": "pdb"}
    return [f"{kinds[name]}/{d.name}" for name in removed if name in kinds]


def _deployment(d: ServiceDefinition, image: str, cluster: Cluster) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "selector": {"matchLabels": _selector(d)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": _rolling(d)},
        "template": pod_template(
            d, image, _selector(d), keys_secret(d), tls_secret(d), fpga_resource=cluster.fpga_resource
        ),
    }
    if not d.autoscale:  # else applying this again would undo what the autoscaler did
        spec = {"replicas": d.least, **spec}
    return {**_head("Deployment", "apps/v1", d.name, d, cluster), "spec": spec}


def _rolling(d: ServiceDefinition) -> dict[str, int]:
    """A new replica first, unless it would wait for a device that only an old one's end gives it."""
    on_device = bool(d.gpus) or d.device.partition(":")[0] == "fpga"
    return {"maxSurge": 0, "maxUnavailable": 1} if on_device and d.least > 1 else {"maxSurge": 1, "maxUnavailable": 0}


def _service(d: ServiceDefinition, cluster: Cluster) -> dict[str, Any]:
    secure = bool(d.tls_cert)
    ports = [
        _port("http", http_port(d), "https" if secure else "http"),
        _port("grpc", grpc_port(d), "https" if secure else "kubernetes.io/h2c"),
    ]
    spec = {"type": "ClusterIP", "selector": _selector(d), "ports": ports}
    return {**_head("Service", "v1", d.name, d, cluster), "spec": spec}


def _headless(d: ServiceDefinition, cluster: Cluster) -> dict[str, Any]:
    """gRPC keeps one connection, which a Service with an address would pin to one replica: docs/kubernetes.md."""
    port = _port("grpc", grpc_port(d), "https" if d.tls_cert else "kubernetes.io/h2c")
    spec = {"clusterIP": "None", "selector": _selector(d), "ports": [port]}
    return {**_head("Service", "v1", f"{d.name}-grpc", d, cluster), "spec": spec}


def _port(name: str, port: int, protocol: str) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP", "appProtocol": protocol}


def _autoscaler(d: ServiceDefinition, cluster: Cluster) -> dict[str, Any]:
    assert d.autoscale is not None
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": d.name},
        "minReplicas": d.autoscale.min,
        "maxReplicas": d.autoscale.max,
        "metrics": [_metric(d, d.autoscale.target_percent, cluster)],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": _SCALE_DOWN_S}},
    }
    return {**_head("HorizontalPodAutoscaler", "autoscaling/v2", d.name, d, cluster), "spec": spec}


def _metric(d: ServiceDefinition, target_percent: int, cluster: Cluster) -> dict[str, Any]:
    if cluster.autoscale_by == "cpu":
        target = {"type": "Utilization", "averageUtilization": target_percent}
        return {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    thousandths = max(1, math.floor(d.busy_at * target_percent * 10))
    target = {"type": "AverageValue", "averageValue": f"{thousandths}m"}
    return {"type": "Pods", "pods": {"metric": {"name": AUTOSCALE_METRIC}, "target": target}}


def _disruption_budget(d: ServiceDefinition, cluster: Cluster) -> dict[str, Any]:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(d)}}
    return {**_head("PodDisruptionBudget", "policy/v1", d.name, d, cluster), "spec": spec}


def _secret(d: ServiceDefinition, cluster: Cluster, name: str, kind: str, told: Mapping[str, str]) -> dict[str, Any]:
    return {**_head("Secret", "v1", name, d, cluster), "type": kind, "stringData": dict(told)}


def _json(content: Mapping[str, str]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _text(name: str, made: Mapping[str, Any], d: ServiceDefinition) -> str:
    said = "".join(f"# {line}\n" for line in _remarks(name, d))
    apart = json.loads(json.dumps(made))  # what occurs twice is written twice, without YAML's anchors
    return said + str(yaml.safe_dump(apart, sort_keys=False, allow_unicode=True, width=1000))


def _remarks(name: str, d: ServiceDefinition) -> Iterator[str]:
    if name == "deployment":
        if d.auth == "key":
            yield "Keys:  kubectl create secret generic " + f"{keys_secret(d)} --from-file=keys.json=keys.json"
        if d.tls_cert:
            yield "TLS:   kubectl create secret tls " + f"{tls_secret(d)} --cert=CERTIFICATE.pem --key=KEY.pem"
    if name == "autoscaler":
        yield f"{AUTOSCALE_METRIC} comes from Prometheus through a metrics adapter: docs/kubernetes.md"
    if name.startswith("secret-"):
        yield "Holds secrets in clear: keep it out of every repository."
