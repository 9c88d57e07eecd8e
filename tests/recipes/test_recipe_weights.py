"""Weights that the user brings: read from every form, and all that does not fit is told at once."""

import numpy as np
import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.recipes.catalog import RECIPES, Recipe, Wanted
from accelserve.recipes.file_weights import FileWeights
from accelserve.recipes.keras_names import keras_name
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights
from accelserve.recipes.weight_files import opened

CLASSES = 4


def quiet(what, done, total):
    pass


def network():
    return resnet(ResNet("resnet_v1_50", (1, 1), width=4, size=32), CLASSES)


RECIPE = Recipe("small", "Small", lambda wanted: network(), "resnet_v1_50/logits/biases", classes=9)


def arrays_of(parameters, seed=5):
    return {parameter.name: SeededWeights(seed).array(parameter) for parameter in parameters}


def check(path):
    with opened(path) as arrays:
        weights = FileWeights(arrays, path)
        weights.check(network().parameters, quiet)
        return {parameter.name: weights.array(parameter) for parameter in network().parameters}


def refused(path):
    with pytest.raises(ScoringError) as caught:
        check(path)
    return caught.value


def test_an_npz_is_read_with_and_without_the_colon_zero(tmp_path):
    wanted = arrays_of(network().parameters)
    np.savez(tmp_path / "w.npz", **{f"{name}:0" if "conv1" in name else name: value for name, value in wanted.items()})
    got = check(tmp_path / "w.npz")
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_the_classes_are_the_files_own(tmp_path):
    np.savez(tmp_path / "w.npz", **arrays_of(network().parameters))
    with opened(tmp_path / "w.npz") as arrays:
        assert FileWeights(arrays, tmp_path / "w.npz").classes(RECIPE) == CLASSES


def test_halves_and_doubles_become_float32(tmp_path):
    wanted = arrays_of(network().parameters)
    np.savez(tmp_path / "w.npz", **{name: value.astype(np.float16) for name, value in wanted.items()})
    assert check(tmp_path / "w.npz")["resnet_v1_50/conv1/weights"].dtype == np.float32


def test_everything_that_does_not_fit_is_named_at_once(tmp_path):
    arrays = arrays_of(network().parameters)
    del arrays["resnet_v1_50/conv1/weights"]
    arrays["resnet_v1_50/conv9/weights"] = np.zeros((1, 2), np.float32)
    arrays["resnet_v1_50/logits/biases"] = np.zeros(7, np.float32)
    arrays["resnet_v1_50/logits/weights"][0, 0, 0, :2] = np.nan, np.inf
    arrays["resnet_v1_50/conv1/BatchNorm/gamma"] = np.ones(4, np.int32)
    arrays["resnet_v1_50/conv1/BatchNorm/moving_variance"][1] = -2
    np.savez(tmp_path / "w.npz", **arrays)
    error = refused(tmp_path / "w.npz")
    assert error.kind is Kind.PRECONDITION
    count = len(network().parameters)
    assert error.message.splitlines() == [
        f"the weights of w.npz do not fit ({count - 1} of {count} arrays are there):",
        "  missing: resnet_v1_50/conv1/weights [7,7,3,4]",
        "  not in the network: resnet_v1_50/conv9/weights [1,2]",
        "  resnet_v1_50/logits/biases: want [4], got [7]",
        "  resnet_v1_50/conv1/BatchNorm/gamma: want floats, got int32",
        "  resnet_v1_50/conv1/BatchNorm/moving_variance: a variance cannot be negative, got -2",
        "  resnet_v1_50/logits/weights: 2 of 128 values are not finite float32 numbers",
    ]


def test_doubles_beyond_float32_are_not_finite(tmp_path):
    arrays = arrays_of(network().parameters)
    arrays["resnet_v1_50/logits/biases"] = np.full(4, 1e300)
    np.savez(tmp_path / "w.npz", **arrays)
    assert "4 of 4 values are not finite float32 numbers" in refused(tmp_path / "w.npz").message


def test_of_many_problems_of_a_kind_the_first_are_told_and_the_rest_counted(tmp_path):
    np.savez(tmp_path / "w.npz", other=np.zeros(3))
    lines = refused(tmp_path / "w.npz").message.splitlines()
    assert len(lines) == 1 + 20 + 1 + 1
    assert lines[-2] == f"  and {len(network().parameters) - 20} more of these"


def test_what_training_leaves_behind_is_passed_over(tmp_path):
    arrays = arrays_of(network().parameters)
    arrays |= {f"{name}/Momentum": value for name, value in arrays.items()}
    arrays["global_step"] = np.array(7)
    arrays["resnet_v1_50/mean_rgb"] = np.zeros(3)
    np.savez(tmp_path / "w.npz", **arrays)
    check(tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["w.npz", "w.h5", "w.keras", "w.weights.h5"])
def test_a_file_that_is_something_else_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"something else")
    error = refused(tmp_path / name)
    assert error.kind is Kind.PRECONDITION
    assert error.message.startswith(f"weights {tmp_path / name} cannot be read: ")


@pytest.mark.parametrize("name", ["none.npz", "none.h5", "none.ckpt", "nowhere/model.ckpt-5.index"])
def test_a_file_that_is_not_there_is_not_found(tmp_path, name):
    assert refused(tmp_path / name).kind is Kind.NOT_FOUND


def test_pickles_are_not_opened(tmp_path):
    arrays = dict(arrays_of(network().parameters))
    arrays["resnet_v1_50/logits/biases"] = np.array([{}, {}, {}, {}], dtype=object)
    np.savez(tmp_path / "w.npz", **arrays)
    assert "cannot be read: Object arrays cannot be loaded" in refused(tmp_path / "w.npz").message


def test_a_layer_without_a_name_is_not_guessed(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars").create_dataset("0", data=np.zeros((1, 1, 2, 3)))
    assert "no weights of named layers are in it" in refused(tmp_path / "w.weights.h5").message


@pytest.mark.parametrize(
    ("slim", "keras"),
    [
        ("resnet_v1_50/conv1/weights", "conv1_conv/kernel"),
        ("resnet_v1_50/conv1/BatchNorm/gamma", "conv1_bn/gamma"),
        ("resnet_v1_152/block3/unit_36/bottleneck_v1/conv2/biases", "conv4_block36_2_conv/bias"),
        ("resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/weights", "conv2_block1_0_conv/kernel"),
        ("resnet_v1_50/logits/weights", "predictions/kernel"),
        ("densenet121/conv1/weights", "conv1_conv/kernel"),
        ("densenet121/BatchNorm/beta", "conv1_bn/beta"),
        ("densenet121/dense_block4/conv_block16/x1/BatchNorm/gamma", "conv5_block16_0_bn/gamma"),
        ("densenet121/dense_block4/conv_block16/x2/Conv/weights", "conv5_block16_2_conv/kernel"),
        ("densenet121/transition_block1/blk/BatchNorm/moving_mean", "pool2_bn/moving_mean"),
        ("densenet121/final_block/BatchNorm/moving_variance", "bn/moving_variance"),
        ("vgg_16/conv5/conv5_3/biases", "block5_conv3/bias"),
        ("vgg_16/fc6/weights", "fc1/kernel"),
        ("vgg_16/fc8/biases", "predictions/bias"),
    ],
)
def test_names_of_keras(slim, keras):
    assert keras_name(slim) == keras


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if "keras" in recipe.definitions])
def test_every_parameter_has_a_name_of_its_own_in_keras(name):
    parameters = RECIPES[name].build(Wanted(1000, "keras")).parameters
    assert len({keras_name(parameter.name) for parameter in parameters}) == len(parameters)


def test_a_featurizer_and_a_classifier_are_read_as_one(tmp_path):
    wanted = arrays_of(network().parameters)
    head = {name: value for name, value in wanted.items() if "logits" in name}
    body = {name: value for name, value in wanted.items() if name not in head}
    np.savez(tmp_path / "body.npz", global_step=1, **body)
    np.savez(tmp_path / "head.npz", global_step=2, **head)
    with opened(tmp_path / "body.npz", tmp_path / "head.npz") as arrays:
        weights = FileWeights(arrays, tmp_path / "body.npz", tmp_path / "head.npz")
        weights.check(network().parameters, quiet)
        assert weights.description == "body.npz, head.npz"
        assert all(np.array_equal(weights.array(p), wanted[p.name]) for p in network().parameters)


def test_an_array_in_two_files_is_refused(tmp_path):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x=np.zeros(2), y=np.zeros(2))
    with pytest.raises(ScoringError) as caught, opened(tmp_path / "a.npz", tmp_path / "b.npz"):
        pass
    wanted = f"weights {tmp_path / 'b.npz'}: x and 1 more arrays are in an earlier file already"
    assert (caught.value.kind, caught.value.message) == (Kind.PRECONDITION, wanted)


def test_a_file_of_keras_2_is_read_by_its_attributes(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv1/bn", b"relu"]
        file.create_group("relu").attrs["weight_names"] = np.zeros(0, "S1")
        layer = file.create_group("conv1/bn")
        layer.attrs["weight_names"] = [b"conv1/bn/gamma:0", b"conv1/bn/moving_mean:0"]
        layer["conv1/bn/gamma:0"], layer["conv1/bn/moving_mean:0"] = np.ones(3), np.zeros(3)
    with opened(tmp_path / "w.h5") as arrays:
        assert arrays.shapes == {"conv1_bn/gamma": (3,), "conv1_bn/moving_mean": (3,)}
        assert arrays.read("conv1_bn/gamma").tolist() == [1, 1, 1]


def test_a_file_that_breaks_off_in_its_values_is_refused_by_name(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", **arrays_of(network().parameters))
    content = bytearray((tmp_path / "w.npz").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    (tmp_path / "w.npz").write_bytes(content)
    assert refused(tmp_path / "w.npz").message.startswith(f"weights {tmp_path / 'w.npz'} cannot be read: ")


def test_of_several_checkpoints_in_a_folder_one_has_to_be_named(tmp_path):
    for step in (1, 20):
        (tmp_path / f"model.ckpt-{step}.index").touch()
    error = refused(tmp_path)
    assert error.kind is Kind.PRECONDITION
    assert error.message == f"weights {tmp_path}: want one checkpoint, got model.ckpt-1, model.ckpt-20; name one"
