"""What a service and its replicas are said to be: the words, and the JSON of the state file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, TypeVar, get_origin, get_type_hints

from accelserve.errors import ExitCode

_T = TypeVar("_T")


class State(Enum):
    """Of a service, in Azure ML's words."""

    TRANSITIONING = "Transitioning"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    FAILED = "Failed"


class Phase(Enum):
    """Of a replica."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not ready"
    STOPPING = "stopping"
    WAITING = "waits to be started again"


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica. slot: its number; pid: None while it waits; restarts: since the service was started.

    reason: why it is not ready, or how its last process ended. in_flight: requests under way when it was last asked.
    memory_bytes: resident, of the replica and its script workers; None unless there is a limit.
    """

    slot: int
    phase: Phase
    revision: int
    pid: int | None = None
    reason: str = ""
    restarts: int = 0
    in_flight: int = 0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A revision that was tried and not taken; the one before it serves on."""

    revision: int
    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class ServiceView:
    """What is told of a service. revision: the newest that is asked for; wanted: replicas of it.

    exit_code: of a service that has Failed, what its commands end with.
    """

    state: State
    reason: str
    revision: int
    wanted: int
    replicas: tuple[ReplicaView, ...] = ()
    refused: Refused | None = None
    exit_code: int = 0

    @property
    def ready(self) -> int:
        return sum(replica.phase is Phase.READY for replica in self.replicas)


def view_as_json(view: ServiceView) -> dict[str, Any]:
    told = asdict(view)
    told["state"] = view.state.value
    told["replicas"] = [{**asdict(replica), "phase": replica.phase.value} for replica in view.replicas]
    return told


def view_from_json(document: Mapping[str, Any]) -> ServiceView:
    """Raises ValueError, KeyError or TypeError for what `view_as_json` did not make."""
    told = dict(document)
    told["state"] = State(told["state"])
    told["replicas"] = tuple(_made(ReplicaView, {**each, "phase": Phase(each["phase"])}) for each in told["replicas"])
    told["refused"] = _made(Refused, told["refused"]) if told["refused"] is not None else None
    view = _made(ServiceView, told)
    for code in (view.exit_code, view.refused.exit_code if view.refused is not None else 0):
        ExitCode(code)
    return view


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Of values whose types are those that the class names. Raises KeyError, TypeError."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        wanted = tuple if get_origin(hints[name]) is tuple else hints[name]
        if not isinstance(value, wanted):
            raise TypeError(f"{name}: got {value!r}")
    return kind(**values)
