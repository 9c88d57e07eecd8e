"""Where get_model_path looks."""

import pytest

from accelserve.entry_script.model_paths import ModelPathError, ModelPaths


def put(path, *names):
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text("x")
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def paths(root, model_dir="", **named):
    return ModelPaths({name: str(path) for name, path in named.items()}, str(root), str(model_dir))


def test_the_highest_number_wins(root):
    for version in ("2", "10", "9"):
        put(root / "azureml-models" / "resnet50" / version, "model.pb")
    assert paths(root).find("resnet50") == str(root / "azureml-models/resnet50/10/model.pb")
    assert paths(root).find("resnet50", 2) == str(root / "azureml-models/resnet50/2/model.pb")


def test_a_version_holds_exactly_one_thing(root):
    put(root / "azureml-models" / "m" / "1", "a", "b")
    put(root / "azureml-models" / "n" / "1")
    for name in ("m", "n"):
        with pytest.raises(ModelPathError, match="can contain only 1 file or folder"):
            paths(root).find(name)


def test_a_folder_in_a_version_is_the_model(root):
    put(root / "azureml-models" / "m" / "1" / "m", "a", "b")
    assert paths(root).find("m") == str(root / "azureml-models/m/1/m")


@pytest.mark.parametrize("files", [("saved_model.pb",), ("saved_model.pb", "variables")])
def test_a_saved_model_is_its_versions_folder_as_in_our_store(root, files):
    put(root / "store" / "m" / "3", *files)
    assert paths(root, m=root / "store" / "m").find("m") == str(root / "store/m/3")


def test_what_the_server_was_given_comes_first(root):
    put(root / "azureml-models" / "m" / "1", "other")
    file = put(root / "files", "m.onnx") / "m.onnx"
    assert paths(root, m=file).find("m") == str(file)
    folder = put(root / "saved", "saved_model.pb", "x")
    assert paths(root, m=folder).find("m") == str(folder)


def test_a_version_that_was_given_is_that_version_and_its_only_entry(root):
    for version in ("1", "2"):
        put(root / "store" / "m" / version, "model.onnx")
    put(root / "store" / "s" / "1", "saved_model.pb", "accelserve.toml")
    put(root / "store" / "lone" / "1", "saved_model.pb")
    given = paths(root, m=root / "store/m/1", s=root / "store/s/1", lone=root / "store/lone/1")
    assert given.find("m") == given.find("m", 1) == str(root / "store/m/1/model.onnx")
    with pytest.raises(ModelPathError, match="version 2 not found"):
        given.find("m", 2)
    assert (given.find("s"), given.find("lone")) == (str(root / "store/s/1"), str(root / "store/lone/1"))


def test_a_file_alone_in_a_folder_that_is_no_version_leaves_the_folder_the_answer(root):
    put(root / "words", "words.txt")
    assert paths(root, words=root / "words").find("words") == str(root / "words")


def test_the_model_folder_is_looked_into(root):
    put(root / "models" / "m", "a", "b")
    assert paths(root, model_dir=root / "models").find("m") == str(root / "models" / "m")


def test_the_working_directory_comes_last(root):
    put(root / "work" / "m", "a")
    assert paths(root).find("m") == "m"


def test_a_model_that_is_nowhere_is_told_with_the_places(root):
    with pytest.raises(
        ModelPathError, match=r"Model m not found at .*azureml-models/m, .*work/m; the server was given x"
    ):
        paths(root, x=root).find("m")


def test_a_version_that_is_not_there_is_not_found(root):
    put(root / "azureml-models" / "m" / "1", "a")
    with pytest.raises(ModelPathError, match="Model m version 2 not found"):
        paths(root).find("m", 2)


@pytest.mark.parametrize(("name", "version"), [("m", "1"), (None, None)])
def test_wrong_arguments_are_told(root, name, version):
    with pytest.raises(ModelPathError, match=r"should be an int|is None"):
        paths(root).find(name, version)
