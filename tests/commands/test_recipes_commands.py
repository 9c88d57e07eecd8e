"""`accelserve recipes` as people and scripts type it."""

import json
import shlex

import numpy as np
import pytest

from accelserve.cli import main
from accelserve.recipes import catalog
from accelserve.recipes.catalog import Recipe
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights


@pytest.fixture
def run(capsys):
    """The exit code, what was printed, and what was complained of."""

    def run_command(*arguments):
        code = main(["recipes", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_command


@pytest.fixture
def small(monkeypatch):
    """A recipe that is made in no time."""
    recipe = Recipe(
        "small",
        "Small",
        lambda wanted: resnet(ResNet("r", (1, 1), 8, 32, wanted.definition == "keras"), wanted.classes),
        "r/logits/biases",
        classes=4,
        preprocessing={"resize": "stretch"},
    )
    monkeypatch.setattr(catalog, "RECIPES", {"small": recipe})


def test_the_list_is_a_table_and_json(run):
    code, table, _ = run("list")
    assert code == 0
    assert table.splitlines()[0].split() == ["NAME", "NETWORK", "INPUT", "CLASSES", "PARAMETERS", "GMAC", "OUTPUT"]
    found = {row["name"]: row for row in json.loads(run("list", "--json")[1])["recipes"]}
    assert found["resnet50"]["outputs"] == ["classifier/resnet_v1_50/predictions/Softmax:0"]
    assert found["resnet50"]["input"] == [224, 224, 3]


def test_a_network_is_built_and_told(run, small, tmp_path):
    code, out, err = run("build", "small", "--weights", "seeded", "--output", tmp_path / "m")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == f"serve it: accelserve serve --model small={tmp_path / 'm'}"
    code, out, _ = run(
        *("build", "small", "--weights", "seeded", "--seed", 7, "--classes", 6, "--definition", "keras"),
        *("--output", tmp_path / "n", "--json"),
    )
    told = json.loads(out)
    assert (told["weights"], told["classes"], told["definition"]) == ("seed 7", 6, "keras")


def test_a_folder_that_exists_is_a_conflict(run, small, tmp_path):
    code, _, err = run("build", "small", "--weights", "seeded", "--output", tmp_path)
    assert code == 5
    assert err == f"accelserve: {tmp_path} exists: delete it, or choose another --output\n"


def test_an_unknown_network_is_not_found_and_the_known_ones_are_named(run):
    code, _, err = run("build", "resnet51", "--weights", "seeded")
    assert code == 4
    assert err.startswith("accelserve: no recipe 'resnet51'; there are resnet50, ")


def test_labels_have_a_line_for_each_class(run, small, tmp_path):
    (tmp_path / "labels").write_text("a\nb\nc\n")
    flags = ("--labels", tmp_path / "labels", "--output", tmp_path / "m")
    code, _, err = run("build", "small", "--weights", "seeded", *flags)
    assert (code, err) == (2, f"accelserve: --labels {tmp_path / 'labels'}: want 4 lines, one a class, got 3\n")
    assert run("build", "small", "--weights", "seeded", "--classes", 3, *flags)[0] == 0


def arrays(classes=4):
    network = resnet(ResNet("r", (1, 1), 8, 32), classes)
    return {parameter.name: SeededWeights(2).array(parameter) for parameter in network.parameters}


def test_the_users_weights_say_how_many_classes_there_are(run, small, tmp_path):
    np.savez(tmp_path / "w.npz", **arrays(classes=3))
    code, out, _ = run("build", "small", "--weights", tmp_path / "w.npz", "--output", tmp_path / "m", "--json")
    told = json.loads(out)
    assert (code, told["weights"], told["classes"]) == (0, "w.npz", 3)


def test_weights_that_do_not_fit_end_with_3_and_leave_nothing(run, small, tmp_path):
    np.savez(tmp_path / "w.npz", **arrays())
    flags = ("--weights", tmp_path / "w.npz", "--classes", 9, "--output", tmp_path / "m")
    code, _, err = run("build", "small", *flags)
    assert code == 3
    assert "r/logits/biases: want [9], got [4]" in err
    assert not (tmp_path / "m").exists()


def test_weights_that_are_not_there_end_with_4(run, small, tmp_path):
    code, _, err = run("build", "small", "--weights", tmp_path / "w.npz", "--output", tmp_path / "m")
    assert code == 4
    assert err.startswith(f"accelserve: weights {tmp_path / 'w.npz'}: no such .npz file, Keras file ")


def test_flags_that_do_not_go_together_are_all_told(run, tmp_path):
    code, _, err = run("build", "vgg16", "--weights", tmp_path / "w.npz", "--seed", 1, "--detections")
    assert code == 2
    assert err.splitlines() == [
        "accelserve: --detections: vgg16 finds no boxes; ssd-vgg does",
        "accelserve: --seed goes with --weights seeded",
    ]
    assert run("build", "ssd-vgg", "--weights", "seeded", "--definition", "keras")[0] == 2
    assert run("build", "vgg16", "--weights", "seeded", tmp_path / "w.npz")[0] == 2


def test_weights_of_keras_are_not_put_into_slims_network(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "predictions"
        group.create_dataset("0", data=np.zeros((2, 3)))
    flags = ("--weights", tmp_path / "w.weights.h5", "--output", tmp_path / "m")
    code, _, err = run("build", "resnet50", *flags, "--definition", "slim")
    assert (code, err.count("of Keras: they belong to Keras' network")) == (2, 1)
    code, _, err = run("build", "ssd-vgg", *flags)
    assert (code, err.count("of Keras: Keras has no SSD-VGG-300")) == (2, 1)


def test_the_command_to_serve_it_can_be_typed_where_the_folder_has_odd_characters(run, small, tmp_path):
    folder = tmp_path / 'my "é" net; $HOME'
    _, out, _ = run("build", "small", "--weights", "seeded", "--output", folder)
    assert shlex.split(out.splitlines()[1])[-2:] == ["--model", f"small={folder}"]
