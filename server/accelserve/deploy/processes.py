"""The records of a service's processes: what is done with them, what they say, and the table of all."""

from dataclasses import dataclass, field, replace

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.serve_options import START_S
from accelserve.deploy.states import Refused
from accelserve.devices import parse_device_request
from accelserve.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process. serial: its number, never used again; runs: what it is to be told."""

    serial: int
    slot: int
    runs: ServiceDefinition


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask a process to end when it has answered what it has taken.

    at_once: there is nobody to whom clients could be sent, so that they need no time to go there.
    """

    serial: int
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    serial: int
    why: str


Action = Start | Drain | Kill


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica says of itself. reason: why it is not ready."""

    ready: bool
    reason: str = ""
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take. silent_s: until one that does not answer is no longer taken to be ready.
    ending_s: beyond the time that its definition gives a process to drain.

    attempts: short lives of a revision that was never ready, until it is given up.
    """

    start_s: int = START_S
    silent_s: int = 5
    answer_s: int = 30
    unready_s: int = 60
    ending_s: int = 15
    attempts: int = 5


@dataclass(slots=True)
class Process:
    serial: int
    slot: int
    revision: int
    runs: ServiceDefinition
    started_ns: int
    answered_ns: int
    pid: int | None = None
    report: Report = Report(False, "starting")
    memory_bytes: int | None = None
    ready_ns: int | None = None  # for the first time
    ready_until_ns: int = 0
    stopping_ns: int | None = None
    blamed: str = ""  # why the supervisor ends it
    is_killed: bool = False
    is_outlived: bool = False  # it serves on until a successor is ready
    retired: bool = False  # it stops because another is to take its place, or none is needed

    @property
    def is_ready(self) -> bool:
        return self.report.ready and self.stopping_ns is None


@dataclass(slots=True)
class Slot:
    """The place of one replica. failures: short lives in a row."""

    failures: int = 0
    restarts: int = 0
    not_before_ns: int = 0
    last: str = ""  # how the last process ended, until the next one is ready


@dataclass(slots=True)
class Revision:
    """A revision. runs: the part of the definition that its processes are told. proven: one has been ready."""

    revision: int
    definition: ServiceDefinition
    proven: bool = False
    failures: int = 0
    runs: ServiceDefinition = field(init=False)

    def __post_init__(self) -> None:
        # How many there are changes no process, unless they share out devices.
        shared = bool(parse_device_request(self.definition.device).ids)
        self.runs = self.definition if shared else replace(self.definition, replicas=None, autoscale=None)


@dataclass(slots=True)
class Table:
    """Where a fleet stands. count: replicas that there are to be. ends: why all are to go, "" while they stay."""

    wanted: Revision
    count: int
    processes: dict[int, Process] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=dict)
    ends: str = ""
    failed: bool = False
    exit_code: ExitCode = ExitCode.OK
    refused: Refused | None = None

    def live(self) -> list[Process]:
        return [process for process in self.processes.values() if process.stopping_ns is None]

    def stopping(self) -> list[Process]:
        return [process for process in self.processes.values() if process.stopping_ns is not None]

    def of(self, slot: int) -> list[Process]:
        return [process for process in self.processes.values() if process.slot == slot]

    def is_old(self, process: Process) -> bool:
        return process.runs != self.wanted.runs or process.is_outlived
