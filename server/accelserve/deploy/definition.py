"""What a service is asked to be: one frozen value, all that is wrong with it at once, and its JSON.

The names and rules are those of Azure ML's AksWebservice, so that a configuration from there can be read across.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args, get_type_hints

from accelserve.config import OPTIONS
from accelserve.devices import DeviceKind, DeviceRequest, parse_device_request
from accelserve.models.store import is_model_name

TARGETS = ("local", "kubernetes")
AUTHS = ("key", "none")
NAME_RULE = (
    "3 to 32 lower-case letters, digits and dashes, a letter first and no dash last, for example resnet50-service"
)
_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
_MOST_REPLICAS = 1000
_MOST_REFRESH_S = 3600
_DRAIN_S = 30
_RUN_ENDS_S = 5  # after its timeout: a run() that does not heed it is killed a second later
_BUSY_WITHOUT_SCRIPT = 16  # requests that a replica without a script is meant to have at a time: it batches them
_PARSE = {option.name: option.parse for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Autoscale:
    """How many replicas, by how busy they are. target_percent: of `ServiceDefinition.busy_at` requests in flight."""

    min: int = 1
    max: int = 10
    target_percent: int = 70
    refresh_s: int = 1


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """One service. None leaves a number to the target.

    model, version: registered in the store; version None is the newest at the time of deploying. store: its folder.
    serve_model: the server loads the model itself; a script that opens it alone does without. entry_script: a path,
    within `source_directory` if there is one. model_files: (name, path) of what else a script may look up.
    replicas and autoscale: one of the two. cpu_cores and memory_gb are what a replica is meant to have, the limits what
    it cannot exceed. workers: script processes of a replica. max_queue_ms: how long a request may wait for one.
    max_concurrent: requests that a replica takes at a time. Paths are absolute.
    """

    name: str
    model: str = ""
    version: int | None = None
    store: str = ""
    serve_model: bool = True
    entry_script: str = ""
    source_directory: str = ""
    model_files: tuple[tuple[str, str], ...] = ()
    device: str = "auto"
    replicas: int | None = None
    autoscale: Autoscale | None = None
    cpu_cores: float | None = None
    cpu_cores_limit: float | None = None
    memory_gb: float | None = None
    memory_gb_limit: float | None = None
    auth: str = "key"
    tls_cert: str = ""
    tls_key: str = ""
    host: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    workers: int = 1
    scoring_timeout_ms: int = 60_000
    max_queue_ms: int | None = None
    max_concurrent: int | None = None
    legacy_tensorflow: bool = False
    backends: tuple[str, ...] = ()
    target: str = "local"

    @property
    def reference(self) -> str:
        """`resnet50:3`, `resnet50` before the version is known, "" without a model."""
        return f"{self.model}:{self.version}" if self.version is not None else self.model

    @property
    def least(self) -> int:
        """Replicas to begin with."""
        return self.autoscale.min if self.autoscale else self.replicas or 1

    @property
    def most(self) -> int:
        return self.autoscale.max if self.autoscale else self.replicas or 1

    @property
    def has_exclusive_device(self) -> bool:
        """Whether a replica keeps its device from all others, so that its successor has to wait for it."""
        return parse_device_request(self.device).kind in (DeviceKind.FPGA, DeviceKind.FPGA_EMULATOR)

    def device_of(self, replica: int) -> str:
        """The share of replica 0, 1, 2... in the devices that `device` names: `gpu:1` of `gpu:0,1`."""
        request = parse_device_request(self.device)
        if not request.ids:
            return self.device
        share = request.ids[replica % len(request.ids) :: self.most]
        return str(DeviceRequest(request.kind, share))

    @property
    def drain_s(self) -> int:
        """How long a replica that ends may take to answer what it has accepted: a run() that has just begun, too."""
        if not self.entry_script:
            return _DRAIN_S
        return max(_DRAIN_S, math.ceil(self.scoring_timeout_ms / 1000) + _RUN_ENDS_S)

    @property
    def busy_at(self) -> int:
        """Requests in flight at which a replica counts as fully used."""
        return self.max_concurrent or (self.workers if self.entry_script else _BUSY_WITHOUT_SCRIPT)

    @property
    def gpus(self) -> int:
        """Of one replica: as many as `device` names, 1 for any; 0 unless a GPU is required."""
        request = parse_device_request(self.device)
        return max(1, len(request.ids)) if request.kind is DeviceKind.GPU else 0


def problems_of(definition: ServiceDefinition) -> list[str]:
    """All that is wrong with it, each in words that name the field and the remedy; [] when nothing is."""
    return [problem for rule in _RULES for problem in rule(definition)]


def is_service_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _name(d: ServiceDefinition) -> Iterator[str]:
    if not is_service_name(d.name):
        yield f"service name: want {NAME_RULE}, got {_shown(d.name)}"


def _model(d: ServiceDefinition) -> Iterator[str]:
    if not d.model and not d.entry_script:
        yield "model: want NAME or NAME:VERSION of a registered model, or an entry script that needs none"
    if d.model and not is_model_name(d.model):
        yield f"model: {_shown(d.model)} is no model's name"
    if d.version is not None and (not d.model or d.version < 1):
        yield f"version: want a number above 0, of a model, got {d.version}"
    if d.model and not d.serve_model and not d.entry_script:
        yield "serve_model: without an entry script nobody but the server can answer, so it has to load the model"


def _script(d: ServiceDefinition) -> Iterator[str]:
    if d.entry_script and not d.entry_script.endswith(".py"):
        yield f"entry_script: want a Python file (.py), got {_shown(d.entry_script)}"
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


def _place(d: ServiceDefinition) -> Iterator[str]:
    for field in ("device", "host", "http_port", "grpc_port"):
        value = getattr(d, field)
        if said := _refusal(_PARSE[field], str(value)):
            yield f"{field}: {said}, got {_shown(value)}"
    if d.http_port and d.http_port == d.grpc_port:
        yield f"http_port and grpc_port are both {d.http_port}; they must differ"
    if d.target not in TARGETS:
        yield f"target: want {' or '.join(TARGETS)}, got {_shown(d.target)}"
    if not _refusal(_PARSE["device"], d.device):
        ids = parse_device_request(d.device).ids
        if d.target == "local" and d.has_exclusive_device and d.most > max(1, len(ids)):
            yield f"device: {d.device.partition(':')[0]} serves one replica, and {d.most} are wanted on one machine"


def _secrets(d: ServiceDefinition) -> Iterator[str]:
    if d.auth not in AUTHS:
        yield f"auth: want {' or '.join(AUTHS)}, got {_shown(d.auth)}"
    if bool(d.tls_cert) != bool(d.tls_key):
        yield f"tls_cert and tls_key: want both or none; {'tls_key' if d.tls_cert else 'tls_cert'} is missing"


_RULES: tuple[Callable[[ServiceDefinition], Iterator[str]], ...] = (
    *(_name, _model, _script, _replicas, _numbers, _place, _secrets),
)


def parse_autoscale(text: str) -> Autoscale:
    """`MIN:MAX`, `MIN:MAX:TARGET%`, `MIN:MAX:TARGET:SECONDS`. Raises ValueError; the numbers are `problems_of`'s."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 4 or not all(re.fullmatch("-?[0-9]{1,9}%?", part) for part in parts):
        raise ValueError("want MIN:MAX, MIN:MAX:TARGET or MIN:MAX:TARGET:SECONDS, for example 1:4:70")
    return Autoscale(*(int(part.removesuffix("%")) for part in parts))


def as_json(definition: ServiceDefinition) -> dict[str, Any]:
    """The definition as JSON's values; `from_json` reads it back."""
    return {**asdict(definition), "model_files": dict(definition.model_files), "backends": list(definition.backends)}


def from_json(document: object) -> ServiceDefinition:
    """Raises ValueError naming the first key that cannot be read; what the values mean is `problems_of`'s."""
    if not isinstance(document, dict):
        raise ValueError(f"want an object, got {_shown(document)}")
    values = {"name": "", **document}
    readers = {"autoscale": _read_autoscale, "model_files": _read_files, "backends": _read_names}
    read: dict[str, Any] = {key: reader(values.pop(key)) for key, reader in readers.items() if key in values}
    return ServiceDefinition(**_plain(values, ServiceDefinition), **read)


def _plain(document: object, kind: type) -> dict[str, Any]:
    """An object whose values are of the kinds that the class names."""
    if not isinstance(document, dict):
        raise ValueError(f"want an object, got {_shown(document)}")
    hints = get_type_hints(kind)
    for key, value in document.items():
        wanted = get_args(hints[key]) or (hints[key],) if key in hints else ()
        if type(value) not in wanted and not (type(value) is int and float in wanted):
            raise ValueError(f"{_shown(key)}: {'got ' + _shown(value) if wanted else 'unknown key'}")
    return document


def _read_autoscale(value: object) -> Autoscale | None:
    return None if value is None else Autoscale(**_plain(value, Autoscale))


def _read_files(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(path, str) for path in value.values()):
        raise ValueError(f"'model_files': want an object of names and paths, got {_shown(value)}")
    return tuple(sorted(value.items()))


def _read_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"'backends': want a list of names, got {_shown(value)}")
    return tuple(value)


def _refusal(parse: Callable[[str], Any], text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
