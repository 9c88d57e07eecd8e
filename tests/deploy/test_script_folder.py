"""What of a folder goes with its script: the same for a service on this machine and for an image."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from accelserve.commands.service_checks import check_definition
from accelserve.commands.stored import Typed
from accelserve.config_sources import ConfigError
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.script_folder import PACKAGED, files_to_take
from accelserve.deploy.services import source_problems, take_script
from accelserve.packaging.packing import Wish, pieces

SCRIPT = "def init(): pass\ndef run(raw_data): return 1\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for name in ("score.py", "deep/words.txt", ".hidden"):
        write(folder / name)
    return folder


def write(path: Path, text: str = SCRIPT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def definition(source: Path, script: str = "score.py") -> ServiceDefinition:
    return ServiceDefinition("numbers", replicas=1, entry_script=str(source / script), source_directory=str(source))


def taken(source: Path, place: Path) -> set[str]:
    take_script(definition(source), place, place)
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()}


def packaged(source: Path) -> set[str]:
    wish = Wish("cpu", script=source / "score.py", source_directory=source)
    return {piece.place.removeprefix("app/") for piece in pieces(wish, ()) if piece.place.startswith("app/")}


def big(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(301 * 10**6)  # a hole: no disk is used


def test_a_service_and_an_image_take_the_same_files(tmp_path, source):
    for name in (".git/config", ".venv/bin/python", "deep/__pycache__/x.pyc", "node_modules/a.js", "old.pyc", ".hg/x"):
        write(source / name)
    write(source / "image" / PACKAGED)
    write(source / "image" / "Dockerfile")
    (source / "venv").mkdir()
    (source / "deep" / ".venv").symlink_to(source / ".venv")
    assert source_problems(definition(source)) == []
    assert taken(source, tmp_path / "app") == packaged(source) == {"score.py", "deep/words.txt", ".hidden"}


def test_what_is_left_out_does_not_count(source):
    for name in (".git/pack", ".venv/torch.so", "__pycache__/x.pyc"):
        big(source / name)
    assert source_problems(definition(source)) == []
    big(source / "deep" / "weights.bin")
    wanted = [f"{source} has more than 300 MB; models belong into the store"]
    assert source_problems(definition(source)) == [f"source_directory: {line}" for line in wanted]
    with pytest.raises(ConfigError) as refused:
        packaged(source)
    assert refused.value.problems == wanted


def test_a_link_becomes_the_file_so_that_later_edits_change_nothing(tmp_path, source):
    (source / "near.txt").symlink_to("deep/words.txt")
    (source / "far.txt").symlink_to(source / "deep" / "words.txt")
    taken(source, tmp_path / "app")
    (source / "deep" / "words.txt").write_text("edited")
    for name in ("near.txt", "far.txt"):
        assert not (tmp_path / "app" / name).is_symlink()
        assert (tmp_path / "app" / name).read_text() == SCRIPT


def test_what_an_image_refuses_a_service_refuses_too(tmp_path, source):
    (source / "out.txt").symlink_to("../secret")
    write(tmp_path / "secret")
    (source / "folder").symlink_to("deep")
    os.mkfifo(source / "pipe")
    said = source_problems(definition(source))
    with pytest.raises(ConfigError) as refused:
        packaged(source)
    assert said == [f"source_directory: {line}" for line in refused.value.problems]
    assert len(said) == 3
    with pytest.raises(ConfigError, match="link out of"):
        take_script(definition(source), tmp_path / "app", tmp_path / "app")


def test_a_script_that_would_not_come_along_is_told(source):
    write(source / ".venv" / "score.py")
    assert source_problems(definition(source, ".venv/score.py")) == [
        f"source_directory: {source / '.venv/score.py'} is not among the files of {source} that are taken along"
    ]


def test_what_a_script_that_runs_has_put_into_its_copy_keeps_no_change_from_it(source):
    os.mkfifo(source / "pipe")
    with pytest.raises(ConfigError, match="pipe: not a regular file"):
        check_definition(definition(source), Typed())
    check_definition(definition(source), Typed(), script_is_new=False)


def test_files_keep_their_mode_and_time(tmp_path, source):
    (source / "score.py").chmod(0o755)
    os.utime(source / "score.py", (1, 1))
    taken(source, tmp_path / "app")
    copied = (tmp_path / "app" / "score.py").stat()
    assert (copied.st_mode & 0o777, copied.st_mtime) == (0o755, 1)


def test_a_folder_that_is_no_folder_is_told(source):
    gone = replace(definition(source), source_directory=str(source / "none"))
    assert source_problems(gone) == [f"source_directory: {source / 'none'} is no folder"]
    assert files_to_take(source, source / "score.py") == [
        source / name for name in (".hidden", "score.py", "deep/words.txt")
    ]
