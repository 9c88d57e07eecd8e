"""What is copied into a version, and what is refused: links, special files, files that change, external data."""

import os
from pathlib import Path

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.models.store import ModelStore, Registration
from model_builders import onnx_external


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    """A folder with the names of a SavedModel."""
    found = tmp_path / "saved"
    (found / "variables").mkdir(parents=True)
    (found / "saved_model.pb").write_bytes(b"graph")
    (found / "variables" / "variables.index").write_bytes(b"index")
    return found


def refused(kind, store, path, **named):
    with pytest.raises(ScoringError) as caught:
        store.register("m", path, **named)
    assert caught.value.kind is kind
    assert store.names() == ()
    return caught.value.message


def files_of(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_folder_is_copied_whole_and_read_only(store, folder):
    (folder / ".hidden").write_bytes(b"too")
    version = store.register("m", folder).path
    assert files_of(version) == files_of(folder)
    assert {file.stat().st_mode & 0o777 for file in version.rglob("*") if file.is_file()} == {0o444}


CUSTOM = Registration(custom=True)


def test_a_custom_folder_keeps_its_name_and_may_hold_anything(store, tmp_path):
    folder = tmp_path / "outputs" / "model"
    (folder / "assets").mkdir(parents=True)
    (folder / "weights.pkl").write_bytes(b"weights")
    (folder / "assets" / "words.txt").write_bytes(b"words")
    model = store.register("m", folder, CUSTOM)
    assert (model.format, model.framework, model.custom, model.signatures) == ("custom", "Custom", True, None)
    assert files_of(model.path) == {"model/weights.pkl": b"weights", "model/assets/words.txt": b"words"}
    assert model.size_bytes == len(b"weightswords")


def test_a_custom_file_keeps_its_name(store, folder):
    model = store.register("m", folder / "saved_model.pb", CUSTOM)
    assert files_of(model.path) == {"saved_model.pb": b"graph"}


def test_the_folder_in_which_one_is_has_a_name_too(store, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert set(files_of(store.register("m", Path(), CUSTOM).path)) == {
        "saved/saved_model.pb",
        "saved/variables/variables.index",
    }


def test_of_a_custom_model_too_nothing_is_copied_that_is_not_its_own_or_not_there(store, folder, tmp_path):
    (folder / "leak").symlink_to("/etc/passwd")
    assert "link out of" in refused(Kind.PRECONDITION, store, folder, about=CUSTOM)
    (tmp_path / "empty").mkdir()
    assert "no file in" in refused(Kind.PRECONDITION, store, tmp_path / "empty", about=CUSTOM)
    assert "no such file or folder" in refused(Kind.NOT_FOUND, store, tmp_path / "absent", about=CUSTOM)
    os.mkfifo(tmp_path / "pipe")
    refused(Kind.NOT_FOUND, store, tmp_path / "pipe", about=CUSTOM)


def test_a_custom_model_that_changes_while_it_is_copied_is_refused(store, folder):
    def progress(what, done, total):
        (folder / "late").write_bytes(b"")

    message = refused(Kind.CONFLICT, store, folder, about=CUSTOM, progress=progress)
    assert "files came or went" in message


def test_no_manifest_goes_with_a_custom_model(store, folder, tmp_path):
    (tmp_path / "own.toml").write_text("threads = 2\n")
    told = refused(Kind.INVALID, store, folder, about=Registration(custom=True, manifest=tmp_path / "own.toml"))
    assert "nothing would read it" in told


def test_a_link_within_the_folder_becomes_a_file(store, folder):
    (folder / "variables" / "again").symlink_to("../saved_model.pb")
    copied = store.register("m", folder).path / "variables" / "again"
    assert not copied.is_symlink()
    assert copied.read_bytes() == b"graph"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "sideways/secret"])
def test_a_link_out_of_the_folder_is_refused(store, folder, tmp_path, target):
    (tmp_path / "secret").write_text("secret")
    if target.startswith("sideways"):
        target = tmp_path / "secret"
    (folder / "variables" / "leak").symlink_to(target)
    message = refused(Kind.PRECONDITION, store, folder)
    assert "leak is a link out of" in message
    assert "cp -rL" in message


def test_links_to_folders_and_to_nothing_are_refused(store, folder):
    (folder / "loop").symlink_to(".")
    assert "loop is a link to a folder" in refused(Kind.PRECONDITION, store, folder)
    (folder / "loop").unlink()
    (folder / "dangling").symlink_to("nothing")
    assert "dangling: No such file" in refused(Kind.PRECONDITION, store, folder)


def test_a_link_to_itself_is_refused(store, folder):
    (folder / "loop").symlink_to("loop")
    assert "loop: Too many levels of symbolic links" in refused(Kind.PRECONDITION, store, folder)


def test_a_pipe_is_no_part_of_a_model(store, folder):
    os.mkfifo(folder / "pipe")
    assert "pipe is no plain file" in refused(Kind.PRECONDITION, store, folder)


def test_the_path_that_the_user_names_may_itself_be_a_link(store, tmp_path, folder):
    (tmp_path / "link").symlink_to(folder)
    assert files_of(store.register("m", tmp_path / "link").path) == files_of(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"GRAPH"), "saved_model.pb changed while"),
        (lambda folder: (folder / "late.bin").write_bytes(b"late"), "files came or went"),
        (lambda folder: (folder / "variables" / "variables.index").unlink(), "variables.index: No such file"),
    ],
)
def test_a_model_that_changes_while_it_is_copied_is_refused(store, folder, change, told):
    def meddle(what, done, total):
        if what == "reading" and done == total:
            change(folder)

    with pytest.raises(ScoringError, match=told):
        store.register("m", folder, progress=meddle)
    assert store.names() == ()


def test_an_onnx_file_may_have_any_name_and_brings_its_external_data(store, tmp_path):
    model = onnx_external(tmp_path / "net.v7.onnx", "weights/net.v7.data")
    (tmp_path / "unrelated.txt").write_text("stays")
    version = store.register("m", model).path
    assert set(files_of(version)) == {"model.onnx", "weights/net.v7.data"}


@pytest.mark.parametrize("in_folder", [False, True])
def test_missing_external_data_is_named(store, tmp_path, in_folder):
    model = onnx_external(tmp_path / "net" / "model.onnx", "net.data")
    (model.parent / "net.data").unlink()
    message = refused(Kind.PRECONDITION, store, model.parent if in_folder else model)
    assert "its external data is missing: net.data" in message


def test_external_data_that_takes_the_models_name_is_refused(store, tmp_path):
    model = onnx_external(tmp_path / "net.onnx", "model.onnx")
    assert "external data is called model.onnx" in refused(Kind.PRECONDITION, store, model)


def test_external_data_behind_a_link_out_of_the_folder_is_refused(store, tmp_path):
    model = onnx_external(tmp_path / "net" / "net.onnx", "net.data")
    (model.parent / "net.data").rename(tmp_path / "elsewhere")
    (model.parent / "net.data").symlink_to(tmp_path / "elsewhere")
    assert "is a link out of" in refused(Kind.PRECONDITION, store, model)
    (model.parent / "net.data").unlink()
    model = onnx_external(tmp_path / "net" / "net.onnx", "weights/net.data")
    (model.parent / "weights").rename(tmp_path / "weights")
    (model.parent / "weights").symlink_to(tmp_path / "weights")
    assert "is a link out of" in refused(Kind.PRECONDITION, store, model)
