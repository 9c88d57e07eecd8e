"""Keeps a service's replicas running: carries out what the fleet decides, and tells what the fleet knows.

One thread, so that the kernel ties the replicas' lives to this process; a replica that the supervisor's death would
leave alone is killed by the kernel.
"""

import logging
import os
import selectors
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from accelserve.clock import Clock
from accelserve.deploy import logs, replica
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.descendants import kill_left, mark_of, resident_bytes
from accelserve.deploy.fleet import Fleet
from accelserve.deploy.folder import ServiceFolder
from accelserve.deploy.keeping import Kept
from accelserve.deploy.ports import Ports
from accelserve.deploy.processes import Action, Drain, Start
from accelserve.deploy.replica import Replica
from accelserve.deploy.state_file import Told
from accelserve.deploy.states import State
from accelserve.errors import ScoringError

logger = logging.getLogger("accelserve.deploy")

_TICK_S = 0.2
_ASK_NS = 500_000_000
_HOUSEKEEPING_NS = 1_000_000_000


class Supervisor:
    """One service's. Raises nothing while it runs: what fails is logged, and tried again."""

    def __init__(self, folder: ServiceFolder, lock: int, ports: Ports, clock: Clock) -> None:
        """lock: `folder.take_lock`'s. Raises ScoringError when the definition cannot be read."""
        revision, definition = folder.read()
        self._folder = folder
        self._lock = lock
        self._is_gone = False  # the folder; what has its name now is another's
        self._ports = ports
        self._clock = clock
        self._fleet = Fleet(revision, definition)
        self._replicas: dict[int, Replica] = {}
        self._serial_slots: dict[int, int] = {}
        self._unready: set[int] = set()  # serials whose log has not been told yet that they are ready
        self._selector = selectors.DefaultSelector()
        self._cores = sorted(os.sched_getaffinity(0))
        self._seen = _stamp(folder.definition_file)
        self._known = revision
        self._unwritten = 0  # the revision whose writing down has been told of
        self._told = Told(folder.state, clock)
        self._asked_ns = self._kept_ns = 0
        self._kept = Kept(folder)
        self._kept.hold(definition)

    def run(self, on_begin: Callable[[], None]) -> None:
        """Until the service is stopped or has failed. on_begin: called when the state has been told once."""
        for ignored in (signal.SIGHUP, signal.SIGINT):  # not SIG_IGN, which the replicas would inherit
            signal.signal(ignored, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._fleet.stop("the supervisor was told to stop", failed=True))
        kill_left(self._folder.path)  # of a supervisor that was killed; before replicas of our own carry its marks
        self._tell()
        on_begin()
        while not self._fleet.ended:
            self._look_for_orders()
            for action in self._fleet.decide(self._clock.now_ns()):
                self._act(action)
            self._ask()
            self._keep_house()
            self._tell()
            for key, _ in self._selector.select(_TICK_S):
                key.data()
        self._tell(ended=True)
        self._kept.release_all()

    def _tell(self, ended: bool = False) -> None:
        """The revision is the one that is written down: an update may take the next number at any time."""
        if not self._is_gone:
            self._told.tell(replace(self._fleet.view(), revision=self._known), ended)

    # -- orders -----------------------------------------------------------------------------------------------------

    def _look_for_orders(self) -> None:
        if not self._folder.is_locked_by(self._lock):
            self._is_gone = True
            self._fleet.stop("its folder is gone")
            return
        if self._folder.is_to_stop:
            self._fleet.stop("it is stopped")
        stamp = _stamp(self._folder.definition_file)
        if stamp != self._seen:
            self._seen = stamp
            self._read_definition()
        revision, definition = self._fleet.asked_for
        if revision != self._known:
            self._write_back(revision, definition)

    def _read_definition(self) -> None:
        try:
            revision, definition = self._folder.read()
        except ScoringError as error:
            logger.warning("the service goes on as it is: %s", error.message)
            return
        if revision != self._known:
            logger.info("revision %d is asked for: %s", revision, definition.reference or definition.entry_script)
            self._known = revision
            self._kept.hold(definition)
            self._fleet.revise(revision, definition)

    def _write_back(self, revision: int, definition: ServiceDefinition) -> None:
        """After a refused revision: what is written down is what runs, for the next supervisor too.

        Tried again until it is, or until an update has taken the number.
        """
        is_first = self._unwritten != revision
        self._unwritten = revision
        if is_first:
            refused = self._fleet.view().refused
            logger.error("revision %d is refused: %s", self._known, refused.reason if refused else "")
        try:
            with self._folder.changing_if_free() as free:
                if free and self._folder.read()[0] == self._known:
                    self._folder.write(revision, definition)
                    self._known, self._seen = revision, _stamp(self._folder.definition_file)
        except (OSError, ScoringError) as error:
            if is_first:
                logger.warning("revision %d could not be written down yet: %s", revision, error)

    # -- actions ----------------------------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        if isinstance(action, Start):
            self._start(action)
        elif (process := self._replicas.get(action.serial)) is None:
            return
        elif isinstance(action, Drain):
            process.process.send_signal(signal.SIGINT if action.at_once else signal.SIGTERM)
        else:
            logger.warning("replica %d %s", self._serial_slots[action.serial], action.why)
            process.kill()

    def _start(self, action: Start) -> None:
        log_path = logs.replica_log(self._folder.log, action.slot)
        cores = replica.cores_of(action.runs, action.slot, self._cores)
        log = _open_log(log_path)
        try:
            mark = mark_of(self._folder.path, action.serial)
            started = replica.start(action.runs, action.slot, self._folder.keys, self._ports.http, log, cores, mark)
        except OSError as error:
            logger.error("replica %d cannot be started: %s", action.slot, error)
            self._fleet.exited(action.serial, 1, self._clock.now_ns())
            return
        finally:
            os.close(log)
        logs.mark_start(log_path, f"process {started.pid}, {action.runs.reference or action.runs.entry_script}")
        self._fleet.started(action.serial, started.pid)
        self._replicas[action.serial] = started
        self._serial_slots[action.serial] = action.slot
        self._unready.add(action.serial)
        self._selector.register(started.exits, selectors.EVENT_READ, lambda: self._ended(action.serial))
        self._selector.register(started.line, selectors.EVENT_READ, lambda: self._hear(action.serial))

    def _ended(self, serial: int) -> None:
        ended = self._replicas.pop(serial)
        self._unready.discard(serial)
        self._selector.unregister(ended.exits)
        with suppress(KeyError):  # it is unregistered when the other end is closed
            self._selector.unregister(ended.line)
        status = ended.close()
        logger.info("replica %d (process %d) ended: %d", self._serial_slots.pop(serial), ended.pid, status)
        self._fleet.exited(serial, status, self._clock.now_ns())

    def _ask(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._asked_ns >= _ASK_NS:
            self._asked_ns = now_ns
            for process in self._replicas.values():
                process.ask()

    def _hear(self, serial: int) -> None:
        if (heard := self._replicas.get(serial)) is None:  # it ended in the same moment
            return
        report = heard.hear()
        if report is None:
            if heard.is_closed:
                self._selector.unregister(heard.line)
            return
        self._fleet.answered(serial, report, self._clock.now_ns())
        if report.ready and serial in self._unready:
            self._unready.discard(serial)
            logs.mark_ready(logs.replica_log(self._folder.log, self._serial_slots[serial]))

    # -- house ------------------------------------------------------------------------------------------------------

    def _keep_house(self) -> None:
        now_ns = self._clock.now_ns()
        if self._is_gone or now_ns - self._kept_ns < _HOUSEKEEPING_NS:
            return
        self._kept_ns = now_ns
        for log in self._folder.log.glob("*.log"):
            logs.keep_small(log)
        _, definition = self._fleet.asked_for
        if definition.memory_gb_limit is not None:
            for serial, process in self._replicas.items():
                self._fleet.measured(serial, resident_bytes(process.pid))
        if self._fleet.view().state is State.HEALTHY:  # nobody runs other revisions any more, unless one drains
            self._kept.forget_all_but(self._fleet.asked_for[0], self._fleet.in_use)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ino, about.st_size


def _open_log(path: Path) -> int:
    """Where it cannot be opened, a replica writes nowhere, and serves."""
    try:
        return logs.open_log(path)
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error)
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
