"""What a service is asked to be: one frozen value.

The names and rules are those of Azure ML's AksWebservice, so that a configuration from there can be read across.
"""

import math
import re
from dataclasses import dataclass

from accelserve.devices import DeviceKind, DeviceRequest, parse_device_request

_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
_DRAIN_S = 30
_RUN_ENDS_S = 5  # after its timeout: a run() that does not heed it is killed a second later
_BUSY_WITHOUT_SCRIPT = 16  # requests that a replica without a script is meant to have at a time: it batches them


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


def is_service_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def parse_autoscale(text: str) -> Autoscale:
    """`MIN:MAX`, `MIN:MAX:TARGET%`, `MIN:MAX:TARGET:SECONDS`. Raises ValueError; the numbers are `problems_of`'s."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 4 or not all(re.fullmatch("-?[0-9]{1,9}%?", part) for part in parts):
        raise ValueError("want MIN:MAX, MIN:MAX:TARGET or MIN:MAX:TARGET:SECONDS, for example 1:4:70")
    return Autoscale(*(int(part.removesuffix("%")) for part in parts))
