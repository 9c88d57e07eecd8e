"""The folder: whole or not at all, and always the same."""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from accelserve.config_sources import ConfigError
from accelserve.deploy.script_folder import PACKAGED, files_of_folder
from accelserve.errors import Kind, ScoringError
from accelserve.packaging import context
from accelserve.packaging.context import Piece, pieces_of_folder, write_context


def pieces_in(folder: Path, left_out: tuple[str, ...] | None = None) -> list[Piece]:
    files = files_of_folder(folder) if left_out is None else files_of_folder(folder, left_out)
    return list(pieces_of_folder(folder, "app", files))


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Place -> mode, time and content of everything in it."""
    return {
        path.relative_to(folder).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            int(path.stat().st_mtime),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (folder / "score.py").write_text("pass\n")
    (folder / "deep" / "data.bin").write_bytes(bytes(range(256)))
    return folder


def test_the_same_pieces_make_the_same_folder_whatever_their_order_and_times(tmp_path, source):
    pieces = [*pieces_in(source), Piece("Dockerfile", b"FROM x\n")]
    write_context(tmp_path / "a", pieces, {"n": 1})
    os.utime(source / "score.py", (1, 1))
    (source / "score.py").chmod(0o640)
    write_context(tmp_path / "b", pieces[::-1], {"n": 1})
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert {mode for mode, _, _ in tree(tmp_path / "a").values()} == {0o644, 0o755}


def test_the_manifest_has_the_digest_of_every_file_and_what_is_told_of_it(tmp_path, source):
    digests = write_context(tmp_path / "out", pieces_in(source), {"target": "gpu"})
    document = json.loads((tmp_path / "out" / PACKAGED).read_text())
    assert document == {"target": "gpu", "files": digests}
    for place, digest in digests.items():
        assert hashlib.sha256((tmp_path / "out" / place).read_bytes()).hexdigest() == digest
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*digests, PACKAGED}


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ScoringError, match="another --out") as refused:
        write_context(tmp_path / "out", [Piece("Dockerfile", b"")], {})
    assert refused.value.kind is Kind.CONFLICT
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_a_link_to_nothing_is_left_alone_and_a_name_too_long_is_told(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    for output, told in ((tmp_path / "out", "another --out"), (tmp_path / ("x" * 300), "File name too long")):
        with pytest.raises(ScoringError, match=told) as refused:
            write_context(output, [Piece("Dockerfile", b"")], {})
        assert refused.value.kind is Kind.CONFLICT
    assert os.listdir(tmp_path) == ["out"]


def test_a_full_disk_leaves_nothing(tmp_path, source, monkeypatch):
    written = []

    def full(folder, piece):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(piece)
        return real(folder, piece)

    real = context._write
    monkeypatch.setattr(context, "_write", full)
    with pytest.raises(ScoringError, match="No space left") as refused:
        write_context(tmp_path / "out", pieces_in(source), {})
    assert refused.value.kind is Kind.CONFLICT
    assert written
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_file_that_went_meanwhile_leaves_nothing_and_is_named(tmp_path, source):
    pieces = pieces_in(source)
    (source / "deep" / "data.bin").unlink()
    with pytest.raises(ScoringError, match=r"data\.bin") as refused:
        write_context(tmp_path / "out", pieces, {})
    assert refused.value.kind is Kind.PRECONDITION
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_the_check_raises_keeps_the_folder_from_appearing(tmp_path):
    def check(digests):
        raise ScoringError(Kind.CONFLICT, "not what was registered")

    with pytest.raises(ScoringError, match="registered"):
        write_context(tmp_path / "out", [Piece("a", b"")], {}, check)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(tmp_path):
    def check(digests):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_context(tmp_path / "out", [Piece("a", b"")], {}, check)
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_one_place_are_refused(tmp_path):
    with pytest.raises(ScoringError, match="two files would be a"):
        write_context(tmp_path / "out", [Piece("a", b"1"), Piece("a", b"2")], {})


@pytest.mark.parametrize("place", ["../x", "a/../../x", "/tmp/x", "a/.."])
def test_no_piece_gets_out_of_the_folder(tmp_path, place):
    with pytest.raises(ScoringError, match="not within the context") as refused:
        write_context(tmp_path / "out", [Piece("a", b""), Piece(place, b"x")], {})
    assert refused.value.kind is Kind.PRECONDITION
    assert list(tmp_path.iterdir()) == []


def test_what_tools_leave_in_a_scripts_folder_is_left_out(source):
    for name in ("__pycache__/score.pyc", ".git/config", "old.pyc"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    assert [piece.place for piece in pieces_in(source)] == ["app/score.py", "app/deep/data.bin"]
    assert len(pieces_in(source, left_out=())) == 5


def test_a_context_that_was_made_within_the_folder_is_not_packaged_again(source):
    write_context(source / "score-image", pieces_in(source), {})
    assert [piece.place for piece in pieces_in(source)] == ["app/score.py", "app/deep/data.bin"]


def test_a_link_within_the_folder_becomes_the_file(tmp_path, source):
    (source / "again.py").symlink_to("score.py")
    write_context(tmp_path / "out", pieces_in(source), {})
    made = tmp_path / "out" / "app" / "again.py"
    assert not made.is_symlink()
    assert made.read_text() == "pass\n"


def test_links_out_of_the_folder_circles_pipes_and_linked_folders_are_all_told(tmp_path, source):
    (tmp_path / "secret").write_text("x")
    (source / "out").symlink_to(tmp_path / "secret")
    (source / "loop").symlink_to("loop")
    (source / "folder").symlink_to(source)
    os.mkfifo(source / "pipe")
    with pytest.raises(ConfigError) as refused:
        pieces_in(source)
    said = "\n".join(refused.value.problems)
    assert len(refused.value.problems) == 4
    for words in ("out: a link out of", "loop: ", "folder: a link to a folder", "pipe: not a regular file"):
        assert words in said


def test_names_with_spaces_and_other_letters_are_names(tmp_path, source):
    (source / "a b ö.txt").write_text("x")
    write_context(tmp_path / "out", pieces_in(source), {})
    assert (tmp_path / "out" / "app" / "a b ö.txt").read_text() == "x"
