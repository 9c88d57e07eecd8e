"""Which replica processes are started, drained and killed: decided without processes, files or a clock."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.restarts import BackOff, Ending
from accelserve.deploy.scaling import Autoscaler
from accelserve.deploy.states import Phase, Refused, ReplicaView, ServiceView, State
from accelserve.errors import ExitCode

_S = 1_000_000_000
_GB = 10**9
_PAUSE_NS = 5 * _S  # between two looks of a supervisor that works


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process. serial: its number, never used again; runs: what it is to be told."""

    serial: int
    slot: int
    runs: ServiceDefinition


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask a process to end when it has answered what it has taken."""

    serial: int


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
    """How long things may take. attempts: short lives of a revision that was never ready, until it is given up."""

    start_s: int = 600
    answer_s: int = 30
    unready_s: int = 60
    drain_s: int = 45
    attempts: int = 5


_PATIENCE = Patience()
_BACK_OFF = BackOff()


@dataclass(slots=True)
class _Process:
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
class _Slot:
    """The place of one replica. failures: short lives in a row."""

    failures: int = 0
    restarts: int = 0
    not_before_ns: int = 0
    last: str = ""  # how the last process ended, until the next one is ready


@dataclass(slots=True)
class _Wanted:
    """A revision. runs: the part of the definition that its processes are told. proven: one has been ready."""

    revision: int
    definition: ServiceDefinition
    proven: bool = False
    failures: int = 0
    runs: ServiceDefinition = field(init=False)

    def __post_init__(self) -> None:
        self.runs = replace(self.definition, replicas=None, autoscale=None)


class Fleet:
    """The replicas of one service; a state machine that time is passed in to.

    A new revision takes over one replica after the other: its process has to be ready before the old one is drained,
    unless they need the same device. A revision that was never ready and does not start is given up: the one before
    serves on, and without one the service has Failed.
    """

    def __init__(
        self,
        revision: int,
        definition: ServiceDefinition,
        patience: Patience = _PATIENCE,
        back_off: BackOff = _BACK_OFF,
    ) -> None:
        self._patience = patience
        self._back_off = back_off
        self._wanted = _Wanted(revision, definition)
        self._before: _Wanted | None = None  # the last proven revision
        self._scaler = Autoscaler(definition)
        self._processes: dict[int, _Process] = {}
        self._slots: dict[int, _Slot] = {}
        self._serials = 0
        self._count = definition.least
        self._looked_ns: int | None = None
        self._ends = ""  # why all processes are to go
        self._ordered = False  # somebody has said so
        self._failed = False
        self._exit_code = ExitCode.OK
        self._refused: Refused | None = None

    # -- what happened ----------------------------------------------------------------------------------------------

    def started(self, serial: int, pid: int) -> None:
        self._processes[serial].pid = pid

    def answered(self, serial: int, report: Report, now_ns: int) -> None:
        process = self._processes.get(serial)
        if process is None:
            return
        process.answered_ns = now_ns
        process.report = report
        if report.ready:
            process.ready_until_ns = now_ns
            if process.ready_ns is None:
                process.ready_ns = now_ns
            if process.runs == self._wanted.runs:
                self._wanted.proven = True
            if not self._is_old(process):
                self._slots[process.slot].last = ""

    def measured(self, serial: int, memory_bytes: int) -> None:
        self._processes[serial].memory_bytes = memory_bytes

    def exited(self, serial: int, status: int, now_ns: int) -> None:
        """status: the exit code, or minus the number of a signal."""
        process = self._processes.pop(serial)
        if process.retired or self._ends:
            return
        slot, ending = self._slots[process.slot], Ending(status)
        lived_long = process.ready_ns is not None and now_ns - process.ready_ns >= self._back_off.long_life_ns
        slot.failures = 0 if lived_long else slot.failures + 1
        slot.restarts += 1
        # The first end after having been ready is made good at once; what dies again and again is not.
        waits = slot.failures - 1 if process.ready_ns is not None else slot.failures
        slot.not_before_ns = now_ns + self._back_off.wait_ns(max(waits, 0))
        slot.last = process.blamed or str(ending)
        if process.ready_ns is None and process.runs == self._wanted.runs and not self._wanted.proven:
            self._count_failed_start(process.slot, ending, slot.last)

    def _count_failed_start(self, slot: int, ending: Ending, how: str) -> None:
        self._wanted.failures += 1
        if ending.is_lasting or self._wanted.failures >= self._patience.attempts:
            times = "" if ending.is_lasting else f" ({self._wanted.failures} starts, none got ready)"
            self._give_up(f"replica {slot} {how}{times}", ending.exit_code)

    def _give_up(self, reason: str, code: ExitCode) -> None:
        if self._before is None:
            self._ends, self._exit_code, self._failed = self._ends or reason, code, True
            return
        self._refused = Refused(self._wanted.revision, reason, code)
        # Under a number of its own: what is written down as asked for is then what runs.
        back = _Wanted(self._wanted.revision + 1, self._before.definition, proven=True)
        self._wanted, self._before = back, None
        self._scaler = Autoscaler(back.definition, self._count)
        for number, place in self._slots.items():
            place.not_before_ns, place.failures = 0, 0
            if any(process.is_ready for process in self._of(number)):
                place.last = ""

    def revise(self, revision: int, definition: ServiceDefinition) -> None:
        """Ask for something else; of a service that has Failed too, as long as it has not ended."""
        if self._failed and not self._ordered:
            self._ends, self._failed, self._exit_code = "", False, ExitCode.OK
        if self._wanted.proven:
            self._before = self._wanted
        new = _Wanted(revision, definition)
        new.proven = any(p.ready_ns is not None and p.runs == new.runs for p in self._processes.values())
        self._wanted, self._refused = new, None
        self._scaler = Autoscaler(definition, self._count)
        for slot in self._slots.values():
            slot.not_before_ns, slot.failures = 0, 0

    def stop(self, why: str, failed: bool = False) -> None:
        """Drain all, and end. failed: as a service that Failed, and can be started again."""
        self._ordered = True
        self._ends = self._ends or why
        self._failed = self._failed or failed

    # -- what is to be done -----------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return bool(self._ends) and not self._processes

    @property
    def asked_for(self) -> tuple[int, ServiceDefinition]:
        """The revision that is wanted now; another than the one that was asked for when that has been refused."""
        return self._wanted.revision, self._wanted.definition

    def decide(self, now_ns: int) -> list[Action]:
        """What is to be done now; each action is taken as done."""
        self._forgive(now_ns)
        actions = list(self._overdue(now_ns))
        if self._ends:
            return [*actions, *(self._drain(p, now_ns) for p in self._live())]
        self._count = self._scaler.look(sum(p.report.in_flight for p in self._live() if p.is_ready), now_ns)
        for slot in range(self._count):
            self._slots.setdefault(slot, _Slot())
        actions += [self._drain(p, now_ns) for p in self._live() if p.slot >= self._count]
        actions += self._roll(now_ns)
        actions += self._fill(now_ns)
        self._slots = {n: slot for n, slot in self._slots.items() if n < self._count or self._of(n)}
        return actions

    def _forgive(self, now_ns: int) -> None:
        """A time in which the supervisor itself stood still is nobody's silence."""
        lost_ns = now_ns - self._looked_ns - _PAUSE_NS if self._looked_ns is not None else 0
        self._looked_ns = now_ns
        if lost_ns <= 0:
            return
        for process in self._processes.values():
            process.started_ns += lost_ns
            process.answered_ns = min(process.answered_ns + lost_ns, now_ns)
            process.ready_until_ns = min(process.ready_until_ns + lost_ns, now_ns)
            if process.stopping_ns is not None:
                process.stopping_ns += lost_ns

    def _overdue(self, now_ns: int) -> Iterator[Action]:
        for process in list(self._processes.values()):
            if process.is_killed:
                continue
            if why := self._must_die(process, now_ns):
                process.blamed, process.is_killed = process.blamed or why, True
                yield Kill(process.serial, why)
            elif not process.is_outlived and (why := self._must_go(process, now_ns)):
                process.blamed, process.is_outlived = why, True
                slot = self._slots[process.slot]
                slot.last, slot.restarts = why, slot.restarts + 1

    def _must_die(self, process: _Process, now_ns: int) -> str:
        patience = self._patience
        if process.stopping_ns is not None:
            late = now_ns - process.stopping_ns >= patience.drain_s * _S
            return f"was killed: it did not end within {patience.drain_s} s" if late else ""
        if process.ready_ns is None and now_ns - process.started_ns >= patience.start_s * _S:
            return f"was killed: it did not get ready within {patience.start_s} s"
        if process.ready_ns is not None and now_ns - process.answered_ns >= patience.answer_s * _S:
            return f"was killed: it did not answer for {patience.answer_s} s"
        return ""

    def _must_go(self, process: _Process, now_ns: int) -> str:
        limit_gb = process.runs.memory_gb_limit
        if limit_gb is not None and (process.memory_bytes or 0) > limit_gb * _GB:
            return f"is replaced: it uses {(process.memory_bytes or 0) / _GB:.2f} GB of the {limit_gb:g} GB that it may"
        unready_ns = now_ns - process.ready_until_ns
        if process.stopping_ns is None and process.ready_ns is not None and unready_ns >= self._patience.unready_s * _S:
            return f"is replaced: it was not ready for {self._patience.unready_s} s ({process.report.reason})"
        return ""

    def _roll(self, now_ns: int) -> Iterator[Action]:
        """One replica after the other gets a process of the wanted revision, and of those that cannot stay."""
        old = sorted((p for p in self._live() if self._is_old(p)), key=lambda p: p.slot)
        new = {p.slot: p for p in self._live() if not self._is_old(p)}
        for process in old:
            if process.slot in new and new[process.slot].is_ready:
                yield self._drain(process, now_ns)
        left = [p for p in old if p.stopping_ns is None]
        under_way = any(not p.is_ready for p in new.values()) or any(p.slot not in new for p in self._stopping())
        if not left or under_way:
            return
        slot = left[0].slot
        if self._wanted.definition.has_exclusive_device:
            yield self._drain(left[0], now_ns)  # its successor is started when the device is free
        elif now_ns >= self._slots[slot].not_before_ns:
            yield self._start(slot, now_ns)

    def _is_old(self, process: _Process) -> bool:
        return process.runs != self._wanted.runs or process.is_outlived

    def _fill(self, now_ns: int) -> Iterator[Action]:
        """A process for each slot that has none."""
        for number in range(self._count):
            there = self._of(number)
            if self._wanted.definition.has_exclusive_device:
                is_free = not there
            else:
                is_free = all(process.stopping_ns is not None for process in there)
            if is_free and now_ns >= self._slots[number].not_before_ns:
                yield self._start(number, now_ns)

    def _start(self, slot: int, now_ns: int) -> Start:
        self._serials += 1
        wanted = self._wanted
        process = _Process(self._serials, slot, wanted.revision, wanted.runs, now_ns, now_ns)
        self._processes[process.serial] = process
        return Start(process.serial, slot, wanted.definition)

    def _drain(self, process: _Process, now_ns: int) -> Drain:
        process.stopping_ns, process.retired = now_ns, True
        return Drain(process.serial)

    def _live(self) -> list[_Process]:
        return [process for process in self._processes.values() if process.stopping_ns is None]

    def _stopping(self) -> list[_Process]:
        return [process for process in self._processes.values() if process.stopping_ns is not None]

    def _of(self, slot: int) -> list[_Process]:
        return [process for process in self._processes.values() if process.slot == slot]

    # -- what is told -----------------------------------------------------------------------------------------------

    def view(self) -> ServiceView:
        state, reason = self._state()
        replicas = tuple(sorted(self._replicas(), key=lambda replica: (replica.slot, replica.revision)))
        code = self._exit_code if state is State.FAILED else ExitCode.OK
        return ServiceView(state, reason, self._wanted.revision, self._count, replicas, self._refused, int(code))

    def _state(self) -> tuple[State, str]:
        ready = sum(process.is_ready for process in self._processes.values())
        told = f"{ready} of {self._count} replicas ready"
        if self._ends:
            return (State.FAILED, self._ends) if self._failed else (State.TRANSITIONING, f"ends: {self._ends}")
        broken = "; ".join(f"replica {n} {s.last}" for n, s in sorted(self._slots.items()) if s.last)
        if any(process.runs != self._wanted.runs for process in self._live()):
            done = sum(process.is_ready and process.runs == self._wanted.runs for process in self._live())
            updating = f"{done} of {self._count} replicas run revision {self._wanted.revision}"
            return State.TRANSITIONING, "; ".join(filter(None, (updating, broken)))
        unready = [p for p in self._live() if p.ready_ns is not None and not p.is_ready]
        broken = "; ".join(filter(None, (broken, *(f"replica {p.slot}: {p.report.reason}" for p in unready))))
        if self._wanted.proven and (broken or not ready):
            return State.UNHEALTHY, "; ".join(filter(None, (told, broken)))
        if ready >= self._wanted.definition.least and not broken:
            return State.HEALTHY, told
        return State.TRANSITIONING, "; ".join(filter(None, (told, broken)))

    def _replicas(self) -> Iterator[ReplicaView]:
        for p in self._processes.values():
            slot = self._slots[p.slot]
            reason = "" if p.is_ready else slot.last or p.blamed or p.report.reason
            revision = self._wanted.revision if p.runs == self._wanted.runs else p.revision
            about = (p.slot, _phase(p), revision, p.pid, reason, slot.restarts, p.report.in_flight, p.memory_bytes)
            yield ReplicaView(*about)
        for number, slot in self._slots.items():
            if number < self._count and not self._of(number) and not self._ends:
                yield ReplicaView(
                    number, Phase.WAITING, self._wanted.revision, reason=slot.last, restarts=slot.restarts
                )


def _phase(process: _Process) -> Phase:
    if process.stopping_ns is not None:
        return Phase.STOPPING
    if process.ready_ns is None:
        return Phase.STARTING
    return Phase.READY if process.is_ready else Phase.NOT_READY
