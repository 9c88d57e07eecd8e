"""What a look at paths and at a store finds."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from accelserve.config import ALL_VERSIONS, ModelConfig, VersionPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.models.watch import PathSource, StoreSource, stamp_of

NOBODY = frozenset()
AN_HOUR_NS = 3_600 * 10**9


def touch(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def version_of(base, number, content="x"):
    return touch(base / str(number) / "model.onnx", content)


def look(source, quiet=NOBODY):
    """Model -> its wanted versions, each with whether it is whole; or the kind of its problem."""
    found = {}
    for sighting in source.look(quiet):
        whole = {version: seen.whole for version, seen in sighting.versions.items()}
        found[sighting.config.name] = whole if sighting.problem is None else sighting.problem.kind
    return found


# --- paths


def test_the_first_look_takes_what_is_there_and_a_later_version_must_keep_still(tmp_path):
    version_of(tmp_path, 1)
    source = PathSource([ModelConfig("m", tmp_path)])
    assert look(source) == {"m": {1: True}}
    file = version_of(tmp_path, 2, "half")
    assert look(source) == {"m": {2: False}}
    touch(file, "half and half")
    assert look(source) == {"m": {2: False}}
    touch(tmp_path / "2" / "weights", "late")
    assert look(source) == {"m": {2: False}}
    assert look(source) == {"m": {2: True}}


def test_the_stamp_of_a_version_that_failed_tells_when_its_files_change(tmp_path):
    file = version_of(tmp_path, 1, "bad")
    source = PathSource([ModelConfig("m", tmp_path)])

    def stamp():
        (sighting,) = source.look(NOBODY)
        return sighting.versions[1].stamp

    before = stamp()
    assert stamp() == before
    touch(file, "good")
    assert stamp() != before


@pytest.mark.parametrize("kind", ["folder", "lone file", "store"])
def test_the_stamp_of_a_version_that_failed_tells_when_the_models_own_file_or_its_labels_change(tmp_path, kind):
    if kind == "lone file":
        base, own = touch(tmp_path / "m.onnx"), "m.accelserve.toml"
    else:
        base, own = tmp_path / "m", "m/accelserve.toml"
        version_of(base, 1)
    source = StoreSource(FolderStore(tmp_path)) if kind == "store" else PathSource([ModelConfig("m", base)])

    def stamp():
        (sighting,) = source.look(NOBODY)
        assert sighting.versions[1].stamp is not None
        return sighting.versions[1].stamp

    manifest = tmp_path / own
    seen = [stamp()]
    for change in (
        lambda: touch(manifest, "nonsense = ["),
        lambda: touch(manifest, 'labels = "labels.txt"'),
        lambda: touch(manifest.parent / "labels.txt", "one label"),
        lambda: manifest.unlink(),
    ):
        change()
        seen.append(stamp())
        assert stamp() == seen[-1]
    assert len(set(seen[:4])) == 4
    assert seen[4] == seen[0]


@pytest.mark.parametrize("kind", ["path", "store"])
def test_a_change_of_the_own_file_of_a_version_that_serves_is_said_once(tmp_path, caplog, kind):
    base = tmp_path / "m"
    version_of(base, 1)
    source = StoreSource(FolderStore(tmp_path)) if kind == "store" else PathSource([ModelConfig("m", base)])
    serving = {("m", 1)}
    caplog.set_level("INFO")

    def said():
        caplog.clear()
        source.look(serving)
        return caplog.text.count(f"{base / 'accelserve.toml'} has changed; it counts for versions that are loaded")

    source.look(NOBODY)
    assert [said(), said()] == [0, 0]
    own = touch(base / "accelserve.toml", "[batching]")
    assert [said(), said()] == [1, 0]
    own.unlink()
    assert [said(), said()] == [1, 0]
    touch(own)
    source.look(NOBODY)  # it is loaded again, and reads the file
    assert [said(), said()] == [0, 0]


def test_a_look_does_not_wait_for_a_pipe_that_has_the_name_of_the_models_own_file(tmp_path):
    version_of(tmp_path, 1)
    os.mkfifo(tmp_path / "accelserve.toml")
    assert look(PathSource([ModelConfig("m", tmp_path)])) == {"m": {1: True}}


def test_the_files_of_a_version_that_serves_are_not_looked_at(tmp_path):
    version_of(tmp_path, 1)
    source = PathSource([ModelConfig("m", tmp_path)])
    (sighting,) = source.look({("m", 1)})
    assert sighting.versions[1].stamp is None


def test_the_own_file_of_a_stored_version_that_serves_is_not_looked_at(store):
    version_of(store.root / "m", 1)
    (sighting,) = StoreSource(store).look({("m", 1)})
    assert sighting.versions[1].stamp is None


@pytest.mark.parametrize(("policy", "versions"), [(VersionPolicy(), [3]), (ALL_VERSIONS, [3, 1])])
def test_the_wanted_versions_are_seen(tmp_path, policy, versions):
    for number in (1, 3):
        version_of(tmp_path, number)
    touch(tmp_path / ".4" / "model.onnx")
    assert list(look(PathSource([ModelConfig("m", tmp_path, versions=policy)]))["m"]) == versions


def test_a_lone_file_and_a_path_that_is_not_there_are_seen_each_for_itself(tmp_path):
    lone = touch(tmp_path / "lone.onnx")
    source = PathSource([ModelConfig("a", tmp_path / "nowhere"), ModelConfig("b", lone), ModelConfig("c", tmp_path)])
    assert look(source) == {"a": Kind.NOT_FOUND, "b": {1: True}, "c": Kind.PRECONDITION}


def test_an_empty_version_folder_is_seen_so_that_its_load_can_say_what_is_missing(tmp_path):
    (tmp_path / "2").mkdir()
    version_of(tmp_path, 1)
    assert look(PathSource([ModelConfig("m", tmp_path)])) == {"m": {2: True}}


def test_a_stamp_covers_every_file_below(tmp_path):
    deep = touch(tmp_path / "variables" / "deep" / "data", "1")
    before = stamp_of(tmp_path)
    os.utime(deep, ns=(1, 1))
    assert stamp_of(tmp_path) != before


# --- a store


@dataclass(frozen=True)
class Stored:
    version: int
    path: Path
    custom: bool = False


class FolderStore:
    """The layout of a store, without its records; counts what is asked of it."""

    def __init__(self, root):
        self.root = root
        self.asked = []

    def versions(self, name):
        self.asked.append(name)
        numbers = sorted((int(c.name) for c in (self.root / name).iterdir() if c.name.isdigit()), reverse=True)
        folders = [(number, self.root / name / str(number)) for number in numbers]
        return [Stored(number, folder, (folder / "custom").exists()) for number, folder in folders]

    def hold(self, name, version, holder):
        return f"{name}:{version} for {holder}"


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def long_ago(store):
    """All changes so far are older than a file system's clock tick."""
    for folder in store.root.iterdir():
        long_ago_ns = folder.stat().st_mtime_ns - AN_HOUR_NS
        os.utime(folder, ns=(long_ago_ns, long_ago_ns))


def test_every_name_of_the_store_is_a_model_and_nothing_hidden_is(store):
    version_of(store.root / "a", 1)
    version_of(store.root / "a", 2)
    version_of(store.root / "b", 7)
    version_of(store.root / ".accelserve", 1)
    (store.root / "empty").mkdir()
    touch(store.root / "notes.txt")
    assert look(StoreSource(store)) == {"a": {2: True}, "b": {7: True}}


def test_what_only_scripts_open_is_no_model_to_serve(store):
    touch(store.root / "a" / "1" / "model.onnx")
    touch(store.root / "a" / "2" / "custom")
    touch(store.root / "b" / "1" / "custom")
    assert look(StoreSource(store)) == {"a": {1: True}}


def test_new_and_removed_models_are_seen_at_the_next_look(store):
    source = StoreSource(store)
    assert look(source) == {}  # there is no folder yet
    file = version_of(store.root / "a", 1)
    assert look(source) == {"a": {1: True}}
    version_of(store.root / "a", 2)
    version_of(store.root / "b", 1)
    assert look(source) == {"a": {2: True}, "b": {1: True}}
    file.unlink()
    file.parent.rmdir()
    (store.root / "a" / "2").rename(store.root / ".trash")
    assert look(source) == {"b": {1: True}}


def test_a_name_whose_folder_has_not_changed_is_not_read_again(store):
    version_of(store.root / "a", 1)
    version_of(store.root / "b", 1)
    long_ago(store)
    source = StoreSource(store)
    look(source)
    store.asked.clear()
    assert look(source) == {"a": {1: True}, "b": {1: True}}
    assert store.asked == []
    version_of(store.root / "b", 2)
    assert look(source)["b"] == {2: True}
    assert store.asked == ["b"]


def test_a_folder_that_has_just_changed_is_read_until_its_time_stamp_can_be_trusted(store):
    version_of(store.root / "a", 1)
    source = StoreSource(store)
    look(source)
    look(source)
    assert store.asked == ["a", "a"]


def test_only_the_named_models_are_served_and_a_missing_one_is_not_found(store):
    for number in (1, 2):
        version_of(store.root / "a", number)
    version_of(store.root / "b", 1)
    named = [ModelConfig("a", None, versions=VersionPolicy(specific=(1,))), ModelConfig("c", None)]
    source = StoreSource(store, named)
    assert [config.name for config in source.expected()] == ["a", "c"]
    assert look(source) == {"a": {1: True}, "c": Kind.NOT_FOUND}
    missing = [ModelConfig("a", None, versions=VersionPolicy(specific=(9,)))]
    assert look(StoreSource(store, missing)) == {"a": Kind.NOT_FOUND}


def test_a_name_that_a_path_has_is_left_to_it_with_one_warning(store, caplog):
    version_of(store.root / "a", 1)
    source = StoreSource(store, taken={"a"})
    assert look(source) == look(source) == {}
    assert caplog.text.count("model a of store") == 1


def test_the_store_is_asked_to_keep_what_is_served(store):
    assert StoreSource(store).hold("a", 3) == "a:3 for accelserve serve"


def test_a_store_that_cannot_be_read_says_nothing_at_all(tmp_path):
    source = StoreSource(FolderStore(touch(tmp_path / "file")))
    with pytest.raises(NotADirectoryError):
        source.look(NOBODY)


def test_an_entry_that_leads_nowhere_hides_no_model(store):
    version_of(store.root / "a", 1)
    (store.root / "loop").symlink_to("loop")
    (store.root / "gone").symlink_to("nowhere")
    assert look(StoreSource(store)) == {"a": {1: True}}


@pytest.mark.parametrize(
    "error", [ScoringError(Kind.CONFLICT, "shut"), PermissionError(13, "Permission denied")], ids=["store", "system"]
)
def test_a_name_that_cannot_be_read_is_that_names_problem(store, monkeypatch, error):
    for name in ("a", "shut"):
        version_of(store.root / name, 1)
    read = store.versions

    def versions(name):
        if name == "shut":
            raise error
        return read(name)

    monkeypatch.setattr(store, "versions", versions)
    problem = Kind.CONFLICT if isinstance(error, ScoringError) else Kind.NOT_FOUND
    assert look(StoreSource(store)) == {"a": {1: True}, "shut": problem}


@pytest.mark.parametrize("mount_point_stays", [False, True])
def test_a_store_whose_storage_is_away_says_nothing_at_all(store, mount_point_stays):
    version_of(store.root / "a", 1)
    (store.root / ".accelserve").mkdir()
    source = StoreSource(store)
    assert look(source) == {"a": {1: True}}
    away = store.root.rename(store.root.with_name("away"))
    if mount_point_stays:
        store.root.mkdir()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            source.look(NOBODY)
    if mount_point_stays:
        store.root.rmdir()
    away.rename(store.root)
    assert look(source) == {"a": {1: True}}


def test_a_store_whose_models_are_all_deleted_can_be_read_and_has_none(store):
    (store.root / ".accelserve").mkdir(parents=True)
    (store.root / "a" / ".registry").mkdir(parents=True)
    source = StoreSource(store)
    assert look(source) == look(source) == {}
