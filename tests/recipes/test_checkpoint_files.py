"""TensorFlow's own checkpoints, and slim's networks as TensorFlow would run them."""

import numpy as np
import onnxruntime
import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.recipes.densenet import DenseNet, densenet
from accelserve.recipes.file_weights import FileWeights
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights
from accelserve.recipes.ssd import Ssd, ssd
from accelserve.recipes.weight_files import opened
from accelserve.recipes.writing import write_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]


def quiet(what, done, total):
    pass


def save(parameters, prefix):
    """A TF1 checkpoint: variables by name."""
    from tensorflow.compat import v1

    with v1.Graph().as_default(), v1.Session() as session:
        for parameter in parameters:
            v1.get_variable(parameter.name, initializer=SeededWeights(8).array(parameter))
        v1.get_variable("global_step", initializer=np.int64(7))
        session.run(v1.global_variables_initializer())
        return v1.train.Saver().save(session, str(prefix), global_step=7)


class Slim:
    """slim's layers in TensorFlow 2, with a network's seeded weights; written from tf_slim, not from the recipes."""

    def __init__(self, parameters, epsilon):
        self.values = {parameter.name: SeededWeights(8).array(parameter) for parameter in parameters}
        self.epsilon = epsilon

    def conv(self, x, scope, stride=1, padding="SAME", rate=1):
        import tensorflow as tf

        x = tf.nn.conv2d(x, self.values[f"{scope}/weights"], stride, padding, dilations=rate)
        return x + self.values[f"{scope}/biases"] if f"{scope}/biases" in self.values else x

    def conv_same(self, x, scope, size, stride):
        """resnet_utils.conv2d_same: pads alike whatever the size of the picture."""
        import tensorflow as tf

        if stride == 1:
            return self.conv(x, scope)
        before = (size - 1) // 2
        sides = [before, size - 1 - before]
        return self.conv(tf.pad(x, [[0, 0], sides, sides, [0, 0]]), scope, stride, "VALID")

    def norm_relu(self, x, scope, relu=True):
        import tensorflow as tf

        names = ("moving_mean", "moving_variance", "beta", "gamma")
        x = tf.nn.batch_normalization(x, *(self.values[f"{scope}/BatchNorm/{n}"] for n in names), self.epsilon)
        return tf.nn.relu(x) if relu else x

    def resnet(self, x, units):
        import tensorflow as tf

        name = "resnet_v1_50"
        x = self.norm_relu(self.conv_same(x, f"{name}/conv1", 7, 2), f"{name}/conv1")
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for block, count in enumerate(units, 1):
            for unit in range(1, count + 1):
                stride = 2 if unit == count and block < len(units) else 1
                scope = f"{name}/block{block}/unit_{unit}/bottleneck_v1"
                if f"{scope}/shortcut/weights" in self.values:
                    shortcut = self.norm_relu(
                        self.conv(x, f"{scope}/shortcut", stride), f"{scope}/shortcut", relu=False
                    )
                else:
                    shortcut = tf.nn.max_pool2d(x, 1, stride, "VALID")
                y = self.norm_relu(self.conv(x, f"{scope}/conv1"), f"{scope}/conv1")
                y = self.norm_relu(self.conv_same(y, f"{scope}/conv2", 3, stride), f"{scope}/conv2")
                y = self.norm_relu(self.conv(y, f"{scope}/conv3"), f"{scope}/conv3", relu=False)
                x = tf.nn.relu(shortcut + y)
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
        return tf.nn.softmax(tf.squeeze(self.conv(x, f"{name}/logits"), [1, 2]))

    def densenet(self, x, layers):
        import tensorflow as tf

        name = "densenet121"
        x = self.norm_relu(self.conv(x, f"{name}/conv1", 2), name)
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for block, count in enumerate(layers, 1):
            for layer in range(1, count + 1):
                y = x
                for scope in (f"{name}/dense_block{block}/conv_block{layer}/x{part}" for part in (1, 2)):
                    y = self.conv(self.norm_relu(y, scope), f"{scope}/Conv")
                x = tf.concat([x, y], 3)
            if block < len(layers):
                scope = f"{name}/transition_block{block}/blk"
                x = tf.nn.avg_pool2d(self.conv(self.norm_relu(x, scope), f"{scope}/Conv"), 2, 2, "VALID")
        x = tf.reduce_mean(self.norm_relu(x, f"{name}/final_block"), [1, 2], keepdims=True)
        return tf.nn.softmax(tf.squeeze(self.conv(x, f"{name}/logits"), [1, 2]))

    def ssd(self, x, classes):
        import tensorflow as tf

        name, maps = "ssd_300_vgg", []

        def relu(x, scope, *options):
            return tf.nn.relu(self.conv(x, f"{name}/{scope}", *options))

        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for number in range(1, count + 1):
                x = relu(x, f"conv{block}/conv{block}_{number}")
            if block == 4:
                maps.append(x)
            size, stride, padding = (3, 1, "SAME") if block == 5 else (2, 2, "VALID" if block == 3 else "SAME")
            x = tf.nn.max_pool2d(x, size, stride, padding)
        x = relu(relu(x, "conv6", 1, "SAME", 6), "conv7")
        maps.append(x)
        for block in ("block8", "block9", "block10", "block11"):
            x, halving = relu(x, f"{block}/conv1x1"), block in ("block8", "block9")
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]) if halving else x
            x = relu(x, f"{block}/conv3x3", 2 if halving else 1, "VALID")
            maps.append(x)
        maps[0] = tf.nn.l2_normalize(maps[0], 3) * self.values[f"{name}/block4_box/L2Normalization/gamma"]
        found = []
        for kind, numbers in (("conv_cls", classes), ("conv_loc", 4)):
            for block, image in zip((4, 7, 8, 9, 10, 11), maps, strict=True):
                raw = self.conv(image, f"{name}/block{block}_box/{kind}")
                found.append(tf.reshape(raw, [len(raw), *raw.shape[1:3], raw.shape[3] // numbers, numbers]))
        return found


@pytest.mark.parametrize(
    ("network", "run", "epsilon", "size", "spread"),
    [
        (
            lambda: resnet(ResNet("resnet_v1_50", (2, 3, 1), width=8, size=65), 5),
            lambda slim, x: [slim.resnet(x, (2, 3, 1))],
            1e-5,
            65,
            64,
        ),
        (
            lambda: densenet(DenseNet(layers=(2, 3, 2), growth=8, size=70), 5),
            lambda slim, x: [slim.densenet(x, (2, 3, 2))],
            1.1e-5,
            70,
            1.1,
        ),
        (lambda: ssd(Ssd(width=4), 3), lambda slim, x: slim.ssd(x, 3), 0.0, 300, 64),
    ],
    ids=["resnet", "densenet", "ssd"],
)
def test_a_checkpoint_answers_as_slims_network_does_in_tensorflow(tmp_path, network, run, epsilon, size, spread):
    network = network()
    prefix = save(network.parameters, tmp_path / "model.ckpt")
    pictures = np.random.default_rng(3).normal(scale=spread, size=(2, size, size, 3)).astype(np.float32)
    with opened(tmp_path / "model.ckpt-7.index") as arrays:
        weights = FileWeights(arrays, tmp_path / "model.ckpt-7")
        weights.check(network.parameters, quiet)
        write_model(network, weights, {}, tmp_path, quiet)
    assert prefix.endswith("model.ckpt-7")
    answered = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"InputImage:0": pictures})
    for got, wanted in zip(answered, run(Slim(network.parameters, epsilon), pictures), strict=True):
        wanted = wanted.numpy()
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
        assert np.abs(wanted[0] - wanted[1]).max() > 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("named", ["model.ckpt-7", "model.ckpt-7.meta", "model.ckpt-7.data-00000-of-00001", "."])
def test_a_checkpoint_is_found_by_any_of_its_files_and_by_its_folder(tmp_path, named):
    parameters = resnet(ResNet("resnet_v1_50", (1,), width=2, size=32), 3).parameters
    save(parameters, tmp_path / "model.ckpt")
    with opened(tmp_path / named) as arrays:
        assert arrays.shapes["resnet_v1_50/conv1/weights"] == (7, 7, 3, 2)


def test_a_broken_checkpoint_is_refused_by_name(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(b"broken")
    with pytest.raises(ScoringError) as caught, opened(tmp_path / "model.ckpt"):
        pass
    assert caught.value.kind is Kind.PRECONDITION
    assert caught.value.message.startswith(f"weights {tmp_path / 'model.ckpt'} cannot be read: ")


def test_a_checkpoint_whose_values_are_damaged_is_refused_by_name(tmp_path):
    parameters = resnet(ResNet("resnet_v1_50", (1,), width=2, size=32), 3).parameters
    save(parameters, tmp_path / "model.ckpt")
    data = tmp_path / "model.ckpt-7.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with opened(tmp_path) as arrays, pytest.raises(ScoringError) as caught:
        FileWeights(arrays, tmp_path).check(parameters, quiet)
    assert caught.value.kind is Kind.PRECONDITION
    assert caught.value.message.startswith(f"weights {tmp_path} cannot be read: ")
