"""A name's own file in the store: where it comes from, and its labels."""

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import read_manifest
from accelserve.models.store import ModelStore, Registration
from model_builders import synthetic_model


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


@pytest.fixture
def model(tmp_path):
    return synthetic_model(tmp_path / "net.synthetic.toml")


def manifest(tmp_path, text, labels=None, name="given.toml"):
    (tmp_path / name).write_text(text)
    if labels is not None:
        (tmp_path / "classes.txt").write_text(labels)
    return tmp_path / name


def test_a_given_manifest_becomes_the_names_own_file_with_its_labels(store, model, tmp_path):
    text = '# how it is served\nlabels = "classes.txt"  # by index\nthreads = 3\n[batching]\nmax_batch_size = 4\n'
    given = manifest(tmp_path, text, "cat\ndog\n")
    found = store.register("m", model, Registration(manifest=given))
    own = read_manifest(found.manifest)
    assert found.manifest == store.root / "m" / "accelserve.toml"
    assert (own.labels, own.threads, own.batching.max_batch_size) == (("cat", "dog"), 3, 4)
    assert "# how it is served" in found.manifest.read_text()


def test_the_file_that_serve_would_use_is_taken_when_none_is_given(store, model, tmp_path):
    manifest(tmp_path, "threads = 5\n", name="net.accelserve.toml")
    assert read_manifest(store.register("m", model).manifest).threads == 5


def test_a_folders_own_file_is_the_names_and_not_part_of_the_content(store, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "synthetic.toml").write_text("")
    manifest(tmp_path / "folder", "threads = 5\n", name="accelserve.toml")
    found = store.register("m", tmp_path / "folder")
    assert [file.name for file in found.path.iterdir()] == ["synthetic.toml"]
    assert read_manifest(found.manifest).threads == 5


def test_without_any_the_names_own_file_stays(store, model, tmp_path):
    store.register("m", model, Registration(manifest=manifest(tmp_path, "threads = 5\n")))
    assert read_manifest(store.register("m", model).manifest).threads == 5


def test_a_new_file_replaces_the_old_one_and_does_not_touch_its_labels(store, model, tmp_path):
    """A server that has read the old file still finds the labels that it names."""
    text = 'labels = "classes.txt"\n'
    store.register("m", model, Registration(manifest=manifest(tmp_path, text, "a\nb\n")))
    old = read_manifest(store.root / "m" / "accelserve.toml")
    old_labels = next((store.root / "m").glob("classes-*.txt"))
    store.register("m", model, Registration(manifest=manifest(tmp_path, text, "c\nd\n")))
    assert old_labels.read_text() == "a\nb\n"
    assert (old.labels, read_manifest(store.root / "m" / "accelserve.toml").labels) == (("a", "b"), ("c", "d"))


def test_the_model_is_inspected_with_the_file_that_it_will_be_served_with(store, model, tmp_path):
    seen = []

    def inspect(folder):
        seen.append(read_manifest(folder / "accelserve.toml").labels)

    given = manifest(tmp_path, 'labels = "classes.txt"\n', "a\nb\n")
    store.register("m", model, Registration(manifest=given), inspect)
    store.register("m", model, Registration(), inspect)
    assert seen == [("a", "b"), ("a", "b")]


def test_a_version_copied_from_another_store_keeps_the_names_of_its_labels(store, model, tmp_path):
    store.register("m", model, Registration(manifest=manifest(tmp_path, 'labels = "classes.txt"\n', "a\n")))
    again = ModelStore(tmp_path / "other").register("m", store.find("m").path)
    assert again.manifest.read_text() == (store.root / "m" / "accelserve.toml").read_text()


@pytest.mark.parametrize(
    ("text", "labels", "kind", "told"),
    [
        ("colour = 1\n", None, Kind.PRECONDITION, "unknown key 'colour'"),
        ('labels = "nowhere.txt"\n', None, Kind.PRECONDITION, "labels: cannot read"),
        ('labels = """\nclasses.txt"""\n', "a\n", Kind.PRECONDITION, "write it on one line"),
        ('"labels" = "classes.txt"\n', "a\n", Kind.PRECONDITION, "write it on one line"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(store, model, tmp_path, text, labels, kind, told):
    with pytest.raises(ScoringError, match=told) as caught:
        store.register("m", model, Registration(manifest=manifest(tmp_path, text, labels)))
    assert caught.value.kind is kind
    assert store.names() == ()


def test_a_manifest_that_is_not_there_is_told_with_the_other_mistakes(store, model, tmp_path):
    about = Registration(tags={"": "x"}, manifest=tmp_path / "none.toml")
    with pytest.raises(ScoringError, match=r"tag '': .*; manifest .*none.toml: no such file"):
        store.register("m", model, about)
