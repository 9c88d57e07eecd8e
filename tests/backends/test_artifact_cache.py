import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from accelserve.backends.artifact_cache import FolderArtifactCache, digest_of
from accelserve.errors import Kind, ScoringError

DIGEST = "0123456789abcdef"


def write(text: str):
    def build(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "model.bin").write_text(text)

    return build


def test_an_absent_entry_is_built(tmp_path):
    folder = FolderArtifactCache(tmp_path / "cache").folder(DIGEST, write("made"))
    assert folder == tmp_path / "cache" / DIGEST
    assert (folder / "deep" / "model.bin").read_text() == "made"


def test_an_entry_that_is_there_is_not_built_again(tmp_path):
    FolderArtifactCache(tmp_path).folder(DIGEST, write("first"))
    folder = FolderArtifactCache(tmp_path).folder(DIGEST, write("second"))
    assert (folder / "deep" / "model.bin").read_text() == "first"


def test_an_entry_is_not_seen_before_it_is_whole(tmp_path):
    seen = []
    FolderArtifactCache(tmp_path).folder(DIGEST, lambda folder: seen.append((tmp_path / DIGEST).exists()))
    assert seen == [False]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        write("half")(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FolderArtifactCache(tmp_path).folder(DIGEST, fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert FolderArtifactCache(tmp_path).folder(DIGEST, write("whole")).is_dir()


@pytest.mark.parametrize("in_the_way", ["root", f"root/{DIGEST}"])
def test_a_cache_that_cannot_be_written_is_one_message_with_the_remedy(tmp_path, in_the_way):
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file where a folder has to be")
    with pytest.raises(
        ScoringError, match=r"cache of prepared models .*root cannot be used.*XDG_CACHE_HOME"
    ) as refusal:
        FolderArtifactCache(tmp_path / "root").folder(DIGEST, write("made"))
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_disk_that_fills_up_while_an_entry_is_built_leaves_nothing(tmp_path):
    def fill(folder: Path) -> None:
        write("half")(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(ScoringError, match="No space left on device; make room"):
        FolderArtifactCache(tmp_path).folder(DIGEST, fill)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_what_a_crashed_build_left_is_removed_by_the_next(tmp_path):
    leftover = tmp_path / f".{DIGEST}.abc.tmp"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    FolderArtifactCache(tmp_path).folder(DIGEST, write("whole"))
    assert not leftover.exists()


def test_two_at_once_build_it_once(tmp_path):
    builds, started, go_on = [], threading.Event(), threading.Event()

    def build(folder: Path) -> None:
        builds.append(folder)
        started.set()
        assert go_on.wait(10)
        write("made")(folder)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(FolderArtifactCache(tmp_path).folder, DIGEST, build)
        assert started.wait(10)
        second = pool.submit(FolderArtifactCache(tmp_path).folder, DIGEST, build)
        go_on.set()
        assert first.result(10) == second.result(10)
    assert len(builds) == 1


def test_a_digest_that_leads_elsewhere_is_refused(tmp_path):
    with pytest.raises(ScoringError) as refusal:
        FolderArtifactCache(tmp_path).folder("../outside", write("x"))
    assert refusal.value.kind is Kind.INVALID


def test_the_digest_is_of_content_names_and_options(tmp_path):
    for folder, name, text in (("a", "m", "1"), ("b", "m", "1"), ("c", "n", "1"), ("d", "m", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    digests = {name: digest_of(tmp_path / name, {"bits": 3}) for name in "abcd"}
    assert digests["a"] == digests["b"]
    assert len({*digests.values(), digest_of(tmp_path / "a", {"bits": 4})}) == 4


def test_the_digest_of_a_file_does_not_depend_on_where_it_lies(tmp_path):
    for name in ("x.onnx", "y.onnx"):
        (tmp_path / name).write_bytes(b"model")
    assert digest_of(tmp_path / "x.onnx", {}) == digest_of(tmp_path / "y.onnx", {})


def test_files_cannot_be_shifted_into_one_another(tmp_path):
    for folder, files in (("a", {"x": "12", "y": ""}), ("b", {"x": "1", "y": "2"})):
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
    assert digest_of(tmp_path / "a", {}) != digest_of(tmp_path / "b", {})
