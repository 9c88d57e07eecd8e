"""Locks, and files that are replaced as a whole."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from accelserve.durable_files import flush_tree, lock_if_free, locked, move, write_whole


def test_a_file_is_replaced_as_a_whole_and_can_be_read_by_others(tmp_path):
    path = tmp_path / "record.json"
    write_whole(path, b"old")
    with path.open("rb") as reader:
        write_whole(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_written_for_its_owner_alone(tmp_path):
    write_whole(tmp_path / "keys.json", b"secret", mode=0o600)
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("failing", ["fsync", "fchmod"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    write_whole(tmp_path / "record.json", b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            write_whole(tmp_path / "record.json", b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"record.json": b"old"}


def test_content_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    (tmp_path / "new" / "deep").mkdir(parents=True)
    (tmp_path / "new" / "deep" / "file").touch()
    flush_tree(tmp_path / "new")
    assert sorted(order) == [str(tmp_path / place) for place in ("new", "new/deep", "new/deep/file")]
    order.clear()
    move(tmp_path / "new", tmp_path / "named")
    assert order == [str(tmp_path)]


def test_a_lock_makes_others_wait_and_is_given_up_at_the_end(tmp_path):
    entered = threading.Event()

    def wait_for_it():
        with locked(tmp_path / "lock"):
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "lock"):
            waiting = pool.submit(wait_for_it)
            with (tmp_path / "lock").open() as other:
                assert not lock_if_free(other.fileno())
            assert not entered.is_set()
        waiting.result(10)
    with (tmp_path / "lock").open() as other:
        assert lock_if_free(other.fileno())
