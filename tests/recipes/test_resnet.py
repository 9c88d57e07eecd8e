"""ResNet: what it costs, what it is called, and that a small one answers."""

import numpy as np
import onnxruntime
import pytest

from accelserve.recipes.catalog import RECIPES, Wanted
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights
from accelserve.recipes.writing import write_model


def quiet(what, done, total):
    pass


@pytest.mark.parametrize(
    ("name", "definition", "parameters", "macs"),
    [
        ("resnet50", "keras", 25_636_712, 3.858e9),
        ("resnet152", "keras", 60_419_944, 11.282e9),
        # slim: no biases in convolutions, and most of a block works on the halved picture one unit earlier.
        ("resnet50", "slim", 25_636_712 - 26_560, 3.482e9),
        ("resnet152", "slim", 60_419_944 - 75_712, 10.907e9),
    ],
)
def test_the_true_networks_are_counted_without_weights(name, definition, parameters, macs):
    network = RECIPES[name].build(Wanted(1000, definition))
    assert network.parameter_count == parameters
    assert network.macs == pytest.approx(macs, rel=2e-4)


def test_names_and_split_are_the_originals():
    network = RECIPES["resnet50"].build(Wanted(1000))
    assert network.device_outputs == ("resnet_v1_50/pool5:0",)
    assert [value.name for value in network.outputs] == ["classifier/resnet_v1_50/predictions/Softmax:0"]
    names = {node.name for node in network.nodes}
    assert {
        "resnet_v1_50/conv1/Conv2D",
        "resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/Conv2D",
        "resnet_v1_50/block4/unit_3/bottleneck_v1/conv3/BatchNorm/FusedBatchNorm",
    } <= names
    assert len(names) == len(network.nodes)
    parameters = {parameter.name: parameter.shape for parameter in network.parameters}
    assert parameters["resnet_v1_50/block1/unit_1/bottleneck_v1/conv2/weights"] == (3, 3, 64, 64)
    assert parameters["resnet_v1_50/logits/weights"] == (1, 1, 2048, 1000)


def strided(network):
    """Names of the layers that halve the picture, in order."""
    strides = {node.name: [a.ints[0] for a in node.attribute if a.name == "strides"] for node in network.nodes}
    return [name.split("/", 1)[1] for name, stride in strides.items() if stride == [2]]


def test_slim_strides_in_the_last_unit_and_keras_in_the_first():
    assert strided(resnet(ResNet("r", (2, 2)), 5)) == [
        "conv1/Conv2D",
        "pool1/MaxPool",
        "block1/unit_2/bottleneck_v1/shortcut/MaxPool",
        "block1/unit_2/bottleneck_v1/conv2/Conv2D",
    ]
    assert strided(resnet(ResNet("r", (2, 2), keras=True), 5)) == [
        "conv1/Conv2D",
        "pool1/MaxPool",
        "block2/unit_1/bottleneck_v1/shortcut/Conv2D",
        "block2/unit_1/bottleneck_v1/conv1/Conv2D",
    ]


@pytest.mark.parametrize("keras", [False, True])
def test_a_small_one_answers_alike_alone_and_in_a_batch(tmp_path, keras):
    network = resnet(ResNet("r", (2, 1, 2), width=8, size=40, keras=keras), 7)
    write_model(network, SeededWeights(0), {}, tmp_path, quiet)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    pictures = np.random.default_rng(1).normal(scale=64, size=(3, 40, 40, 3)).astype(np.float32)
    (together,) = session.run(None, {"InputImage:0": pictures})
    (alone,) = session.run(None, {"InputImage:0": pictures[1:2]})
    assert together.shape == (3, 7)
    assert together.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert together[1] == pytest.approx(alone[0], rel=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-3
