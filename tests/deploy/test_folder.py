"""A service's folder: who lives in it, who may change it, and what is told of it when it is damaged."""

import fcntl
import json
import os

import pytest

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.folder import replace_soon
from accelserve.deploy.registry import Services
from accelserve.durable_files import lock_if_free
from accelserve.errors import Kind, ScoringError

NUMBERS = ServiceDefinition("numbers", "m", 1, "/store", replicas=1)


@pytest.fixture
def services(tmp_path):
    return Services(tmp_path / "services")


def make(services):
    return services.create(NUMBERS, lambda made: NUMBERS)


def refused(kind, call, *arguments):
    with pytest.raises(ScoringError) as raised:
        call(*arguments)
    assert raised.value.kind is kind
    return raised.value.message


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"1" * 9999, b"[" * 99999),
        *(b'{"revision": 1}', b'{"revision": "x", "definition": {}}'),
    ],
)
def test_a_damaged_definition_is_told_of_with_the_remedy(services, content):
    folder = make(services)
    folder.definition_file.write_bytes(content)
    assert "delete the service, or put the file back" in refused(Kind.CONFLICT, folder.read)


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
    services.remove(folder, lambda _: None)
    assert not folder.is_locked_by(lock)
    anew = make(services)
    assert not anew.is_locked_by(lock)
    second = anew.take_lock()
    assert (anew.is_locked_by(second), anew.is_locked_by(lock)) == (True, False)
    os.close(lock)
    os.close(second)


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"revision": 0}, "'revision': got 0"),
        ({"revision": 1.5}, "'revision': got 1.5"),
        ({"revision": True}, "'revision': got True"),
        ({"definition": {"name": "others"}}, "it is of service 'others'"),
        ({"definition": {"name": "numbers", "colour": "red"}}, "'colour': unknown key"),
        ({"definition": {"name": "numbers", "model": "m", "replicas": 1, "http_port": -1}}, "http_port: want a port"),
    ],
)
def test_a_definition_that_says_what_cannot_be_is_damaged(services, about, told):
    folder = make(services)
    document = json.loads(folder.definition_file.read_bytes())
    folder.definition_file.write_text(json.dumps({**document, **about}))
    assert told in refused(Kind.CONFLICT, folder.read)


def test_a_service_that_was_deleted_meanwhile_cannot_be_changed(services):
    folder = make(services)
    services.remove(folder, lambda _: None)
    with pytest.raises(ScoringError, match='there is no service "numbers"') as raised, folder.changing():
        pass
    assert raised.value.kind is Kind.NOT_FOUND


def test_who_changes_keeps_others_from_changing(services):
    folder = make(services)
    with folder.changing(), folder.changing_if_free() as free:
        assert not free
    with folder.changing_if_free() as free:
        assert free


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
