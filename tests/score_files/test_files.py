"""Which files are meant."""

import os
from pathlib import Path

import pytest

from accelserve.score_files.files import Found, found_files

_DEEPER_THAN_THE_STACK = 1200


def make(folder: Path, *names: str) -> None:
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")


def names(folder: Path, *patterns: str) -> list[str]:
    return [str(found.path.relative_to(folder)) for found in found_files([folder], patterns)]


def test_a_folder_means_all_files_in_it_and_below_in_order(tmp_path):
    make(tmp_path, "b.jpg", "a.jpg", "deep/er/c.jpg", "deep/d.png")
    assert names(tmp_path) == ["a.jpg", "b.jpg", "deep/d.png", "deep/er/c.jpg"]


def test_hidden_files_and_folders_are_left_out_of_a_folder_but_not_when_named(tmp_path):
    make(tmp_path, "a.jpg", ".b.jpg", ".git/c.jpg")
    assert names(tmp_path) == ["a.jpg"]
    assert list(found_files([tmp_path / ".b.jpg"])) == [Found(tmp_path / ".b.jpg")]


def test_a_pattern_chooses_within_folders_and_leaves_named_files_alone(tmp_path):
    make(tmp_path, "in/a.jpg", "in/notes.txt", "b.bin")
    assert names(tmp_path / "in", "*.jpg", "*.png") == ["a.jpg"]
    found = list(found_files([tmp_path / "b.bin", tmp_path / "in"], ["*.jpg"]))
    assert [one.path.name for one in found] == ["b.bin", "a.jpg"]


def test_links_in_a_circle_end(tmp_path):
    make(tmp_path, "a/one.jpg", "b/two.jpg")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "itself").symlink_to(tmp_path / "a")
    found = [path.name for path, _ in ((one.path, one.problem) for one in found_files([tmp_path]))]
    assert sorted(found) == ["one.jpg", "two.jpg"]


def test_a_link_to_itself_or_to_nothing_is_a_problem_of_that_file_alone(tmp_path):
    make(tmp_path, "ok.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    found = {one.path.name: one.problem for one in found_files([tmp_path])}
    assert found == {
        "ok.jpg": "",
        "gone.jpg": "No such file or directory",
        "loop.jpg": "Too many levels of symbolic links",
    }


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert [one.problem for one in found_files([tmp_path / "pipe.jpg", tmp_path])] == ["not a regular file"] * 2


def test_a_file_larger_than_any_request_is_refused_unread(tmp_path):
    with (tmp_path / "huge.npy").open("wb") as stream:
        stream.truncate(2**31)  # a hole: no disk is used
    (found,) = found_files([tmp_path])
    assert "more than one request can have" in found.problem


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """A folder with folders in it deeper than Python's stack; removed step by step, as no rmtree could."""
    top = tmp_path / "top"
    top.mkdir()
    monkeypatch.chdir(top)
    for _ in range(_DEEPER_THAN_THE_STACK):
        os.mkdir("d")
        os.chdir("d")
    yield top
    for _ in range(_DEEPER_THAN_THE_STACK):
        os.chdir("..")
        os.rmdir("d")


def test_folders_nested_deeper_than_pythons_stack_are_walked(deep):
    make(deep, "a.jpg")
    assert names(deep)[0] == "a.jpg"


def test_names_with_spaces_line_breaks_and_bytes_that_are_no_text_are_files_like_others(tmp_path):
    make(tmp_path, "a b.jpg", "line\nbreak.jpg", "zoë.jpg")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.jpg", os.O_CREAT | os.O_WRONLY))
    assert len(names(tmp_path)) == 4
