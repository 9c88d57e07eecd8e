"""A version that somebody uses is not deleted, and the deleter is told who it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import accelserve
from accelserve.errors import Kind, ScoringError
from accelserve.models.store import ModelStore
from model_builders import synthetic_model

HOLDS = """
import os, sys
from pathlib import Path
from accelserve.models.store import ModelStore
hold = ModelStore(Path(sys.argv[1])).hold("m", 1, "a server on port 8501")
print("held", flush=True)
sys.stdin.readline()
os._exit(1)
"""


@pytest.fixture
def store(tmp_path):
    store = ModelStore(tmp_path / "store")
    for _ in range(2):
        store.register("m", synthetic_model(tmp_path / "m.synthetic.toml"))
    return store


def refused(store, version=1):
    with pytest.raises(ScoringError) as caught:
        store.delete("m", version)
    assert caught.value.kind is Kind.CONFLICT
    return caught.value.message


def test_a_held_version_is_kept_and_every_holder_named(store):
    store.hold("m", 1, "first")
    store.hold("m", 1, "second")
    message = refused(store)
    assert f"in use by first (process {os.getpid()})" in message
    assert "in use by second" in message
    assert store.find("m", 1).path.is_dir()


def test_other_versions_are_not_kept_by_a_hold(store):
    store.hold("m", 1, "first")
    store.delete("m", 2)


def test_a_version_can_be_deleted_when_the_last_holder_has_released_it(store):
    first, second = (store.hold("m", 1, who) for who in ("first", "second"))
    first.release()
    first.release()
    assert "second" in refused(store)
    second.release()
    assert store.users("m", 1) == ()
    store.delete("m", 1)
    assert list((store.root / "m" / ".registry").glob("1.*")) == []


def test_a_hold_ends_though_its_name_cannot_be_removed_any_more(store, monkeypatch):
    def read_only(path, missing_ok=False):
        raise OSError(30, "Read-only file system", str(path))

    hold = store.hold("m", 1, "first")
    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", read_only)
        hold.release()
    store.delete("m", 1)


def test_a_hold_lasts_while_tags_change(store):
    hold = store.hold("m", 1, "server")
    store.update("m", 1, {"stage": "production"})
    assert "server" in refused(store)
    hold.release()


def test_what_is_not_there_cannot_be_held(store):
    with pytest.raises(ScoringError, match="has no m:7; m has: 2, 1") as caught:
        store.hold("m", 7, "server")
    assert caught.value.kind is Kind.NOT_FOUND
    assert not list((store.root / "m" / ".registry").glob("7.*"))


def test_a_hold_is_given_up_by_the_kernel_when_its_process_dies(store):
    environment = {**os.environ, "PYTHONPATH": str(Path(accelserve.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDS, str(store.root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert f"in use by a server on port 8501 (process {process.pid})" in refused(store)
        assert store.users("m", 1) == (f"in use by a server on port 8501 (process {process.pid})",)
        process.communicate("die\n", timeout=30)
    assert store.users("m", 1) == ()
    store.delete("m", 1)


def test_a_version_in_a_store_that_cannot_be_written_is_held_without_a_name(store, monkeypatch):
    """A read-only mount: the lock is taken on a file that is only read, and the entry cannot be made."""

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("tempfile.mkstemp", read_only)
        hold = store.hold("m", 1, "container")
    assert "a process that could not write its name" in refused(store)
    hold.release()
    store.delete("m", 1)


def test_a_holder_whose_entry_is_half_written_still_holds(store):
    store.hold("m", 1, "server")
    next((store.root / "m" / ".registry").glob("1.hold.*")).write_text("{half a li")
    assert "in use by another process" in refused(store)


def test_a_version_that_goes_between_the_look_and_the_lock_is_not_held(store, monkeypatch):
    found = store.find("m", 1)
    store.delete("m", 1)
    monkeypatch.setattr(store, "find", lambda *_: found)
    with pytest.raises(ScoringError, match="was deleted") as caught:
        store.hold("m", 1, "server")
    assert caught.value.kind is Kind.NOT_FOUND
    assert not list((store.root / "m" / ".registry").glob("1.hold.*"))


def test_the_names_of_holders_that_were_killed_do_not_pile_up(store):
    environment = {**os.environ, "PYTHONPATH": str(Path(accelserve.__file__).parents[1])}
    for _ in range(2):
        command = [sys.executable, "-c", HOLDS, str(store.root)]
        subprocess.run(command, env=environment, input=b"\n", stdout=subprocess.DEVNULL, timeout=30, check=False)
    alive = store.hold("m", 1, "alive")
    store.hold("m", 1, "another").release()
    assert len(list((store.root / "m" / ".registry").glob("1.hold.*"))) == 1
    assert "in use by alive" in refused(store)
    alive.release()
