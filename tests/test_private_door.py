"""The folder of the socket by which an entry script's workers ask models: private, and not left behind."""

import os

import pytest

from accelserve.script_service import private_door


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Short enough for a socket's path."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("accelserve.script_service._MOST_SOCKET_PATH", 1000)
    return folder


def test_a_door_is_its_users_alone_and_is_gone_at_the_end(temporary):
    with private_door() as door, private_door() as other:
        assert door.path.parent.stat().st_mode & 0o777 == 0o700
        assert other.path.parent.is_dir()
        assert {door.path.parent.parent, other.path.parent.parent} == {temporary}
        assert door.key not in repr(door)
    assert os.listdir(temporary) == []


def test_what_a_killed_server_left_goes_when_the_next_begins_and_nothing_else(temporary, tmp_path):
    left = temporary / "accelserve-door-x"  # whose lock the kernel has given up
    left.mkdir()
    (left / "grpc").touch()
    (temporary / "accelserve-door-link").symlink_to(tmp_path)
    (temporary / "accelserve-other").mkdir()
    with private_door() as living, private_door():
        assert not left.exists()
        assert living.path.parent.is_dir()
    assert sorted(os.listdir(temporary)) == ["accelserve-door-link", "accelserve-other"]


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(temporary, monkeypatch):
    open_folder, swept = os.open, []

    def once_late(path, *flags, **where):
        if not swept:
            swept.append(path)
            os.rmdir(path)
        return open_folder(path, *flags, **where)

    monkeypatch.setattr("accelserve.script_service.os.open", once_late)
    with private_door() as door:
        assert door.path.parent.is_dir()
        assert door.path.parent != swept[0]
