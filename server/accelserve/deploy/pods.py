"""What a pod of a service is: its command line, probes, devices, files and rights."""

from pathlib import Path
from typing import Any

from accelserve.deploy import image_layout
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.serve_options import START_S, Place, serve_words
from accelserve.devices import DeviceKind, DeviceRequest, parse_device_request

HTTP_PORT = 8501
GRPC_PORT = 8500
_GRACE_S = 5  # a pod that ends still gets requests until all nodes know
_ROOM_S = 10  # between the server's own end and the cluster's patience
_GPU_RESOURCE = "nvidia.com/gpu"


def serve_arguments(d: ServiceDefinition) -> list[str]:
    """What follows `accelserve` in the container; no secret is among it."""
    return serve_words(d, _in_image(d))


def _in_image(d: ServiceDefinition) -> Place:
    return Place(
        device=device_in_pod(d),
        grace_s=_GRACE_S,
        keys=f"{image_layout.KEYS}/keys.json",
        tls_cert=f"{image_layout.TLS}/tls.crt",
        tls_key=f"{image_layout.TLS}/tls.key",
        model={"--model": f"{d.model}={image_layout.model_folder(d.model)}"},
        entry_script=image_layout.script_path(
            Path(d.entry_script), Path(d.source_directory) if d.source_directory else None
        ),
        version_folder=_version_folder(d),
        files=tuple([(name, image_layout.files_path(name, Path(path))) for name, path in d.model_files]),
    )


def _version_folder(d: ServiceDefinition) -> str:
    return image_layout.version_folder(d.model, d.version) if d.model and d.version is not None else ""


def device_in_pod(d: ServiceDefinition) -> str | None:
    """A pod sees only the devices that it is given, counted from 0, whatever their numbers on the node.

    None where any device will do: the image then says by itself which it requires, and no gpu image serves on a CPU
    without being told to.
    """
    request = parse_device_request(d.device)
    if request.kind is DeviceKind.GPU and len(request.ids) > 1:
        return str(DeviceRequest(request.kind, tuple(map(str, range(len(request.ids))))))
    return None if request.kind is None else request.kind.value


def pod_template(
    d: ServiceDefinition, image: str, labels: dict[str, str], keys_secret: str, tls_secret: str, *, fpga_resource: str
) -> dict[str, Any]:
    """The Deployment's template. fpga_resource: the device plugin's name, used only where the device is a card."""
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(http_port(d)), "prometheus.io/path": "/metrics"}
    if d.tls_cert:
        scrape["prometheus.io/scheme"] = "https"
    mounts = _mounts(d, keys_secret, tls_secret)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # no environment that names every other service
        "terminationGracePeriodSeconds": _GRACE_S + d.drain_s + _ROOM_S,
        "securityContext": _POD_SECURITY,
        "containers": [_container(d, image, [mount for mount, _ in mounts], fpga_resource)],
        "volumes": [volume for _, volume in mounts],
    }
    if d.most > 1:
        spec["topologySpreadConstraints"] = [_spread(labels)]
    if d.gpus:
        spec["tolerations"] = _GPU_TOLERATIONS
    return {"metadata": {"labels": labels, "annotations": scrape}, "spec": spec}


_POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": image_layout.USER,
    "runAsGroup": image_layout.USER,
    "fsGroup": image_layout.USER,  # may read the mounted secrets, which nobody else may
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_GPU_TOLERATIONS = [  # of NVIDIA's plugin, and of AKS' GPU pools
    {"key": _GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
]


def _container(d: ServiceDefinition, image: str, mounts: list[dict[str, Any]], fpga_resource: str) -> dict[str, Any]:
    """Ports are set by environment, since the image's own health check reads them there."""
    ports = {"http": http_port(d), "grpc": grpc_port(d)}
    environment = {
        "ACCELSERVE_HOST": "0.0.0.0",
        "ACCELSERVE_HTTP_PORT": str(ports["http"]),
        "ACCELSERVE_GRPC_PORT": str(ports["grpc"]),
    }
    if not (d.model and d.serve_model):  # the image itself would serve its model, or look for TF Serving's
        environment |= dict.fromkeys(("ACCELSERVE_MODEL", "MODEL_NAME", "MODEL_BASE_PATH"), "")
    if d.entry_script and d.model:
        environment["AZUREML_MODEL_DIR"] = _version_folder(d)
    return {
        "name": "accelserve",
        "image": image,
        "args": serve_arguments(d),
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "resources": _resources(d, fpga_resource),
        "securityContext": _CONTAINER_SECURITY,
        "startupProbe": _probe(d, "/readyz", period_s=5, failures=START_S // 5),
        "readinessProbe": _probe(d, "/readyz", period_s=2, failures=2),
        "livenessProbe": _probe(d, "/healthz", period_s=10, failures=3),
        "volumeMounts": mounts,
    }


def http_port(d: ServiceDefinition) -> int:
    return d.http_port or HTTP_PORT


def grpc_port(d: ServiceDefinition) -> int:
    return d.grpc_port or GRPC_PORT


def _probe(d: ServiceDefinition, path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    """Neither path asks for a key."""
    asked = {"path": path, "port": "http", "scheme": "HTTPS" if d.tls_cert else "HTTP"}
    return {"httpGet": asked, "periodSeconds": period_s, "timeoutSeconds": 2, "failureThreshold": failures}


def _resources(d: ServiceDefinition, fpga_resource: str) -> dict[str, Any]:
    requests = {"cpu": _cores(d.cpu_cores), "memory": _memory(d.memory_gb)}
    limits = {"cpu": _cores(d.cpu_cores_limit), "memory": _memory(d.memory_gb_limit)}
    if d.gpus:
        limits[_GPU_RESOURCE] = str(d.gpus)
    request = parse_device_request(d.device)
    if request.kind is DeviceKind.FPGA:
        limits[fpga_resource] = str(max(1, len(request.ids)))
    parts = {"requests": requests, "limits": limits}
    kept = {part: {name: much for name, much in table.items() if much} for part, table in parts.items()}
    return {part: table for part, table in kept.items() if table}


def _cores(cores: float | None) -> str:
    return "" if cores is None else f"{max(1, round(cores * 1000))}m"


def _memory(gigabytes: float | None) -> str:
    return "" if gigabytes is None else f"{max(1, round(gigabytes * 1000))}M"


def _mounts(d: ServiceDefinition, keys_secret: str, tls_secret: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each with its volume. All that the server writes goes to /tmp."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "tmp", "mountPath": "/tmp"}, {"name": "tmp", "emptyDir": {}})
    ]
    wanted = (
        ("keys", d.auth == "key", image_layout.KEYS, keys_secret),
        ("tls", bool(d.tls_cert), image_layout.TLS, tls_secret),
    )
    for name, given, place, secret in wanted:
        if given:
            mount = {"name": name, "mountPath": place, "readOnly": True}
            found.append((mount, {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}))
    return found


def _spread(labels: dict[str, str]) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
