"""A service's folder: whole or not there, its owner's alone, and told of when it is damaged."""

import fcntl
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.folder import Services, replace_soon, services_root
from accelserve.durable_files import lock_if_free
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


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"revision": 1}', b'{"revision": "x", "definition": {}}', b"\xff\xfe", b"1" * 9999],
)
def test_a_damaged_definition_is_told_of_with_the_remedy(services, content):
    folder = make(services)
    folder.definition_file.write_bytes(content)
    assert "delete the service, or put the file back" in refused(Kind.CONFLICT, folder.read)


def test_a_removed_service_is_gone_and_its_name_free(services):
    services.remove(make(services), nobody)
    assert os.listdir(services.root) == []
    make(services)


def test_on_a_full_disk_a_service_can_be_removed(services, monkeypatch):
    folder = make(services)
    monkeypatch.setattr("tempfile.mkdtemp", full_disk)
    services.remove(folder, nobody)
    assert os.listdir(services.root) == []


def test_the_lock_says_whether_a_supervisor_lives(services):
    folder = make(services)
    assert folder.supervisor() is None
    lock = folder.take_lock()
    assert folder.supervisor() == os.getpid()
    assert folder.take_lock(sleep=lambda _: None) is None
    os.close(lock)
    assert folder.supervisor() is None


def test_a_supervisor_whose_number_cannot_be_read_lives_all_the_same(services):
    folder = make(services)
    lock = folder.take_lock()
    os.ftruncate(lock, 0)
    assert folder.supervisor() == 0
    os.close(lock)


def test_who_only_looks_whether_a_supervisor_lives_keeps_none_from_beginning(services):
    folder = make(services)
    os.close(folder.take_lock())
    looks = os.open(folder.path / "supervisor.lock", os.O_RDONLY)
    assert lock_if_free(looks, fcntl.LOCK_SH)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            os.close(looks)

    lock = folder.take_lock(sleep)
    assert (lock is not None, len(waits)) == (True, 3)
    os.close(lock)


def test_a_supervisor_sees_whether_the_folder_still_is_its_own(services):
    folder = make(services)
    lock = folder.take_lock()
    assert folder.is_locked_by(lock)
    services.remove(folder, nobody)
    assert not folder.is_locked_by(lock)
    anew = make(services)
    assert not anew.is_locked_by(lock)
    second = anew.take_lock()
    assert (anew.is_locked_by(second), anew.is_locked_by(lock)) == (True, False)
    os.close(lock)
    os.close(second)


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


def test_who_changes_keeps_others_from_changing(services):
    folder = make(services)
    with folder.changing(), folder.changing_if_free() as free:
        assert not free
    with folder.changing_if_free() as free:
        assert free


def test_the_services_of_a_model_are_known_running_or_not(services, tmp_path):
    make(services)
    make(services, ServiceDefinition("others", "m", 2, "/store", replicas=1))
    damaged = make(services, ServiceDefinition("damaged", "m", 1, "/store", replicas=1))
    damaged.definition_file.write_text("{")
    assert services.users_of(Path("/store"), "m", 1) == ["numbers"]
    assert services.users_of(Path("/store/../store"), "m", 2) == ["others"]
    assert services.users_of(tmp_path, "m", 1) == []


def test_scripts_of_other_revisions_are_removed(services):
    folder = make(services)
    for revision in (1, 2, 3):
        folder.app(revision).mkdir()
    folder.remove_apps_but(folder.app(2) / "score.py", folder.app(3) / "src" / "score.py")
    assert sorted(path.name for path in folder.path.glob("app-*")) == ["app-2", "app-3"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path):
    path = tmp_path / "state.json"
    replace_soon(path, b"{}")
    (tmp_path / ".state.json.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_soon(path, b"[]")
    assert json.loads(path.read_bytes()) == {}
