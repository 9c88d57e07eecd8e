"""What is to be known of a definition that is right: told at deploying, in words."""

import math
from collections.abc import Iterator

from accelserve.deploy.definition import Autoscale, ServiceDefinition

_GB = 10**9
_PRIVILEGED = 1024
_DEFAULT_HOST = ServiceDefinition("").host


def remarks(definition: ServiceDefinition, cores: int, memory_bytes: int) -> Iterator[str]:
    """Of a local service. cores, memory_bytes: what this machine has for us."""
    yield from _secrecy(definition)
    yield from _resources(definition, cores, memory_bytes)
    yield from _steering(definition)


def cluster_remarks(d: ServiceDefinition) -> Iterator[str]:
    """Of a service on Kubernetes."""
    if d.host != _DEFAULT_HOST:
        yield f"host {d.host}: a pod listens on all its addresses"
    if d.auth == "none":
        yield "auth none: no key is asked for, so whoever reaches the Service may use it"
    if not d.tls_cert:
        yield f"without --tls-cert and --tls-key {_clear(d)} travel in clear text within the cluster"
    for field in ("http_port", "grpc_port"):
        if 0 < (port := getattr(d, field)) < _PRIVILEGED:
            yield f"{field} {port}: the pods have no root, and not every cluster lets them listen below {_PRIVILEGED}"
    if d.cpu_cores is not None:
        yield f"cpu_cores {d.cpu_cores:g}: each model session gets {_threads(d.cpu_cores)}"
    if d.autoscale is not None and d.autoscale.refresh_s != Autoscale().refresh_s:
        yield f"autoscale refresh_s {d.autoscale.refresh_s}: how often it looks is the cluster's to say"
    yield from _steering(d)


def _secrecy(d: ServiceDefinition) -> Iterator[str]:
    if d.host.startswith("127.") or d.host in ("localhost", "::1"):
        return
    if d.auth == "none":
        yield f"host {d.host}: no key is asked for, so whoever reaches it may use it"
    if not d.tls_cert:
        yield f"host {d.host}: without --tls-cert and --tls-key {_clear(d)} travel in clear text"


def _clear(d: ServiceDefinition) -> str:
    return "keys and requests" if d.auth == "key" else "requests"


def _resources(d: ServiceDefinition, cores: int, memory_bytes: int) -> Iterator[str]:
    if d.cpu_cores is not None:
        yield f"cpu_cores {d.cpu_cores:g}: each model session gets {_threads(d.cpu_cores)}; no core is reserved"
        if d.cpu_cores * d.most > cores:
            yield f"cpu_cores {d.cpu_cores:g} x {d.most} replicas is more than the {cores} cores of this machine"
    if d.cpu_cores_limit is not None:
        count = math.ceil(d.cpu_cores_limit)
        if count >= cores:
            yield f"cpu_cores_limit {d.cpu_cores_limit:g}: this machine has {cores} cores, so it limits nothing"
        elif count != d.cpu_cores_limit:
            yield f"cpu_cores_limit {d.cpu_cores_limit:g}: a replica is bound to whole cores, here to {count}"
    if d.memory_gb is not None and d.memory_gb * d.most * _GB > memory_bytes:
        there = f"{memory_bytes / _GB:.1f} GB of this machine"
        yield f"memory_gb {d.memory_gb:g} x {d.most} replicas is more than the {there}; nothing is reserved"
    if d.memory_gb_limit is not None:
        yield (
            f"memory_gb_limit {d.memory_gb_limit:g}: looked at every second; a replica that is above it, together with "
            "its script processes, is replaced, and one that still starts is ended, as a failed start"
        )


def _steering(d: ServiceDefinition) -> Iterator[str]:
    if d.max_concurrent is not None and not d.entry_script:
        yield f"max_concurrent {d.max_concurrent}: steers autoscaling only; the server batches what comes at a time"


def _threads(cores: float) -> str:
    count = math.ceil(cores)
    return "1 thread" if count == 1 else f"{count} threads"
