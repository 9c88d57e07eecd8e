"""How a service is, from its folder: what its supervisor told, and whether there still is one."""

import socket
import time
from dataclasses import dataclass, replace
from typing import Any

from accelserve.backends.lease import boot_id
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.definition_json import as_json
from accelserve.deploy.folder import ServiceFolder, read_json
from accelserve.deploy.logs import read_together
from accelserve.deploy.states import ServiceView, State, view_as_json, view_from_json
from accelserve.errors import ExitCode, ScoringError

_OLD_NS = 15_000_000_000
_TAIL_LINES = 12
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Addresses:
    scoring_uri: str
    swagger_uri: str
    grpc: str


@dataclass(frozen=True, slots=True)
class Status:
    """definition: None when its file cannot be read. since: when the state began, UTC, "" when that is not known.

    tail: the log's end, when something is wrong.
    """

    name: str
    view: ServiceView
    definition: ServiceDefinition | None
    supervisor: int | None = None
    since: str = ""
    tail: tuple[str, ...] = ()

    @property
    def addresses(self) -> Addresses | None:
        return addresses_of(self.definition) if self.definition else None

    def as_json(self) -> dict[str, Any]:
        where = self.addresses
        return {
            "name": self.name,
            **view_as_json(self.view),
            "since": self.since or None,
            "supervisor": self.supervisor,
            "scoring_uri": where.scoring_uri if where else None,
            "swagger_uri": where.swagger_uri if where else None,
            "grpc": where.grpc if where else None,
            "definition": as_json(self.definition) if self.definition else None,
            "log_tail": list(self.tail),
        }


def addresses_of(definition: ServiceDefinition) -> Addresses:
    """Where clients find a service whose ports are known."""
    host = socket.gethostname() if definition.host in _EVERYWHERE else definition.host
    shown = f"[{host}]" if ":" in host else host
    base = f"{'https' if definition.tls_cert else 'http'}://{shown}:{definition.http_port}"
    base = f"{base}/api/v1/service/{definition.name}"
    return Addresses(f"{base}/score", f"{base}/swagger.json", f"{shown}:{definition.grpc_port}")


def status_of(folder: ServiceFolder, now_ns: int | None = None) -> Status:
    """now_ns: of the monotonic clock, which all processes since the machine's start share."""
    definition, revision, damage = None, 0, ""
    try:
        revision, definition = folder.read()
    except ScoringError as error:
        damage = error.message
    # Whether it lives comes first: one that ends in between has told its last by then.
    supervisor = folder.supervisor()
    told = read_json(folder.state) or {}
    last = _view_in(told)
    if last is None:
        told = {}
    wanted = definition.least if definition else 0
    view = last or ServiceView(State.TRANSITIONING, "it starts", revision, wanted)
    if supervisor is None:
        view = _of_a_dead_one(folder, told, view, damage)
    elif last is not None and (age_ns := (now_ns or time.monotonic_ns()) - _told_ns(told)) > _OLD_NS:
        old = f"told {age_ns // 1_000_000_000} s ago; its supervisor stands still or cannot write since, see the log"
        view = replace(view, reason=f"{view.reason} ({old})")
    wrong = view.state in (State.FAILED, State.UNHEALTHY)
    tail = tuple(read_together(folder.log, _TAIL_LINES)) if wrong else ()
    since = str(told.get("since", "")) if last is not None and last.state is view.state else ""
    return Status(folder.name, view, definition, supervisor, since, tail)


def _view_in(told: dict[str, Any]) -> ServiceView | None:
    try:
        return view_from_json(told["view"])
    except (KeyError, TypeError, ValueError):
        return None


def _told_ns(told: dict[str, Any]) -> int:
    """0, long ago, where it is no time."""
    when = told.get("told_ns")
    return when if isinstance(when, int) else 0


def _of_a_dead_one(folder: ServiceFolder, told: dict[str, Any], view: ServiceView, damage: str) -> ServiceView:
    """Nothing runs without a supervisor: the kernel has seen to that."""
    start = f"`accelserve services start {folder.name}` starts it again"
    if damage:
        reason = damage
    elif told.get("ended"):
        reason = view.reason
    elif not told:
        reason = f"nobody supervises it, and its state cannot be read; {start}"
    elif told.get("boot_id") != boot_id():
        reason = f"the machine has been started since it ran; {start}"
    else:
        reason = f"its supervisor (process {told.get('supervisor')}) was killed, and its replicas with it; {start}"
    code = view.exit_code or ExitCode.UNFORESEEN
    return replace(view, state=State.FAILED, reason=reason, replicas=(), exit_code=int(code))
