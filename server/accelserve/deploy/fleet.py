"""Which replica processes are started, drained and killed: decided without processes, files or a clock."""

from collections.abc import Iterator

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.judging import must_die, must_go
from accelserve.deploy.processes import Action, Drain, Kill, Patience, Process, Report, Revision, Slot, Start, Table
from accelserve.deploy.restarts import BackOff, Ending
from accelserve.deploy.scaling import Autoscaler
from accelserve.deploy.states import Refused, ServiceView
from accelserve.deploy.telling import view_of
from accelserve.errors import ExitCode

_S = 1_000_000_000
_PAUSE_NS = 5 * _S  # between two looks of a supervisor that works
_PATIENCE = Patience()
_BACK_OFF = BackOff()


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
        self._at = Table(Revision(revision, definition), definition.least)
        self._before: Revision | None = None  # the last proven revision
        self._scaler = Autoscaler(definition)
        self._serials = 0
        self._looked_ns: int | None = None
        self._ordered = False  # somebody has said that all are to go

    # -- what happened ----------------------------------------------------------------------------------------------

    def started(self, serial: int, pid: int) -> None:
        self._at.processes[serial].pid = pid

    def answered(self, serial: int, report: Report, now_ns: int) -> None:
        process = self._at.processes.get(serial)
        if process is None:
            return
        process.answered_ns = now_ns
        process.report = report
        if report.ready:
            process.ready_until_ns = now_ns
            if process.ready_ns is None:
                process.ready_ns = now_ns
            if process.runs == self._at.wanted.runs:
                self._at.wanted.proven = True
            if not self._at.is_old(process):
                self._at.slots[process.slot].last = ""

    def measured(self, serial: int, memory_bytes: int) -> None:
        self._at.processes[serial].memory_bytes = memory_bytes

    def exited(self, serial: int, status: int, now_ns: int) -> None:
        """status: the exit code, or minus the number of a signal."""
        process = self._at.processes.pop(serial)
        if process.retired or self._at.ends:
            return
        ending = Ending(status)
        slot = self._count_end(process, process.blamed or str(ending), now_ns)
        if process.ready_ns is None and process.runs == self._at.wanted.runs and not self._at.wanted.proven:
            self._count_failed_start(process.slot, ending, slot.last)

    def _count_end(self, process: Process, how: str, now_ns: int) -> Slot:
        """Of a process that ended or cannot stay: when its slot gets the next."""
        slot = self._at.slots[process.slot]
        lived_long = process.ready_ns is not None and now_ns - process.ready_ns >= self._back_off.long_life_ns
        slot.failures = 0 if lived_long else slot.failures + 1
        slot.restarts += 1
        # The first end after having been ready is made good at once; what dies again and again is not.
        waits = slot.failures - 1 if process.ready_ns is not None else slot.failures
        slot.not_before_ns = now_ns + self._back_off.wait_ns(max(waits, 0))
        slot.last = how
        return slot

    def _count_failed_start(self, slot: int, ending: Ending, how: str) -> None:
        self._at.wanted.failures += 1
        if ending.is_lasting or self._at.wanted.failures >= self._patience.attempts:
            times = "" if ending.is_lasting else f" ({self._at.wanted.failures} starts, none got ready)"
            self._give_up(f"replica {slot} {how}{times}", ending.exit_code)

    def _give_up(self, reason: str, code: ExitCode) -> None:
        if self._before is None:
            self._at.ends, self._at.exit_code, self._at.failed = self._at.ends or reason, code, True
            return
        self._at.refused = Refused(self._at.wanted.revision, reason, code)
        # Under a number of its own: what is written down as asked for is then what runs.
        back = Revision(self._at.wanted.revision + 1, self._before.definition, proven=True)
        self._at.wanted, self._before = back, None
        self._scaler = Autoscaler(back.definition, self._at.count)
        for number, place in self._at.slots.items():
            place.not_before_ns, place.failures = 0, 0
            if any(process.is_ready for process in self._at.of(number)):
                place.last = ""

    def revise(self, revision: int, definition: ServiceDefinition) -> None:
        """Ask for something else; of a service that has Failed too, as long as it has not ended."""
        if self._at.failed and not self._ordered:
            self._at.ends, self._at.failed, self._at.exit_code = "", False, ExitCode.OK
        if self._at.wanted.proven:
            self._before = self._at.wanted
        new = Revision(revision, definition)
        new.proven = any(p.ready_ns is not None and p.runs == new.runs for p in self._at.processes.values())
        self._at.wanted, self._at.refused = new, None
        self._scaler = Autoscaler(definition, self._at.count)
        for slot in self._at.slots.values():
            slot.not_before_ns, slot.failures = 0, 0

    def stop(self, why: str, failed: bool = False) -> None:
        """Drain all, and end. failed: as a service that Failed, and can be started again."""
        self._ordered = True
        self._at.ends = self._at.ends or why
        self._at.failed = self._at.failed or failed

    # -- what is to be done -----------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return bool(self._at.ends) and not self._at.processes

    @property
    def asked_for(self) -> tuple[int, ServiceDefinition]:
        """The revision that is wanted now; another than the one that was asked for when that has been refused."""
        return self._at.wanted.revision, self._at.wanted.definition

    @property
    def in_use(self) -> list[ServiceDefinition]:
        """What is wanted, and what the processes were told that have not ended yet."""
        return [self._at.wanted.definition, *(process.runs for process in self._at.processes.values())]

    def decide(self, now_ns: int) -> list[Action]:
        """What is to be done now; each action is taken as done."""
        self._forgive(now_ns)
        self._doubt_the_silent(now_ns)
        actions = list(self._overdue(now_ns))
        if self._at.ends:
            return [*actions, *(self._drain(p, now_ns) for p in self._at.live())]
        self._at.count = self._scaler.look(sum(p.report.in_flight for p in self._at.live() if p.is_ready), now_ns)
        for slot in range(self._at.count):
            self._at.slots.setdefault(slot, Slot())
        actions += [self._drain(p, now_ns) for p in self._at.live() if p.slot >= self._at.count]
        actions += self._roll(now_ns)
        actions += self._fill(now_ns)
        self._at.slots = {n: slot for n, slot in self._at.slots.items() if n < self._at.count or self._at.of(n)}
        return actions

    def _forgive(self, now_ns: int) -> None:
        """A time in which the supervisor itself stood still is nobody's silence."""
        lost_ns = now_ns - self._looked_ns - _PAUSE_NS if self._looked_ns is not None else 0
        self._looked_ns = now_ns
        if lost_ns <= 0:
            return
        for process in self._at.processes.values():
            process.started_ns += lost_ns
            process.answered_ns = min(process.answered_ns + lost_ns, now_ns)
            process.ready_until_ns = min(process.ready_until_ns + lost_ns, now_ns)
            if process.stopping_ns is not None:
                process.stopping_ns += lost_ns

    def _doubt_the_silent(self, now_ns: int) -> None:
        for process in self._at.live():
            if process.is_ready and now_ns - process.answered_ns >= self._patience.silent_s * _S:
                process.report = Report(False, "it does not answer", process.report.in_flight)

    def _overdue(self, now_ns: int) -> Iterator[Action]:
        for process in list(self._at.processes.values()):
            if process.is_killed:
                continue
            if why := must_die(process, self._patience, now_ns):
                process.blamed, process.is_killed = process.blamed or why, True
                yield Kill(process.serial, why)
            elif not process.is_outlived and (why := must_go(process, self._patience, now_ns)):
                process.blamed, process.is_outlived = why, True
                self._count_end(process, why, now_ns)

    def _roll(self, now_ns: int) -> Iterator[Action]:
        """One replica after the other gets a process of the wanted revision, and of those that cannot stay."""
        old = sorted((p for p in self._at.live() if self._at.is_old(p)), key=lambda p: p.slot)
        new = {p.slot: p for p in self._at.live() if not self._at.is_old(p)}
        for process in old:
            has_successor = process.slot in new and new[process.slot].is_ready
            others = [p for p in self._at.of(process.slot) if p is not process and p.stopping_ns is None]
            if has_successor or (process.ready_ns is None and others):  # one that starts serves nobody
                yield self._drain(process, now_ns)
        left = [p for p in old if p.stopping_ns is None]
        under_way = any(not p.is_ready for p in new.values()) or any(p.slot not in new for p in self._at.stopping())
        if not left or under_way:
            return
        slot = left[0].slot
        if now_ns < self._at.slots[slot].not_before_ns:
            return
        if self._at.wanted.definition.has_exclusive_device:
            yield self._drain(left[0], now_ns)  # its successor is started when the device is free
        else:
            yield self._start(slot, now_ns)

    def _fill(self, now_ns: int) -> Iterator[Action]:
        """A process for each slot that has none."""
        for number in range(self._at.count):
            there = self._at.of(number)
            if self._at.wanted.definition.has_exclusive_device:
                is_free = not there
            else:
                is_free = all(process.stopping_ns is not None for process in there)
            if is_free and now_ns >= self._at.slots[number].not_before_ns:
                yield self._start(number, now_ns)

    def _start(self, slot: int, now_ns: int) -> Start:
        self._serials += 1
        wanted = self._at.wanted
        process = Process(self._serials, slot, wanted.revision, wanted.runs, now_ns, now_ns)
        self._at.processes[process.serial] = process
        return Start(process.serial, slot, wanted.definition)

    def _drain(self, process: Process, now_ns: int) -> Drain:
        process.stopping_ns, process.retired = now_ns, True
        return Drain(process.serial, at_once=bool(self._at.ends))

    def view(self) -> ServiceView:
        """What is told of it now."""
        return view_of(self._at)
