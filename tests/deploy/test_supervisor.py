"""What a supervisor makes of its folder: updates, refusals that are written down, a folder that is gone."""

import os
from dataclasses import replace

import pytest

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.folder import ServiceFolder
from accelserve.deploy.processes import Report, Start
from accelserve.deploy.registry import Services
from accelserve.deploy.services import delete, deploy
from accelserve.deploy.states import State
from accelserve.deploy.status import status_of
from accelserve.deploy.supervisor import Supervisor
from accelserve.errors import ExitCode

S = 1_000_000_000
ONE = ServiceDefinition("numbers", entry_script="/s/app-1/score.py", replicas=1)
BROKEN = replace(ONE, entry_script="/s/app-2/score.py")
OTHER = replace(ONE, entry_script="/s/app-3/score.py")


class Hand:
    now = 0

    def now_ns(self) -> int:
        return self.now


class Played:
    """A supervisor whose processes are played, and which is moved on by hand."""

    def __init__(self, services: Services) -> None:
        self.clock = Hand()
        self.folder = services.create(ONE, lambda _: ONE)
        self.lock = self.folder.take_lock()
        self.supervisor = Supervisor(self.folder, self.lock, None, self.clock)
        self.fleet = self.supervisor._fleet

    def tick(self) -> list[object]:
        self.clock.now += S
        self.supervisor._look_for_orders()
        actions = self.fleet.decide(self.clock.now)
        self.supervisor._keep_house()
        self.supervisor._tell()
        return actions

    def get_ready(self, serial: int) -> None:
        self.fleet.answered(serial, Report(True), self.clock.now)

    def refuse_second(self) -> None:
        """Revision 2 does not load."""
        self.folder.write(2, BROKEN)
        assert [type(action) for action in self.tick()] == [Start]
        self.fleet.exited(2, ExitCode.LOAD_FAILED, self.clock.now)


@pytest.fixture
def played(tmp_path):
    made = Played(Services(tmp_path / "services"))
    assert [type(action) for action in made.tick()] == [Start]
    made.get_ready(1)
    yield made
    os.close(made.lock)


def test_what_is_refused_is_written_down_as_what_runs(played):
    played.refuse_second()
    played.tick()
    assert played.folder.read() == (3, ONE)
    assert status_of(played.folder, played.clock.now).view.revision == 3


def test_an_update_during_a_refusal_is_taken_under_its_number(played):
    played.refuse_second()
    with played.folder.changing():
        played.tick()
        told = status_of(played.folder, played.clock.now).view
        assert (told.revision, told.refused.revision, told.state) == (2, 2, State.HEALTHY)
        played.folder.write(3, OTHER)
    (started,) = played.tick()
    assert (started.runs, played.fleet.asked_for) == (OTHER, (3, OTHER))
    assert played.folder.read() == (3, OTHER)


def test_a_refusal_that_finds_a_full_disk_is_written_down_later(played, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    played.refuse_second()
    with monkeypatch.context() as disk:
        disk.setattr(ServiceFolder, "write", full)
        played.tick()
    assert played.folder.read() == (2, BROKEN)
    played.tick()
    assert played.folder.read() == (3, ONE)


@pytest.mark.parametrize("there_is_another", [False, True])
def test_a_supervisor_whose_folder_is_gone_ends_and_touches_no_other(played, tmp_path, there_is_another):
    services = Services(tmp_path / "services")
    services.remove(played.folder, lambda _: None)
    if there_is_another:
        services.create(OTHER, lambda _: OTHER)
        os.close(played.folder.take_lock())
    played.tick()
    assert played.fleet.view().reason == "ends: its folder is gone"
    played.fleet.exited(1, 0, played.clock.now)
    played.tick()
    assert played.fleet.ended
    assert played.folder.path.exists() == there_is_another
    assert not played.folder.state.exists()


class Hold:
    is_held = True

    def release(self) -> None:
        self.is_held = False


def test_what_a_draining_replica_uses_is_kept_until_it_has_ended(played, monkeypatch):
    scripts = {revision: played.folder.app(revision) / "score.py" for revision in (2, 3)}
    holds = {}

    def hold(_, model, version, holder):
        return holds.setdefault(version, Hold())

    monkeypatch.setattr("accelserve.deploy.keeping.ModelStore.hold", hold)
    for revision in (2, 3):
        scripts[revision].parent.mkdir()
        asked = replace(ONE, entry_script=str(scripts[revision]), model="m", version=revision, store="/store")
        played.folder.write(revision, asked)
        played.tick()
        played.get_ready(revision)
        played.tick()
        if revision == 2:
            played.fleet.exited(1, 0, played.clock.now)
    assert status_of(played.folder, played.clock.now).view.state is State.HEALTHY
    played.tick()  # revision 2 still drains
    assert sorted(path.name for path in played.folder.path.glob("app-*")) == ["app-2", "app-3"]
    assert (holds[2].is_held, holds[3].is_held) == (True, True)
    played.fleet.exited(2, 0, played.clock.now)
    played.tick()
    assert [path.name for path in played.folder.path.glob("app-*")] == ["app-3"]
    assert (holds[2].is_held, holds[3].is_held) == (False, True)


def test_a_deploy_that_is_broken_off_stops_what_it_started_before_it_removes(tmp_path, monkeypatch):
    services, order = Services(tmp_path / "services"), []

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("accelserve.deploy.services.launch", interrupted)
    monkeypatch.setattr("accelserve.deploy.services.stop", lambda folder: order.append(folder.path.exists()))
    with pytest.raises(KeyboardInterrupt):
        deploy(services, replace(ONE, entry_script="", auth="none"), {})
    assert order == [True, True]  # before the rename, and what was moved aside
    assert services.names() == []


def test_who_deletes_ends_a_supervisor_that_was_started_meanwhile(tmp_path, monkeypatch):
    services = Services(tmp_path / "services")
    folder, stopped = services.create(ONE, lambda _: ONE), []

    def stop(service):
        stopped.append((service.path == folder.path, service.supervisor()))
        if len(stopped) == 1:
            stopped.append(folder.take_lock())

    monkeypatch.setattr("accelserve.deploy.services.stop", stop)
    delete(services, folder)
    assert stopped == [(True, None), stopped[1], (False, os.getpid())]
    os.close(stopped[1])
