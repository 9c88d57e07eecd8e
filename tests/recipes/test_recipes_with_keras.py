"""Networks with weights that keras.applications saved, against Keras itself; small pictures, true depth."""

import numpy as np
import onnxruntime
import pytest

from accelserve.recipes.densenet import DenseNet, densenet
from accelserve.recipes.file_weights import FileWeights
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.vgg import Vgg, vgg
from accelserve.recipes.weight_files import opened
from accelserve.recipes.writing import write_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]
CLASSES = 6


def quiet(what, done, total):
    pass


def resnet50(size):
    return resnet(ResNet("resnet_v1_50", (3, 4, 6, 3), size=size, keras=True), CLASSES)


def resnet152(size):
    return resnet(ResNet("resnet_v1_152", (3, 8, 36, 3), size=size, keras=True), CLASSES)


def densenet121(size):
    return densenet(DenseNet(size=size, keras=True), CLASSES)


def vgg16(size):
    return vgg(Vgg(size=size), CLASSES)


def keras_model(name, size):
    """Of random weights, also where a new model of Keras has only zeros and ones."""
    import keras

    keras.utils.set_random_seed(4)
    options = {"classifier_activation": None} if name == "VGG16" else {}
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=CLASSES, **options)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [random.uniform(low, high, shape) for low, high in ((0.5, 1), (-0.2, 0.2), (-0.2, 0.2), (0.5, 2))]
            )
    return model


def compare(model, network, path, folder, size):
    pictures = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    pictures[1] = 6 * np.abs(pictures[1])  # unlike the first even to a network of random weights
    with opened(path) as arrays:
        weights = FileWeights(arrays, path)
        weights.check(network.parameters, quiet)
        write_model(network, weights, {}, folder, quiet)
    (answered,) = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"InputImage:0": pictures})
    wanted = model(pictures, training=False).numpy()
    assert np.abs(answered - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "network", "size", "file"),
    [
        ("ResNet50", resnet50, 65, "w.keras"),
        ("DenseNet121", densenet121, 33, "w.h5"),
        pytest.param("VGG16", vgg16, 32, "w.keras", marks=pytest.mark.full),
        pytest.param("ResNet152", resnet152, 64, "w.weights.h5", marks=pytest.mark.full),
        pytest.param("ResNet50", resnet50, 224, "w.weights.h5", marks=pytest.mark.full),
        pytest.param("DenseNet121", densenet121, 224, "w.h5", marks=pytest.mark.full),
        pytest.param("VGG16", vgg16, 224, "w.weights.h5", marks=pytest.mark.full),
    ],
)
def test_answers_are_those_of_keras(tmp_path, name, network, size, file):
    model = keras_model(name, size)
    path = tmp_path / file
    (model.save_weights if file.endswith(".weights.h5") else model.save)(path)
    compare(model, network(size), path, tmp_path, size)
