"""The supervisor's decisions, with a played process table and a clock of our own."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from accelserve.deploy.definition import Autoscale, ServiceDefinition
from accelserve.deploy.fleet import Fleet
from accelserve.deploy.processes import Drain, Kill, Patience, Report, Start
from accelserve.deploy.states import Phase, State
from accelserve.errors import ExitCode

S = 1_000_000_000
TWO = ServiceDefinition("digits-service", "digits", 1, "/store", replicas=2)
NEXT = replace(TWO, version=2)
PATIENCE = Patience()
SIGKILL = -9


@dataclass
class Machine:
    """Does what the fleet decides: processes that get ready, drain and die when the test says so."""

    fleet: Fleet
    now_ns: int = 0
    running: dict[int, Start] = field(default_factory=dict)
    draining: set[int] = field(default_factory=set)
    killed: list[Kill] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    load: dict[int, int] = field(default_factory=dict)  # requests in flight
    mute: set[int] = field(default_factory=set)

    def pass_time(self, seconds: float = 1.0, step: float = 1.0) -> None:
        """Ready replicas answer all the while."""
        end_ns = self.now_ns + int(seconds * S)
        while self.now_ns < end_ns:
            self.now_ns += int(step * S)
            self.ask()
            self.tick()

    def ask(self) -> None:
        for serial in self.running.keys() - self.mute:
            report = Report(serial in self.ready, "loading", self.load.get(serial, 0))
            self.fleet.answered(serial, report, self.now_ns)

    def tick(self) -> list[object]:
        actions = self.fleet.decide(self.now_ns)
        for action in actions:
            if isinstance(action, Start):
                self.running[action.serial] = action
                self.fleet.started(action.serial, 1000 + action.serial)
            elif isinstance(action, Drain):
                self.draining.add(action.serial)
            else:
                self.killed.append(action)
        return actions

    def get_ready(self, *serials: int) -> None:
        self.ready |= set(serials) or self.running.keys()
        self.ask()
        self.tick()

    def end(self, serial: int, status: int) -> None:
        del self.running[serial]
        self.draining.discard(serial)
        self.ready.discard(serial)
        self.fleet.exited(serial, status, self.now_ns)

    def drained(self) -> None:
        """All that were asked to end have ended."""
        for serial in sorted(self.draining):
            self.end(serial, 0)
        self.tick()

    @property
    def state(self) -> State:
        return self.fleet.view().state

    @property
    def reason(self) -> str:
        return self.fleet.view().reason

    @property
    def slots(self) -> list[int]:
        return sorted(start.slot for serial, start in self.running.items() if serial not in self.draining)

    @property
    def versions(self) -> list[int | None]:
        return [start.runs.version for serial, start in sorted(self.running.items()) if serial not in self.draining]


def machine(definition: ServiceDefinition = TWO, patience: Patience = PATIENCE) -> Machine:
    made = Machine(Fleet(1, definition, patience))
    made.tick()
    return made


def healthy(definition: ServiceDefinition = TWO) -> Machine:
    made = machine(definition)
    made.get_ready()
    return made


def test_all_replicas_are_started_and_the_service_is_healthy_when_all_are_ready():
    m = machine()
    assert m.slots == [0, 1]
    assert (m.state, m.reason) == (State.TRANSITIONING, "0 of 2 replicas ready")
    m.get_ready(1)
    assert (m.state, m.reason) == (State.TRANSITIONING, "1 of 2 replicas ready")
    m.get_ready(2)
    assert (m.state, m.reason) == (State.HEALTHY, "2 of 2 replicas ready")


def test_a_replica_that_is_killed_is_started_again_at_once_and_the_state_says_so():
    m = healthy()
    m.pass_time(5)
    m.end(2, SIGKILL)
    m.tick()
    assert m.slots == [0, 1]
    assert m.state is State.UNHEALTHY
    assert m.reason == "1 of 2 replicas ready; replica 1 was killed by SIGKILL"
    m.get_ready()
    assert m.state is State.HEALTHY
    assert [replica.restarts for replica in m.fleet.view().replicas] == [0, 1]


def test_a_replica_that_dies_again_and_again_waits_longer_each_time():
    m = healthy()
    waits = []
    for _ in range(9):
        serial = max(m.running)
        m.end(serial, 1)
        began = m.now_ns
        while len(m.running) < 2:
            m.pass_time(0.5, 0.5)
        waits.append((m.now_ns - began) / S)
        m.get_ready()
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60])


def test_a_long_life_ends_the_waiting():
    m = healthy()
    for _ in range(4):
        m.end(max(m.running), 1)
        m.pass_time(20)
        m.get_ready()
    m.pass_time(61)
    m.end(max(m.running), 1)
    m.tick()
    assert m.slots == [0, 1]


def test_a_waiting_replica_is_shown_with_how_it_ended():
    m = healthy()
    for _ in range(3):
        m.end(max(m.running), 1)
        m.pass_time(2)
        m.get_ready()
    m.end(max(m.running), 1)
    m.tick()
    waiting = m.fleet.view().replicas[1]
    assert (waiting.phase, waiting.pid, waiting.restarts) == (Phase.WAITING, None, 4)
    assert waiting.reason == "ended with 1 (something unforeseen happened)"


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6])
def test_a_mistake_that_lasts_ends_the_service_with_its_code_and_not_in_a_loop(code):
    m = machine()
    m.end(1, code)
    m.tick()
    assert m.draining == {2}
    m.drained()
    m.pass_time(600, 10)
    assert m.running == {}
    assert m.fleet.ended
    view = m.fleet.view()
    assert (view.state, view.exit_code) == (State.FAILED, code)
    assert view.reason.startswith(f"replica 0 ended with {code} (")


def test_the_same_code_after_a_life_is_a_reason_to_start_again():
    """A lost device ends a server with 6: a new process is what it needs."""
    m = healthy()
    m.pass_time(100)
    m.end(1, ExitCode.DEVICE_MISSING)
    m.tick()
    assert m.slots == [0, 1]
    assert m.state is State.UNHEALTHY


def test_what_never_gets_ready_is_given_up_after_five_starts():
    m = machine(replace(TWO, replicas=1))
    for _ in range(5):
        m.end(max(m.running), SIGKILL)
        m.pass_time(30)
    assert m.fleet.ended
    assert m.state is State.FAILED
    assert m.reason == "replica 0 was killed by SIGKILL (5 starts, none got ready)"
    assert m.fleet.view().exit_code == ExitCode.UNFORESEEN


def test_a_replica_that_does_not_get_ready_in_time_is_killed():
    m = machine(patience=Patience(start_s=100))
    m.get_ready(1)
    m.pass_time(100)
    assert [(kill.serial, kill.why) for kill in m.killed] == [(2, "was killed: it did not get ready within 100 s")]
    m.end(2, SIGKILL)
    assert m.reason.endswith("replica 1 was killed: it did not get ready within 100 s")


def test_a_replica_that_answers_no_more_is_killed_once():
    m = healthy()
    m.mute.add(1)
    m.pass_time(29)
    assert m.killed == []
    m.pass_time(10)
    assert [kill.serial for kill in m.killed] == [1]


def test_a_replica_that_is_silent_is_soon_not_taken_to_be_ready():
    m = healthy()
    m.mute.add(1)
    m.pass_time(4)
    assert m.state is State.HEALTHY
    m.pass_time(1)
    assert (m.state, m.reason) == (State.UNHEALTHY, "1 of 2 replicas ready; replica 0: it does not answer")
    m.mute.clear()
    m.pass_time(1)
    assert m.state is State.HEALTHY


def test_a_replica_that_is_not_ready_for_long_is_drained_when_its_successor_is_ready():
    m = healthy()
    m.ready.discard(1)
    m.pass_time(59)
    assert (m.state, len(m.running)) == (State.UNHEALTHY, 2)
    assert m.reason == "1 of 2 replicas ready; replica 0: loading"
    m.pass_time(2)
    assert (len(m.running), m.draining) == (3, set())
    assert "replica 0 is replaced: it was not ready for 60 s (loading)" in m.reason
    m.get_ready(3)
    assert m.draining == {1}
    m.drained()
    assert m.state is State.HEALTHY
    assert m.fleet.view().replicas[0].restarts == 1


def test_replicas_over_their_memory_are_replaced_one_after_the_other():
    m = healthy(replace(TWO, memory_gb_limit=1.0))
    m.fleet.measured(1, 1_500_000_000)
    m.fleet.measured(2, 1_100_000_000)
    m.tick()
    assert (len(m.running), m.draining) == (3, set())
    assert "replica 0 is replaced: it uses 1.50 GB of the 1 GB that it may" in m.reason
    m.get_ready(3)
    assert m.draining == {1}
    m.drained()
    m.get_ready()
    assert m.draining == {2}
    m.drained()
    assert (m.state, m.slots) == (State.HEALTHY, [0, 1])


def too_large(m: Machine) -> None:
    for serial in m.running:
        m.fleet.measured(serial, 1_500_000_000)


def test_a_revision_that_passes_its_memory_while_it_starts_is_given_up():
    m = machine(replace(TWO, replicas=1, memory_gb_limit=1.0))
    for start in range(1, 6):
        too_large(m)
        m.pass_time(10)
        assert list(m.running) == [start]
        assert [kill.serial for kill in m.killed] == list(range(1, start + 1))
        m.end(start, SIGKILL)
        assert m.tick() == []
        m.pass_time(16)
    assert m.fleet.ended
    why = "was killed before it was ready: it uses 1.50 GB of the 1 GB that it may"
    assert (m.state, m.reason) == (State.FAILED, f"replica 0 {why} (5 starts, none got ready)")


def test_an_update_whose_memory_limit_is_too_small_is_refused():
    m = healthy(replace(TWO, replicas=1))
    m.fleet.revise(2, replace(TWO, replicas=1, memory_gb_limit=1.0))
    m.tick()
    for start in range(2, 7):
        too_large(m)
        m.pass_time(5)
        assert list(m.running) == [1, start]
        m.end(start, SIGKILL)
        m.pass_time(16)
    assert (m.state, list(m.running), m.draining) == (State.HEALTHY, [1], set())
    assert m.fleet.view().refused.revision == 2


def test_a_replica_that_always_grows_too_large_is_replaced_later_and_later():
    m = healthy(replace(TWO, replicas=1, memory_gb_limit=1.0))
    starts = []
    for _ in range(300):
        too_large(m)
        before = len(m.running)
        m.pass_time(1)
        assert len(m.running) <= 2
        if len(m.running) > before:
            starts.append(m.now_ns // S)
        m.get_ready()
        m.drained()
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits[:6] == sorted(waits[:6])
    assert waits[-1] >= 60
    assert m.state is State.UNHEALTHY


def test_the_memory_of_one_that_drains_is_not_looked_at():
    m = healthy(replace(TWO, memory_gb_limit=1.0))
    m.fleet.stop("it is stopped")
    m.tick()
    too_large(m)
    m.pass_time(5)
    assert (m.killed, m.fleet.view().replicas[0].restarts) == ([], 0)


def test_what_is_replaced_and_dies_before_comes_back_once():
    m = healthy(replace(TWO, memory_gb_limit=1.0))
    m.fleet.measured(1, 1_500_000_000)
    m.tick()
    m.end(1, SIGKILL)
    m.pass_time(5)
    assert m.slots == [0, 1]
    m.get_ready()
    assert m.state is State.HEALTHY


def test_a_replica_over_its_memory_on_an_exclusive_device_goes_first():
    m = healthy(replace(TWO, device="fpga", replicas=1, memory_gb_limit=1.0))
    m.fleet.measured(1, 1_500_000_000)
    m.tick()
    assert (len(m.running), m.draining) == (1, {1})
    m.pass_time(46)
    assert [kill.serial for kill in m.killed] == [1]
    m.end(1, SIGKILL)
    m.tick()
    assert m.slots == [0]


# -- updates --------------------------------------------------------------------------------------------------------


def test_an_update_replaces_one_replica_after_the_other_and_drains_only_what_has_a_ready_successor():
    m = healthy()
    m.fleet.revise(2, NEXT)
    m.tick()
    assert m.versions == [1, 1, 2]
    m.pass_time(20)
    assert m.versions == [1, 1, 2]
    assert (m.state, m.reason) == (State.TRANSITIONING, "0 of 2 replicas run revision 2")
    m.get_ready()
    assert m.versions == [1, 2, 2]
    m.get_ready()
    assert m.versions == [2, 2]
    m.drained()
    assert (m.state, m.fleet.view().revision) == (State.HEALTHY, 2)


def test_an_update_that_does_not_load_is_refused_and_the_old_revision_serves_on():
    m = healthy()
    m.fleet.revise(2, NEXT)
    m.tick()
    m.end(3, ExitCode.LOAD_FAILED)
    m.pass_time(200)
    assert m.versions == [1, 1]
    view = m.fleet.view()
    assert view.state is State.HEALTHY
    assert view.refused is not None
    assert (view.refused.revision, view.refused.exit_code) == (2, 3)
    assert "does not load" in view.refused.reason
    assert m.fleet.asked_for == (3, TWO)


def test_an_update_after_a_refused_one_is_taken():
    m = healthy()
    m.fleet.revise(2, NEXT)
    m.tick()
    m.end(3, ExitCode.LOAD_FAILED)
    m.fleet.revise(4, replace(TWO, version=3))
    m.tick()
    for _ in range(2):
        m.get_ready()
        m.drained()
    assert m.versions == [3, 3]
    assert m.fleet.view().refused is None


def test_an_update_to_what_runs_already_starts_nothing():
    m = healthy()
    m.fleet.revise(2, replace(TWO, replicas=3))
    m.tick()
    assert m.slots == [0, 1, 2]
    assert m.versions == [1, 1, 1]
    m.get_ready()
    assert m.state is State.HEALTHY


def test_fewer_replicas_drain_the_last_ones():
    m = healthy(replace(TWO, replicas=3))
    m.fleet.revise(2, replace(TWO, replicas=1))
    m.tick()
    assert m.draining == {2, 3}
    m.drained()
    assert (m.state, m.reason) == (State.HEALTHY, "1 of 1 replicas ready")


def test_more_replicas_share_out_named_devices_anew():
    m = healthy(replace(TWO, device="gpu:0,1", replicas=1))
    assert m.running[1].runs.device_of(0) == "gpu:0,1"
    m.fleet.revise(2, replace(TWO, device="gpu:0,1", replicas=2))
    for _ in range(4):
        m.pass_time(1)
        m.get_ready()
        m.drained()
    assert [start.runs.device_of(start.slot) for start in m.running.values() if start.slot == 0] == ["gpu:0"]
    assert 1 not in m.running


def test_where_a_device_is_exclusive_the_old_replica_ends_before_its_successor_starts():
    m = healthy(replace(TWO, device="fpga", replicas=1))
    m.fleet.revise(2, replace(NEXT, device="fpga", replicas=1))
    m.tick()
    assert (m.draining, len(m.running)) == ({1}, 1)
    m.pass_time(3)
    assert len(m.running) == 1
    m.drained()
    assert m.versions == [2]
    m.get_ready()
    assert m.state is State.HEALTHY


def test_a_refused_update_on_an_exclusive_device_brings_the_old_revision_back():
    m = healthy(replace(TWO, device="fpga", replicas=1))
    m.fleet.revise(2, replace(NEXT, device="fpga", replicas=1))
    m.tick()
    m.drained()
    m.end(2, ExitCode.LOAD_FAILED)
    m.tick()
    assert m.versions == [1]
    m.get_ready()
    assert m.state is State.HEALTHY
    assert m.fleet.view().refused is not None


def test_a_second_update_during_the_first_takes_over():
    m = healthy()
    m.fleet.revise(2, NEXT)
    m.tick()
    m.fleet.revise(3, replace(TWO, version=3))
    for _ in range(6):
        m.pass_time(1)
        m.get_ready()
        m.drained()
    assert m.versions == [3, 3]
    assert m.state is State.HEALTHY


def test_updates_that_come_faster_than_they_start_heap_up_no_processes():
    m = healthy()
    for revision in range(2, 12):
        m.fleet.revise(revision, replace(TWO, version=revision))
        m.pass_time(2)
        assert len(m.running) - len(m.draining) <= 4
        m.drained()
    m.get_ready()
    m.drained()
    m.get_ready()
    m.drained()
    assert (m.state, m.versions) == (State.HEALTHY, [11, 11])


def test_a_replica_that_dies_during_an_update_comes_back_in_the_new_revision():
    m = healthy()
    m.fleet.revise(2, NEXT)
    m.tick()
    m.get_ready()
    m.drained()
    m.end(2, SIGKILL)
    for _ in range(6):
        m.pass_time(1)
        m.get_ready()
        m.drained()
    assert m.versions == [2, 2]


# -- autoscale and the end ------------------------------------------------------------------------------------------

SCALED = replace(TWO, replicas=None, autoscale=Autoscale(1, 4, 50), max_concurrent=2)


def test_a_busy_service_grows_to_its_most_and_no_further():
    m = healthy(SCALED)
    assert m.slots == [0]
    m.load[1] = 3
    m.pass_time(1)
    assert m.slots == [0, 1, 2]
    assert m.state is State.HEALTHY
    m.get_ready()
    m.load = dict.fromkeys(m.running, 50)
    m.pass_time(2)
    assert m.slots == [0, 1, 2, 3]


def test_a_service_shrinks_only_when_it_was_quiet_for_a_minute():
    m = healthy(SCALED)
    m.load[1] = 3
    m.pass_time(2)
    m.get_ready()
    m.load.clear()
    m.pass_time(50)
    m.load[1] = 2
    m.pass_time(1)
    m.load.clear()
    m.pass_time(30)
    assert m.slots == [0, 1]
    m.pass_time(60)
    m.drained()
    assert m.slots == [0]
    assert m.state is State.HEALTHY


def test_a_service_that_is_stopped_drains_all_and_has_ended_when_they_have():
    m = healthy()
    m.fleet.stop("it is deleted")
    assert m.tick() == [Drain(1, at_once=True), Drain(2, at_once=True)]
    assert m.draining == {1, 2}
    assert m.state is State.TRANSITIONING
    assert not m.fleet.ended
    m.drained()
    assert m.fleet.ended
    m.pass_time(100)
    assert m.running == {}


def test_a_replica_that_dies_while_all_are_stopped_is_not_started_again():
    m = healthy()
    m.fleet.stop("told to stop", failed=True)
    m.tick()
    m.end(1, SIGKILL)
    m.pass_time(10)
    assert list(m.running) == [2]
    m.drained()
    assert (m.state, m.reason) == (State.FAILED, "told to stop")


def test_a_service_that_has_failed_and_still_drains_can_be_changed():
    m = machine()
    m.end(1, ExitCode.LOAD_FAILED)
    m.tick()
    assert m.state is State.FAILED
    m.fleet.revise(2, NEXT)
    m.drained()
    assert m.versions == [2, 2]
    m.get_ready()
    assert m.state is State.HEALTHY


def test_what_does_not_drain_is_killed():
    m = healthy()
    m.fleet.stop("it is deleted")
    m.tick()
    m.pass_time(46)
    assert {kill.serial for kill in m.killed} == {1, 2}


def test_what_runs_a_script_is_given_time_for_its_longest_run():
    m = healthy(replace(TWO, entry_script="/score.py", scoring_timeout_ms=100_000))
    m.fleet.stop("it is deleted")
    m.tick()
    m.pass_time(118)
    assert m.killed == []
    m.pass_time(3)
    assert {kill.serial for kill in m.killed} == {1, 2}


def test_a_supervisor_that_stood_still_blames_nobody_for_the_silence():
    m = healthy()
    m.now_ns += 3600 * S
    assert m.tick() == []
    m.ask()
    assert m.tick() == []
    m.mute.add(1)
    m.pass_time(31)
    assert [kill.serial for kill in m.killed] == [1]
