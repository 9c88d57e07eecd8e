"""What travels through the server: frozen values, one way.

What is made for every request is a NamedTuple, which costs a quarter of a frozen dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

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


class ScoreRequest(NamedTuple):
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


class Timing(NamedTuple):
    """Where the time went, in nanoseconds, and why.

    batch_rows: rows that the model ran at once, padding excluded. position: of the request in its batch, from 0.
    closed: what ended the wait for more (`batching.batch_queue.Closed`), a word.
    """

    queue_ns: int = 0
    compute_ns: int = 0
    batch_rows: int = 0
    modelled_device_ns: int | None = None
    position: int = 0
    closed: str = ""


class ScoreResponse(NamedTuple):
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
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """Where one version of a model stands.

    state: TF Serving's word: START, LOADING, AVAILABLE, UNLOADING or END. error_code: a gRPC status number, 0 for none.
    """

    version: int
    state: str
    error_code: int = 0
    error_message: str = ""
