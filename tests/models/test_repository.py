"""What a path given by the user holds."""

from pathlib import Path

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.models.repository import find_models, find_version, list_versions, name_of


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def refused(path, kind):
    with pytest.raises(ScoringError) as caught:
        find_models("m", path)
    assert caught.value.kind is kind
    return caught.value.message


def test_a_lone_onnx_file_is_version_1_with_its_own_file_beside_it(tmp_path):
    found = find_models("m", touch(tmp_path / "net.onnx"))
    assert [(a.version, a.format, a.path.name) for a in found.versions] == [(1, "onnx", "net.onnx")]
    assert found.manifest == tmp_path / "net.accelserve.toml"


def test_a_saved_model_folder_is_version_1(tmp_path):
    touch(tmp_path / "sm" / "saved_model.pb")
    (artifact,) = find_models("m", tmp_path / "sm").versions
    assert (artifact.version, artifact.format, artifact.path) == (1, "saved_model", tmp_path / "sm")


def test_the_highest_version_comes_first_as_a_number_not_as_text(tmp_path):
    for version in ("9", "10", "00000011"):
        touch(tmp_path / version / "model.onnx")
    touch(tmp_path / "notes" / "model.onnx")
    found = find_models("m", tmp_path)
    assert [a.version for a in found.versions] == [11, 10, 9]
    assert found.manifest == tmp_path / "accelserve.toml"


def test_a_version_folder_given_directly_keeps_its_number_and_finds_the_models_file(tmp_path):
    touch(tmp_path / "7" / "model.onnx")
    found = find_models("m", tmp_path / "7")
    assert found.versions[0].version == 7
    assert found.manifest == tmp_path / "accelserve.toml"


def test_nothing_there_is_not_found_by_path(tmp_path):
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere", Kind.NOT_FOUND)


def test_a_folder_without_a_version_folder_is_explained(tmp_path):
    assert "version folder" in refused(tmp_path, Kind.PRECONDITION)


def test_an_empty_newest_version_is_an_error_not_a_silent_older_one(tmp_path):
    touch(tmp_path / "1" / "model.onnx")
    (tmp_path / "2").mkdir()
    assert "2" in refused(tmp_path, Kind.PRECONDITION)


def test_another_file_is_no_model(tmp_path):
    assert "no model" in refused(touch(tmp_path / "weights.bin"), Kind.PRECONDITION)


def test_a_folder_that_is_no_version_does_not_read_a_strangers_file(tmp_path):
    touch(tmp_path / "sm" / "saved_model.pb")
    touch(tmp_path / "accelserve.toml")
    assert find_models("m", tmp_path / "sm").manifest == tmp_path / "sm" / "accelserve.toml"


def test_version_0_is_version_0_given_directly_too(tmp_path):
    touch(tmp_path / "0" / "model.onnx")
    assert find_models("m", tmp_path / "0").versions[0].version == find_models("m", tmp_path).versions[0].version == 0


def test_an_onnx_file_of_another_name_is_pointed_at(tmp_path):
    touch(tmp_path / "resnet.onnx")
    assert "resnet.onnx" in refused(tmp_path, Kind.PRECONDITION)


# --- version by version


def test_a_list_says_where_each_version_lies_and_looks_into_none(tmp_path):
    touch(tmp_path / "007" / "model.onnx")
    (tmp_path / "8").mkdir()
    touch(tmp_path / ".9" / "model.onnx")
    assert list_versions("m", tmp_path) == {7: tmp_path / "007", 8: tmp_path / "8"}


@pytest.mark.parametrize(("file", "version"), [("net.onnx", 1), ("sm/saved_model.pb", 1), ("5/model.onnx", 5)])
def test_a_path_that_is_one_version_is_listed_as_it(tmp_path, file, version):
    path = touch(tmp_path / file)
    place = path if "/" not in file else path.parent
    assert list_versions("m", place) == {version: place}
    (artifact,) = find_version("m", version, place).versions
    assert artifact.version == find_models("m", place).versions[0].version == version


def test_a_version_folder_shares_the_models_file_unless_it_has_one_of_its_own(tmp_path):
    for version in ("1", "2"):
        touch(tmp_path / version / "model.onnx")
    touch(tmp_path / "2" / "accelserve.toml")
    assert find_version("m", 1, tmp_path / "1").manifest == tmp_path / "accelserve.toml"
    assert find_version("m", 2, tmp_path / "2").manifest == tmp_path / "2" / "accelserve.toml"


def test_an_empty_version_folder_is_named_when_it_is_to_be_loaded(tmp_path):
    (tmp_path / "2").mkdir()
    with pytest.raises(ScoringError, match=r"2 holds no saved_model.pb or model.onnx") as caught:
        find_version("m", 2, tmp_path / "2")
    assert caught.value.kind is Kind.PRECONDITION


def test_a_model_without_a_given_name_is_called_as_its_file_or_its_folder(tmp_path, monkeypatch):
    (tmp_path / "resnet50" / "3").mkdir(parents=True)
    assert name_of(tmp_path / "digits.synthetic.toml") == "digits"
    assert name_of(tmp_path / "resnet50" / "3") == name_of(tmp_path / "resnet50") == "resnet50"
    monkeypatch.chdir(tmp_path / "resnet50")
    assert name_of(Path(".")) == "resnet50"
    assert name_of(Path("n" * 300)) == "n" * 300
    Path("loop").symlink_to("loop")
    assert name_of(Path("loop")) == "loop"


@pytest.mark.parametrize("look", [find_models, list_versions, lambda name, path: find_version(name, 1, path)])
def test_a_path_that_the_file_system_refuses_is_told_with_its_reason(tmp_path, look):
    path = tmp_path / ("n" * 300)
    with pytest.raises(ScoringError, match="File name too long") as caught:
        look("m", path)
    assert caught.value.kind is Kind.NOT_FOUND
    assert str(path) in caught.value.message


def test_a_model_made_for_an_fpga_is_its_folder_whatever_onnx_files_it_holds(tmp_path):
    for name in ("accel.json", "model.onnx", "device.onnx"):
        touch(tmp_path / "3" / name)
    (artifact,) = find_models("m", tmp_path).versions
    assert (artifact.version, artifact.format, artifact.path) == (3, "accelonnx", tmp_path / "3")
