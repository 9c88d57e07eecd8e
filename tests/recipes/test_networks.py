"""DenseNet-121, VGG-16 and SSD-VGG-300: what they cost, what they are called, what comes out."""

import numpy as np
import onnxruntime
import pytest

from accelserve.recipes.catalog import RECIPES, Wanted
from accelserve.recipes.densenet import DenseNet, densenet
from accelserve.recipes.seeded import SeededWeights
from accelserve.recipes.ssd import Ssd, ssd
from accelserve.recipes.vgg import Vgg, vgg
from accelserve.recipes.writing import write_model

SSD_GRIDS = ((37, 4), (19, 6), (10, 6), (5, 6), (3, 4), (1, 4))


def quiet(what, done, total):
    pass


def shape(value):
    return [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "layers"),
    [
        ("densenet121", 8_062_504, 2.834e9, 121),
        ("vgg16", 138_357_544, 15.470e9, 16),
        ("ssd-vgg", 26_285_486, 30.897e9, 35),
    ],
)
def test_the_true_networks_are_counted_without_weights(name, parameters, macs, layers):
    for definition in RECIPES[name].definitions:
        network = RECIPES[name].build(Wanted(RECIPES[name].classes, definition))
        assert network.parameter_count == parameters
        assert network.macs == pytest.approx(macs, rel=2e-4)
        assert len(network.layers) == layers


@pytest.mark.parametrize(
    ("name", "device", "output"),
    [
        (
            "densenet121",
            "densenet121/final_block/global_avg_pool/Mean:0",
            "classifier/densenet121/predictions/Softmax:0",
        ),
        ("vgg16", "vgg_16/fc7/Relu:0", "classifier/vgg_16/fc8/squeezed:0"),
    ],
)
def test_classifiers_are_split_and_named_as_the_original(name, device, output):
    network = RECIPES[name].build(Wanted(1000))
    assert network.device_outputs == (device,)
    assert [(value.name, shape(value)) for value in network.outputs] == [(output, ["N", 1000])]


@pytest.mark.parametrize("name", list(RECIPES))
def test_no_two_operators_and_no_two_parameters_share_a_name(name):
    recipe = RECIPES[name]
    network = recipe.build(Wanted(recipe.classes, recipe.definitions[-1], recipe.detects))
    made = [tensor for node in network.nodes for tensor in node.output]
    assert len({node.name for node in network.nodes}) == len(network.nodes)
    assert len(set(made)) == len(made)
    names = [parameter.name for parameter in network.parameters]
    assert len(set(names)) == len(names)


def test_the_ssd_has_twelve_raw_outputs_classes_first():
    network = RECIPES["ssd-vgg"].build(Wanted(21))
    blocks = [f"ssd_300_vgg/block{block}_box" for block in (4, 7, 8, 9, 10, 11)]
    assert [value.name for value in network.outputs] == [
        *(f"{block}/Reshape_1:0" for block in blocks),
        *(f"{block}/Reshape:0" for block in blocks),
    ]
    assert [shape(value) for value in network.outputs] == [
        *(["N", side, side, anchors, 21] for side, anchors in SSD_GRIDS),
        *(["N", side, side, anchors, 4] for side, anchors in SSD_GRIDS),
    ]
    assert sum(side * side * anchors for side, anchors in SSD_GRIDS) == 8_432
    assert network.device_outputs == tuple(value.name for value in network.outputs)


def answers(network, folder, pictures):
    write_model(network, SeededWeights(0), {}, folder, quiet)
    return onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"InputImage:0": pictures})


def pictures(rows, size, spread):
    return np.random.default_rng(1).normal(scale=spread, size=(rows, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("network", "size", "spread"),
    [
        (lambda: densenet(DenseNet(layers=(2, 1), growth=4, size=32), 5), 32, 1.1),
        (lambda: densenet(DenseNet(layers=(2, 1), growth=4, size=32, keras=True), 5), 32, 1.1),
        (lambda: vgg(Vgg(width=4, dense=16, size=64), 5), 64, 64.0),
    ],
)
def test_a_small_classifier_answers_pictures_one_by_one_as_in_a_batch(tmp_path, network, size, spread):
    shown = pictures(3, size, spread)
    (together,) = answers(network(), tmp_path, shown)
    (alone,) = answers(network(), tmp_path, shown[2:])
    assert together.shape == (3, 5)
    assert together[2] == pytest.approx(alone[0], rel=1e-4, abs=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_a_small_ssd_has_the_shapes_that_it_tells(tmp_path):
    network = ssd(Ssd(width=2), 3)
    got = answers(network, tmp_path, pictures(1, 300, 64.0))
    assert [list(array.shape[1:]) for array in got] == [shape(value)[1:] for value in network.outputs]


def test_pixels_of_the_first_ssd_map_have_the_length_of_their_scale(tmp_path):
    """tf.nn.l2_normalize over channels, times gamma, by numpy."""
    network = ssd(Ssd(width=2), 3)
    image = next(node for node in network.nodes if node.op_type == "LpNormalization")
    network.output(image.input[0], (16, 37, 37))
    network.output("ssd_300_vgg/block4_box/L2Normalization/mul:0", (16, 37, 37))
    *_, before, after = answers(network, tmp_path, pictures(1, 300, 64.0))
    gamma = next(p for p in network.parameters if p.name.endswith("L2Normalization/gamma"))
    length = np.sqrt(np.maximum((before.astype(np.float64) ** 2).sum(axis=1, keepdims=True), 1e-12))
    scaled = before / length * SeededWeights(0).array(gamma).reshape(1, -1, 1, 1)
    assert after == pytest.approx(scaled, rel=1e-5, abs=1e-6)
