"""All services of a folder: whole or not there, found by name, and removed."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.registry import Services, services_root
from accelserve.errors import Kind, ScoringError

NUMBERS = ServiceDefinition("numbers", "m", 1, "/store", replicas=1)


@pytest.fixture
def services(tmp_path):
    return Services(tmp_path / "services")


def make(services, definition=NUMBERS):
    return services.create(definition, lambda made: definition)


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def nobody(folder):
    """Ends the supervisor of a service that has none."""


def refused(kind, call, *arguments):
    with pytest.raises(ScoringError) as raised:
        call(*arguments)
    assert raised.value.kind is kind
    return raised.value.message


def test_the_folder_is_the_users_unless_it_is_named(tmp_path):
    assert services_root({"ACCELSERVE_SERVICES": "/srv/services"}) == Path("/srv/services")
    assert services_root({"XDG_DATA_HOME": "/data"}) == Path("/data/accelserve/services")
    assert services_root({"HOME": "/home/ann", "ACCELSERVE_STORE": "/x"}) == Path(
        "/home/ann/.local/share/accelserve/services"
    )


def test_a_new_service_is_its_owners_alone_and_is_read_back(services):
    folder = make(services)
    assert folder.read() == (1, NUMBERS)
    assert (services.root.stat().st_mode & 0o777, folder.path.stat().st_mode & 0o777) == (0o700, 0o700)
    assert services.names() == ["numbers"]
    assert services.find("numbers") == folder


def test_a_name_is_given_once(services):
    make(services)
    assert "say --overwrite" in refused(Kind.CONFLICT, make, services)
    assert os.listdir(services.root) == ["numbers"]


def test_what_fails_while_it_is_made_leaves_nothing(services):
    def fails(made):
        (made.path / "app-1").mkdir()
        raise OSError(28, "No space left on device", str(made.path))

    assert "make room" in refused(Kind.CONFLICT, services.create, NUMBERS, fails)
    assert os.listdir(services.root) == []


def test_what_a_killed_command_left_is_swept_by_the_next(services):
    make(services)
    for left in (".new-abc", ".gone-abc"):
        (services.root / left / "log").mkdir(parents=True)
    make(services, ServiceDefinition("others", "m", 1, replicas=1))
    assert sorted(os.listdir(services.root)) == ["numbers", "others"]


def test_what_is_no_service_is_none(services):
    make(services)
    (services.root / "lost+found").mkdir()
    assert services.names() == ["numbers"]
    assert "there is: numbers" in refused(Kind.NOT_FOUND, services.find, "lost+found")
    assert "there is: numbers" in refused(Kind.NOT_FOUND, services.find, "../numbers")


def test_a_removed_service_is_gone_and_its_name_free(services):
    services.remove(make(services), nobody)
    assert os.listdir(services.root) == []
    make(services)


def test_on_a_full_disk_a_service_can_be_removed(services, monkeypatch):
    folder = make(services)
    monkeypatch.setattr("tempfile.mkdtemp", full_disk)
    services.remove(folder, nobody)
    assert os.listdir(services.root) == []


def test_a_supervisor_that_was_started_while_its_service_is_removed_is_ended_by_its_moved_lock(services):
    folder = make(services)
    lock = folder.take_lock()
    living = []
    services.remove(folder, lambda moved: living.append((moved.name, moved.supervisor())))
    assert living == [("numbers", os.getpid())]
    assert os.listdir(services.root) == []
    os.close(lock)


def test_what_is_just_being_made_is_swept_by_nobody(services, monkeypatch):
    make(services)
    swept = threading.Thread(target=make, args=(services, ServiceDefinition("others", "m", 1, replicas=1)))
    mkdtemp = tempfile.mkdtemp

    def slow(**where):
        made = mkdtemp(**where)
        if not swept.ident:
            swept.start()
            swept.join(0.2)  # it waits until what is made here is locked
            assert os.path.isdir(made)
        return made

    monkeypatch.setattr("tempfile.mkdtemp", slow)
    make(services, ServiceDefinition("thirds", "m", 1, replicas=1))
    swept.join(10)
    assert sorted(os.listdir(services.root)) == ["numbers", "others", "thirds"]


def test_the_services_of_a_model_are_known_running_or_not(services, tmp_path):
    make(services)
    make(services, ServiceDefinition("others", "m", 2, "/store", replicas=1))
    damaged = make(services, ServiceDefinition("damaged", "m", 1, "/store", replicas=1))
    damaged.definition_file.write_text("{")
    assert services.users_of(Path("/store"), "m", 1) == ["numbers"]
    assert services.users_of(Path("/store/../store"), "m", 2) == ["others"]
    assert services.users_of(tmp_path, "m", 1) == []
