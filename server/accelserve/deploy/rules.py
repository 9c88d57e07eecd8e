"""All that is wrong with a definition, at once."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from accelserve.config_options import OPTIONS
from accelserve.deploy.definition import Autoscale, ServiceDefinition, is_service_name
from accelserve.deploy.definition_json import shown
from accelserve.devices import parse_device_request
from accelserve.models.store import is_model_name

TARGETS = ("local", "kubernetes")
AUTHS = ("key", "none")
NAME_RULE = (
    "3 to 32 lower-case letters, digits and dashes, a letter first and no dash last, for example resnet50-service"
)
_MOST_REPLICAS = 1000
_MOST_REFRESH_S = 3600
_PARSE = {option.name: option.parse for option in OPTIONS}


def problems_of(definition: ServiceDefinition) -> list[str]:
    """All that is wrong with it, each in words that name the field and the remedy; [] when nothing is."""
    return [problem for rule in _RULES for problem in rule(definition)]


def _name(d: ServiceDefinition) -> Iterator[str]:
    if not is_service_name(d.name):
        yield f"service name: want {NAME_RULE}, got {shown(d.name)}"


def _model(d: ServiceDefinition) -> Iterator[str]:
    if not d.model and not d.entry_script:
        yield "model: want NAME or NAME:VERSION of a registered model, or an entry script that needs none"
    if d.model and not is_model_name(d.model):
        yield f"model: {shown(d.model)} is no model's name"
    if d.version is not None and (not d.model or d.version < 1):
        yield f"version: want a number above 0, of a model, got {d.version}"
    if d.model and not d.serve_model and not d.entry_script:
        yield "serve_model: without an entry script nobody but the server can answer, so it has to load the model"


def _script(d: ServiceDefinition) -> Iterator[str]:
    if d.entry_script and not d.entry_script.endswith(".py"):
        yield f"entry_script: want a Python file (.py), got {shown(d.entry_script)}"
    only_with_one = {
        "source_directory": bool(d.source_directory),
        "model_files": bool(d.model_files),
        "workers": d.workers != 1,
        "legacy_tensorflow": d.legacy_tensorflow,
        "max_queue_ms": d.max_queue_ms is not None,
    }
    for field, given in only_with_one.items():
        if given and not d.entry_script:
            yield f"{field}: is of entry scripts, and there is no entry_script"
    names = [name for name, _ in d.model_files]
    for name in sorted({name for name in names if "/" in name or name in ("", ".", "..")}):
        yield f"model_files: want a name without slashes that a script may look up, got {shown(name)}"
    for name in sorted({name for name in names if names.count(name) > 1 or name == d.model}):
        yield f"model_files: {name} is given twice; names must differ, also from the model's"


def _replicas(d: ServiceDefinition) -> Iterator[str]:
    if d.autoscale is not None:
        if d.replicas is not None:
            yield "replicas: cannot be given with autoscale, which says by itself how many there are"
        yield from _autoscale(d.autoscale)
    elif d.replicas is None:
        yield "replicas: has to be given when autoscale is off"
    elif not 1 <= d.replicas <= _MOST_REPLICAS:
        yield f"replicas: want a whole number from 1 to {_MOST_REPLICAS}, got {d.replicas}"


def _autoscale(a: Autoscale) -> Iterator[str]:
    for field, number in (("min", a.min), ("max", a.max)):
        if not 1 <= number <= _MOST_REPLICAS:
            yield f"autoscale {field}: want a whole number from 1 to {_MOST_REPLICAS}, got {number}"
    if a.max < a.min:
        yield f"autoscale: max {a.max} is below min {a.min}"
    if not 1 <= a.target_percent <= 100:
        yield f"autoscale target_percent: want a percentage from 1 to 100, got {a.target_percent}"
    if not 1 <= a.refresh_s <= _MOST_REFRESH_S:
        yield f"autoscale refresh_s: want a whole number of seconds from 1 to {_MOST_REFRESH_S}, got {a.refresh_s}"


def _numbers(d: ServiceDefinition) -> Iterator[str]:
    for field in (
        *("cpu_cores", "cpu_cores_limit", "memory_gb", "memory_gb_limit"),
        *("workers", "scoring_timeout_ms", "max_queue_ms", "max_concurrent"),
    ):
        number = getattr(d, field)
        if number is not None and not 0 < number < float("inf"):  # not a number is neither
            yield f"{field}: want a number above 0, got {number}"
    for field in ("cpu_cores", "memory_gb"):
        wanted, limit = getattr(d, field), getattr(d, f"{field}_limit")
        if wanted is not None and limit is not None and limit < wanted:
            yield f"{field}_limit: {limit:g} is below {field} {wanted:g}"


def _servers(d: ServiceDefinition) -> Iterator[str]:
    """What the server that is started would refuse of numbers that make sense."""
    cores = d.cpu_cores if d.cpu_cores is not None and 0 < d.cpu_cores < float("inf") else None
    asked = (
        ("cpu_cores", "threads", math.ceil(cores) if cores is not None else None),
        ("workers", "workers", d.workers),
        ("scoring_timeout_ms", "drain_timeout_s", d.drain_s),
        ("max_queue_ms", "max_queue_ms", d.max_queue_ms),
        ("max_concurrent", "max_concurrent", d.max_concurrent),
    )
    for field, option, number in asked:
        if number is not None and number > 0 and (said := _refusal(_PARSE[option], str(number))):
            yield f"{field}: {said}, got {getattr(d, field)}"


def _place(d: ServiceDefinition) -> Iterator[str]:
    for field in ("device", "host", "http_port", "grpc_port"):
        value = getattr(d, field)
        if said := _refusal(_PARSE[field], str(value)):
            yield f"{field}: {said}, got {shown(value)}"
    if d.http_port and d.http_port == d.grpc_port:
        yield f"http_port and grpc_port are both {d.http_port}; they must differ"
    if d.target not in TARGETS:
        yield f"target: want {' or '.join(TARGETS)}, got {shown(d.target)}"
    if not _refusal(_PARSE["device"], d.device):
        ids = parse_device_request(d.device).ids
        if d.target == "local" and d.has_exclusive_device and d.most > max(1, len(ids)):
            yield f"device: {d.device.partition(':')[0]} serves one replica, and {d.most} are wanted on one machine"


def _secrets(d: ServiceDefinition) -> Iterator[str]:
    if d.auth not in AUTHS:
        yield f"auth: want {' or '.join(AUTHS)}, got {shown(d.auth)}"
    if bool(d.tls_cert) != bool(d.tls_key):
        yield f"tls_cert and tls_key: want both or none; {'tls_key' if d.tls_cert else 'tls_cert'} is missing"


_RULES: tuple[Callable[[ServiceDefinition], Iterator[str]], ...] = (
    *(_name, _model, _script, _replicas, _numbers, _servers, _place, _secrets),
)


def _refusal(parse: Callable[[str], Any], text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""
