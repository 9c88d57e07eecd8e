"""The registry: versions, records, who refers to them, and what is refused."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import accelserve
from accelserve.errors import Kind, ScoringError
from accelserve.models.repository import find_models
from accelserve.models.store import ModelStore, Registration, default_store_root, is_model_name, parse_reference
from accelserve.models.store.layout import NamePlaces
from model_builders import synthetic_model

SOURCE = str(Path(accelserve.__file__).parents[1])


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


@pytest.fixture
def model(tmp_path):
    return synthetic_model(tmp_path / "source" / "m.synthetic.toml")


def refused(kind, call, *arguments, **named):
    with pytest.raises(ScoringError) as caught:
        call(*arguments, **named)
    assert caught.value.kind is kind
    return caught.value.message


# --- versions


def test_an_empty_store_has_no_names_and_is_not_made_by_looking(store):
    assert store.names() == ()
    assert store.versions("m") == ()
    assert "it has: nothing" in refused(Kind.NOT_FOUND, store.find, "m")
    assert not store.root.exists()


def test_versions_are_counted_from_1_and_listed_from_the_newest(store, model):
    assert [store.register("m", model).version for _ in range(11)] == list(range(1, 12))
    assert [found.version for found in store.versions("m")] == list(range(11, 0, -1))
    assert store.find("m").version == 11
    assert store.find("m", 2).version == 2


def test_a_version_that_is_not_there_is_refused_with_those_that_are(store, model):
    store.register("a", model)
    store.register("a", model)
    assert "a has: 2, 1" in refused(Kind.NOT_FOUND, store.find, "a", 7)
    assert "it has: a" in refused(Kind.NOT_FOUND, store.find, "b")


def test_the_store_is_a_repository_that_serve_can_be_given(store, model):
    store.register("m", model)
    second = store.register("m", model)
    found = find_models("m", store.root / "m")
    assert [(artifact.version, artifact.format) for artifact in found.versions] == [(2, "synthetic"), (1, "synthetic")]
    assert find_models("m", second.path).manifest == store.root / "m" / "accelserve.toml"


def test_a_record_says_what_was_told_and_what_was_found(store, model, tmp_path):
    store.register("base", model)
    (tmp_path / "input.json").write_text("[[1, 2]]")
    signatures = {"serving_default": {"inputs": {}}}
    about = Registration(
        {"stage": "test"}, {"commit": "abc"}, "two lines\nof text", "pytorch", "2.9", "base:1", tmp_path / "input.json"
    )
    store.register("m", model, about, lambda _: signatures)
    found = ModelStore(store.root).find("m")
    assert (found.tags, found.properties) == ({"stage": "test"}, {"commit": "abc"})
    assert (found.description, found.framework, found.framework_version) == ("two lines\nof text", "PyTorch", "2.9")
    assert (found.parent, found.signatures, found.format) == ("base:1", signatures, "synthetic")
    assert found.sample.read_text() == "[[1, 2]]"
    assert found.size_bytes == model.stat().st_size
    assert found.created_time.endswith("+00:00")
    json.dumps(found.as_json())


def test_the_checksum_is_what_sha256sum_prints(store, model, tmp_path):
    lone = store.register("m", model)
    said = subprocess.run(["sha256sum", lone.path / "synthetic.toml"], capture_output=True, text=True, check=True)
    assert lone.sha256 == said.stdout.split()[0]
    folder = tmp_path / "folder"
    shutil.copytree(model.parent, folder)
    (folder / model.name).rename(folder / "synthetic.toml")
    for name in ("b.bin", "deep/a.bin", "A"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    several = store.register("m", folder)
    listing = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(listing, shell=True, cwd=several.path, capture_output=True, text=True, check=True)
    assert several.sha256 == said.stdout.split()[0]


def test_the_newest_version_of_a_folder_of_versions_is_registered(store, tmp_path):
    for number in ("9", "10"):
        (tmp_path / "base" / number).mkdir(parents=True)
        (tmp_path / "base" / number / "synthetic.toml").write_text(f"# {number}")
    assert (store.register("m", tmp_path / "base").path / "synthetic.toml").read_text() == "# 10"


def test_a_version_is_not_changed_by_what_happens_to_its_source(store, model):
    found = store.register("m", model)
    content = model.read_text()
    model.write_text("gone")
    assert (found.path / "synthetic.toml").read_text() == content


def test_a_folder_that_was_not_registered_is_no_version_and_is_not_written_over(store, model):
    store.register("m", model)
    (store.root / "m" / "5").mkdir()
    assert [found.version for found in store.versions("m")] == [1]
    assert store.register("m", model).version == 6


def test_a_broken_record_hides_its_version_alone_and_is_logged(store, model, caplog):
    for _ in range(3):
        store.register("m", model)
    (store.root / "m" / ".registry" / "2.json").write_text("{half a li")
    (store.root / "m" / ".registry" / "3.json").write_text('{"record_format": 99}')
    assert [found.version for found in store.versions("m")] == [1]
    assert "m:2 is left out" in caplog.text
    assert "m:3 is left out: its record: want a record of format 1" in caplog.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tags": 5}, "the record's tags cannot be read"),
        ({"properties": {"a": 1}}, "the record's properties cannot be read"),
        ({"size_bytes": "1", "parent": 3}, "the record's size_bytes, parent cannot be read"),
        ({"created_time": None, "sample": 1}, "the record's created_time, sample cannot be read"),
        ({"signatures": []}, "the record's signatures cannot be read"),
        ("[" * 100_000, "nested too deep"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_record_that_somebody_edited_wrongly_is_left_out_with_the_reason(store, model, caplog, change, told):
    store.register("m", model)
    place = store.root / "m" / ".registry" / "1.json"
    place.write_text(change if isinstance(change, str) else json.dumps({**json.loads(place.read_text()), **change}))
    assert store.names() == ()
    assert "m:1 is left out: its record: " in caplog.text
    assert told in caplog.text


def test_a_file_of_a_name_that_cannot_be_read_as_a_number_is_named_with_the_remedy(store, model):
    store.register("m", model)
    (store.root / "m" / ".registry" / "highest").write_text("a few\n")
    assert "highest: want a number, got 'a few" in refused(Kind.CONFLICT, store.register, "m", model)
    assert "highest: want a number" in refused(Kind.CONFLICT, store.delete, "m", 1)
    assert [found.version for found in store.versions("m")] == [1]


def test_a_file_that_looks_like_a_kept_one_hides_no_name(store, model):
    store.register("m", model)
    (store.root / "m" / ".registry" / "before-noon.toml").write_text("")
    assert store.names() == ("m",)


def test_what_else_lies_in_the_stores_folder_is_no_model(store, model, monkeypatch, caplog):
    store.register("m", model)
    for name in ("lost+found", "notes", "shut"):
        (store.root / name).mkdir()
    (store.root / "README").touch()
    listed = NamePlaces.version_numbers

    def unreadable(places):
        if places.folder.name in ("lost+found", "shut"):
            raise PermissionError(13, "Permission denied", str(places.folder))
        return listed(places)

    monkeypatch.setattr(NamePlaces, "version_numbers", unreadable)
    assert store.versions("lost+found") == ()
    assert store.names() == ("m",)
    assert "shut is left out" in caplog.text
    assert "lost+found" not in caplog.text
    assert "Permission denied" in refused(Kind.CONFLICT, store.versions, "shut")


def test_all_that_is_wrong_with_a_registration_is_told_at_once(store, model, tmp_path):
    about = Registration({"": "x", "a": "\x1b[2J"}, {"k=": ""}, "\x00", "f" * 5000, "", "base", tmp_path / "none.jpg")
    message = refused(Kind.INVALID, store.register, "-m", model, about)
    for part in ("name '-m'", "tag ''", "tag 'a'", "property 'k='", "description", "framework", "parent", "none.jpg"):
        assert part in message
    assert not store.root.exists()


def test_what_is_no_model_is_refused_as_serve_refuses_it(store, tmp_path):
    refused(Kind.NOT_FOUND, store.register, "m", tmp_path / "nowhere")
    refused(Kind.PRECONDITION, store.register, "m", tmp_path)


def test_a_model_that_its_inspection_refuses_leaves_nothing(store, model):
    def refuse(folder):
        assert [a.path.name for a in find_models("m", folder).versions] == ["synthetic.toml"]
        raise ScoringError(Kind.PRECONDITION, "it does not load")

    refused(Kind.PRECONDITION, store.register, "m", model, inspect=refuse)
    assert store.names() == ()
    assert list((store.root / ".accelserve" / "incoming").iterdir()) == []


def test_progress_is_told_to_the_last_byte(store, model):
    told = []
    store.register("m", model, progress=lambda *how_far: told.append(how_far))
    size = model.stat().st_size
    assert told == [("reading", size, size), ("copying", size, size)]


# --- update and delete


def test_tags_and_description_can_be_changed_and_nothing_else_is(store, model):
    before = store.register("m", model, Registration({"a": "1", "b": "2"}, {"p": "q"}, "old"))
    after = store.update("m", 1, {"b": "3", "c": "4"}, ["a"], "new")
    assert after == store.find("m")
    assert (after.tags, after.description) == ({"b": "3", "c": "4"}, "new")
    assert store.update("m", 1) == after
    unchanged = ("sha256", "properties", "created_time", "framework", "path", "format")
    assert all(getattr(before, key) == getattr(after, key) for key in unchanged)


def test_an_update_is_checked_as_a_registration_is(store, model):
    store.register("m", model)
    assert "tag ''" in refused(Kind.INVALID, store.update, "m", 1, {"": "x"}, description="\x00")
    assert store.find("m").tags == {}


def test_a_tag_that_is_not_there_cannot_be_removed(store, model):
    store.register("m", model, Registration({"a": "1"}))
    assert "no tag x; its tags: a" in refused(Kind.NOT_FOUND, store.update, "m", 1, {"b": "2"}, ["x"])
    assert store.find("m").tags == {"a": "1"}


def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(store, model):
    for _ in range(3):
        store.register("m", model)
    (store.root / "m" / ".registry" / "highest").unlink()  # as in a store whose last writer died after the rename
    store.delete("m", 3)
    assert [found.version for found in store.versions("m")] == [2, 1]
    assert store.register("m", model).version == 4
    refused(Kind.NOT_FOUND, store.delete, "m", 3)
    refused(Kind.NOT_FOUND, store.update, "m", 3)


def test_a_name_whose_versions_are_all_deleted_is_no_name_but_remembers_its_numbers(store, model):
    store.register("m", model)
    store.delete("m", 1)
    assert store.names() == ()
    assert store.register("m", model).version == 2


def test_a_folder_removed_by_hand_does_not_free_its_number(store, model):
    shutil.rmtree(store.register("m", model).path)
    assert store.names() == ()
    assert store.register("m", model).version == 2


def test_a_parent_is_not_deleted_before_its_children(store, model):
    store.register("base", model)
    store.register("base.1.accelonnx", model, Registration(parent="base:1"))
    store.register("other", model, Registration(parent="base:1"))
    message = refused(Kind.CONFLICT, store.delete, "base", 1)
    assert "base.1.accelonnx:1 was made from it" in message
    assert "other:1 was made from it" in message
    store.delete("base.1.accelonnx", 1)
    store.delete("other", 1)
    store.delete("base", 1)
    assert store.names() == ()


def test_a_parent_must_be_there(store, model):
    refused(Kind.NOT_FOUND, store.register, "m", model, Registration(parent="base:1"))


# --- two processes, full disks, other people's folders


def test_two_processes_that_register_one_name_at_once_make_two_versions(store, model):
    """Each waits in its inspection, when its copy is made, until both are there."""
    code = """
import sys
from pathlib import Path
from accelserve.models.store import ModelStore
def meet(_):
    print("copied", flush=True)
    sys.stdin.readline()
print(ModelStore(Path(sys.argv[1])).register("m", Path(sys.argv[2]), inspect=meet).version)
"""
    command = [sys.executable, "-c", code, str(store.root), str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": SOURCE}, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "copied\n"
    for process in processes:
        process.stdin.write("on\n")
        process.stdin.flush()
    said = [process.communicate(timeout=30)[0] for process in processes]
    assert sorted(said) == ["1\n", "2\n"]
    assert [found.version for found in store.versions("m")] == [2, 1]


def test_a_living_writer_is_not_swept_by_another(store, model):
    def register_meanwhile(folder):
        store.register("other", model)
        assert (folder / "1" / "synthetic.toml").exists()

    assert store.register("m", model, inspect=register_meanwhile).version == 1


def test_a_store_without_room_refuses_before_it_copies(store, model, monkeypatch):
    store.register("m", model)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    message = refused(Kind.CONFLICT, store.register, "m", model)
    assert f"store {store.root} is full: 1.0 MiB are needed and 1000 B are free" in message
    assert [found.version for found in store.versions("m")] == [1]


def test_a_disk_that_fills_up_while_copying_leaves_the_store_as_it_was(store, model, tmp_path):
    """The kernel refuses the write: a limit on the size of files stands in for a disk that is full."""
    store.register("m", model)
    large = tmp_path / "large"
    large.mkdir()
    (large / "synthetic.toml").write_text("")
    (large / "weights.bin").write_bytes(bytes(3 * 2**20))
    code = """
import sys
from pathlib import Path
from accelserve.errors import ScoringError
from accelserve.models.store import ModelStore
try:
    ModelStore(Path(sys.argv[1])).register("m", Path(sys.argv[2]))
except ScoringError as error:
    print(error.kind.name, error.message)
"""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root), str(large)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.startswith(f"CONFLICT store {store.root} is full (File too large): 4.0 MiB are needed")
    assert [found.version for found in store.versions("m")] == [1]
    assert list((store.root / ".accelserve" / "incoming").iterdir()) == []
    assert store.register("m", large).version == 2


def test_a_version_that_is_there_is_not_told_as_failed(store, model, monkeypatch):
    """The disk is full when only the highest number is still to be written down, which a delete does as well."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(NamePlaces, "remember_highest", full)
        assert store.register("m", model).version == 1
    store.delete("m", 1)
    assert store.register("m", model).version == 2


@pytest.mark.parametrize("failing", ["put_manifest", "move", "write_whole"])
def test_a_disk_that_is_full_at_the_last_step_leaves_the_store_as_it_was(store, tmp_path, monkeypatch, failing):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "synthetic.toml").write_text("")
        (tmp_path / name / "accelserve.toml").write_text(f"threads = {len(name)}  # {name}\n")
    store.register("m", tmp_path / "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"accelserve.models.store.registry.{failing}", full)
        assert "No space left on device" in refused(Kind.CONFLICT, store.register, "m", tmp_path / "new")
    assert [found.version for found in store.versions("m")] == [1]
    assert (store.root / "m" / "accelserve.toml").read_text() == "threads = 3  # old\n"
    assert store.register("m", tmp_path / "new").version == 2


def test_a_store_that_cannot_be_made_is_refused_with_its_name(tmp_path, model):
    (tmp_path / "file").touch()
    message = refused(Kind.CONFLICT, ModelStore(tmp_path / "file" / "store").register, "m", model)
    assert "Not a directory" in message
    assert "choose another with --store" in message
    refused(Kind.CONFLICT, ModelStore(tmp_path / "file").names)


# --- names and places


def test_the_default_store_is_named_by_the_environment():
    assert default_store_root({"ACCELSERVE_STORE": "/s", "XDG_DATA_HOME": "/d"}) == Path("/s")
    assert default_store_root({"XDG_DATA_HOME": "/d", "HOME": "/h"}) == Path("/d/accelserve/store")
    assert default_store_root({"XDG_DATA_HOME": "not/absolute", "HOME": "/h"}) == Path(
        "/h/.local/share/accelserve/store"
    )


def test_a_name_is_what_serve_takes_as_a_name():
    assert all(map(is_model_name, ("resnet50", "resnet50.1.accelonnx", "A-b_c", "7")))
    assert not any(map(is_model_name, ("", ".hidden", "a/b", "a:1", "a=b", "ä", "a" * 256, "..")))


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:01", "a:-1", "a:x", "a:1:2", "a/b:1"])
def test_a_reference_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="want NAME or NAME:VERSION"):
        parse_reference(text)


def test_a_reference_is_a_name_with_or_without_a_version():
    assert parse_reference("a.b") == ("a.b", None)
    assert parse_reference("a:12") == ("a", 12)
