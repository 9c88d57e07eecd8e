"""A vendor's compiled model: used as it was written, or made again."""

import errno

import pytest

from accelserve.backends.accel_onnx import compiled_folder
from accelserve.backends.accel_onnx.compiled_folder import kept_whole
from accelserve.errors import Kind, ScoringError


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "abc"
    made.mkdir()
    return made


def compile_into(folder) -> bool:
    """Whether it was compiled: the file was not there."""
    with kept_whole(folder):
        path = folder / "key" / "model.bin"
        if path.exists():
            return False
        path.parent.mkdir()
        path.write_bytes(b"compiled" * 100)
    return True


def test_what_was_left_is_found_again(folder):
    assert compile_into(folder)
    assert not compile_into(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"compiled" * 99 + b"compiler"),
        lambda path: (path.parent / "more.bin").write_bytes(b"x"),
        lambda path: (path.parents[1] / ".accelserve.json").unlink(),
        lambda path: (path.parents[1] / ".accelserve.json").write_text("{"),
    ],
    ids=["cut", "changed", "added", "unrecorded", "record damaged"],
)
def test_what_is_not_as_it_was_left_is_made_again(folder, damage, caplog):
    compile_into(folder)
    damage(folder / "key" / "model.bin")
    assert compile_into(folder)
    assert "the model is compiled again" in caplog.text
    assert (folder / "key" / "model.bin").read_bytes() == b"compiled" * 100


def test_what_a_failed_compilation_left_is_not_used(folder):
    def fail() -> None:
        with kept_whole(folder):
            (folder / "half").write_bytes(b"h")
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    compile_into(folder)
    assert not (folder / "half").exists()


def test_a_folder_that_is_gone_is_refused(tmp_path):
    with pytest.raises(ScoringError, match="cannot be used") as refusal:
        compile_into(tmp_path / "absent" / "abc")
    assert refusal.value.kind is Kind.PRECONDITION


@pytest.fixture
def read_only(monkeypatch):
    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    return lambda: monkeypatch.setattr(compiled_folder, "locked", refuse)


def test_a_folder_of_a_read_only_image_is_used_where_it_is_whole(folder, read_only):
    compile_into(folder)
    read_only()
    assert not compile_into(folder)


def test_a_damaged_folder_of_a_read_only_image_is_refused(folder, read_only):
    compile_into(folder)
    (folder / "key" / "model.bin").write_bytes(b"compiler")
    read_only()
    with pytest.raises(ScoringError, match="Read-only file system") as refusal:
        compile_into(folder)
    assert refusal.value.kind is Kind.PRECONDITION
