"""`accelserve convert --to accelonnx` as it is typed: paths and registered models, flags, and the store afterwards."""

import json

import pytest

from accel_models import SOFTMAX, small_resnet
from accelserve.cli import main
from accelserve.models.store import ModelStore


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return ModelStore(tmp_path / "store")


@pytest.fixture
def run(capsys):
    """The exit code, what was printed, and what was complained of."""

    def run_command(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_command


@pytest.fixture
def registered(run, tmp_path):
    source = small_resnet(tmp_path / "source", ("a", "b", "c", "d"))
    assert run("register", source, "--name", "resnet50")[0] == 0


def convert(run, model, *flags):
    return run("convert", model, "--to", "accelonnx", *flags)


def test_a_folder_becomes_a_folder(run, tmp_path):
    code, out, err = convert(run, small_resnet(tmp_path / "resnet50"), "--output", "m.accel")
    assert code == 0
    assert "100% done" in err
    assert "boundary resnet_v1_50/pool5:0" in out
    assert sorted(path.name for path in (tmp_path / "m.accel").iterdir()) == ["accel.json", "device.onnx", "tail.onnx"]
    code, out, _ = run("show", "m.accel")
    assert code == 0
    assert "images: string[-1] (also Placeholder:0)" in out
    assert "--device fpga-emulator" in out
    assert convert(run, "resnet50", "--output", "m.accel")[0] == 5


def test_a_registered_model_becomes_one_with_a_link_to_its_parent(run, registered, store):
    flags = ("--register", "--input", "Placeholder:0", "--output-names", f"{SOFTMAX},resnet_v1_50/pool5:0")
    code, out, err = convert(run, "resnet50", *flags, "--json")
    assert code == 0, err
    about = json.loads(out)
    assert about["registered"] == "resnet50.1.accelonnx:1"
    assert about["report"]["compilationOptions"]["output_node_names"] == f"{SOFTMAX},resnet_v1_50/pool5:0"
    model = store.find("resnet50.1.accelonnx")
    assert (model.parent, model.format, model.framework) == ("resnet50:1", "accelonnx", "Onnx")
    assert list(model.signatures["serving_default"]["inputs"]) == ["images"]
    assert model.manifest is not None  # the labels
    code, out, _ = run("show", "resnet50.1.accelonnx")
    assert (code, "made from      resnet50:1" in out) == (0, True)
    code, _, err = run("delete", "resnet50:1")
    assert (code, "resnet50.1.accelonnx:1 was made from it" in err) == (5, True)


def test_asked_again_the_version_that_is_there_is_told_and_other_options_make_another(run, registered, store):
    for _ in range(2):
        assert convert(run, "resnet50:1", "--register")[0] == 0
    assert [model.version for model in store.versions("resnet50.1.accelonnx")] == [1]
    repeated = ("--output-tensor", SOFTMAX, "--output-tensor", "resnet_v1_50/pool5:0")
    assert convert(run, "resnet50:1", "--register", *repeated)[0] == 0
    assert [model.version for model in store.versions("resnet50.1.accelonnx")] == [2, 1]


def test_with_a_store_named_a_folder_of_that_name_is_not_meant(run, registered, tmp_path):
    (tmp_path / "resnet50").mkdir()
    assert convert(run, "resnet50", "--output", "a")[0] == 3
    assert convert(run, "resnet50", "--output", "a", "--store", tmp_path / "store")[0] == 0


def test_all_mistakes_of_the_flags_are_told(run, tmp_path):
    code, _, err = convert(run, "m.onnx", "--precision", "fp16")
    assert code == 2
    assert "--output DIR, or --register" in err
    assert "--precision are for --to onnx" in err
    code, _, err = run("convert", "m.onnx", "--register", "--input", "x")
    assert code == 2
    assert "--register is for --to accelonnx" in err
    assert "--input is for --to accelonnx" in err
    assert "--output DIR is missing" in err


def test_what_is_not_there_and_what_is_no_onnx_model_is_told(run, tmp_path, registered):
    code, _, err = convert(run, "nothing:1", "--output", "a")
    assert (code, "nothing" in err) == (4, True)
    (tmp_path / "sm").mkdir()
    (tmp_path / "sm" / "saved_model.pb").touch()
    code, _, err = convert(run, "sm", "--output", "a")
    assert (code, "format saved_model" in err) == (3, True)
    code, _, err = convert(run, "resnet50:1", "--output", "a", "--output-names", "softmax")
    assert code == 3
    assert f"the model's outputs are {SOFTMAX}" in err
