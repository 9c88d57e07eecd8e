"""What travels through the server: frozen values, one way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from accelserve.tensors import Tensor


class Priority(IntEnum):
    """Who goes first; the smaller number."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model a request means. An empty name: the default model, else the only one."""

    name: str = ""
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A decoded request: tensors under the names that the client used (signature keys or tensor names).

    output_filter: the outputs wanted; empty means all.
    deadline_ns: moment on the server's clock after which nobody waits any more.
    pixels: the one input holds decoded pictures, for the signature that the model has for these.
    """

    inputs: Mapping[str, Tensor]
    output_filter: tuple[str, ...] = ()
    deadline_ns: int | None = None
    priority: Priority = Priority.NORMAL
    pixels: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in nanoseconds. batch_rows: rows that the model ran at once, padding excluded."""

    queue_ns: int = 0
    compute_ns: int = 0
    batch_rows: int = 0
    modelled_device_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ScoreResponse:
    """Outputs under the names of the question's dialect, and who computed them.

    device: the id of the one that ran it; of a request that ran in parts, each one's, joined by ", ".
    emulated: any of these answers is not the device's own.
    """

    outputs: Mapping[str, Tensor]
    model: str
    version: int
    signature: str
    device: str
    emulated: bool
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """Where one version of a model stands.

    state: TF Serving's word: START, LOADING, AVAILABLE, UNLOADING or END. error_code: a gRPC status number, 0 for none.
    """

    version: int
    state: str
    error_code: int = 0
    error_message: str = ""
