"""The graph builder against what TensorFlow's padding rules and plain arithmetic say."""

import numpy as np
import onnxruntime
import pytest

from accelserve.recipes.network import Network, Norm, Parameter
from accelserve.recipes.seeded import SeededWeights
from accelserve.recipes.writing import as_onnx, write_model


def quiet(what, done, total):
    pass


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "out"),
    [
        (224, 7, 2, "SAME", 112),
        (112, 3, 2, "SAME", 56),
        (112, 3, 2, 1, 56),
        (75, 2, 2, "VALID", 37),
        (37, 2, 2, "SAME", 19),
        (224, 3, 1, "SAME", 224),
    ],
)
def test_a_pool_has_the_size_that_tensorflow_gives_it(size, kernel, stride, padding, out):
    network = Network("n", size, 1.0)
    pooled = network.max_pool(network.image(), "pool", kernel, stride, padding)
    assert (pooled.height, pooled.width) == (out, out)


def test_same_padding_puts_the_odd_row_behind():
    network = Network("n", 112, 1.0)
    network.max_pool(network.image(), "pool", 3, 2)
    pads = next(a for a in network.nodes[-1].attribute if a.name == "pads")
    assert list(pads.ints) == [0, 0, 1, 1]


def test_a_convolution_is_counted_and_calculated(tmp_path):
    """5x5, two channels out of three, 3x3, stride 2, SAME: against loops."""
    network = Network("n", 5, 1.0)
    image = network.conv(network.image(), "conv", 2, 3, stride=2, bias=True)
    image = network.relu(network.norm(image, "conv", Norm(1e-3)), "conv")
    network.output(image.tensor, (image.channels, image.height, image.width))
    assert network.macs == 3 * 3 * 2 * 3 * 3 * 3
    assert network.parameter_count == 3 * 3 * 3 * 2 + 2 + 4 * 2
    weights = SeededWeights(3)
    write_model(network, weights, {}, tmp_path, quiet)
    pictures = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    (answered,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"InputImage:0": pictures})
    kernel, bias, gamma, beta, mean, variance = map(weights.array, network.parameters)
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64)
    wanted = np.zeros((2, 2, 3, 3))
    for y in range(3):
        for x in range(3):
            window = padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            summed = np.einsum("nhwi,hwio->no", window, kernel) + bias
            normal = (summed - mean) / np.sqrt(variance + 1e-3) * gamma + beta
            wanted[:, :, y, x] = np.maximum(normal, 0)
    assert answered == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_a_seed_gives_the_same_bits_everywhere():
    """The numbers are written down here: another machine, or another numpy, has to give them too."""
    kernel = Parameter("some/weights", (2, 1, 1, 2), spread=0.5)
    again = SeededWeights(1).array(kernel)
    assert again.dtype == np.float32
    assert again.tobytes().hex() == "8d883c3feb007b3e8d883cbfeb007bbe"
    assert SeededWeights(2).array(kernel).tobytes() != again.tobytes()


def test_seeded_values_have_the_mean_and_the_spread_that_are_asked_for():
    drawn = SeededWeights(0).array(Parameter("v", (20_001,), mean=3.0, spread=0.5))
    assert drawn.mean() == pytest.approx(3.0, abs=0.02)
    assert drawn.std() == pytest.approx(0.5, rel=0.02)


def test_each_output_of_a_seeded_kernel_has_a_mean_of_nothing():
    kernel = SeededWeights(0).array(Parameter("k", (3, 3, 8, 5), spread=1.0))
    assert kernel.mean(axis=(0, 1, 2)) == pytest.approx(np.zeros(5), abs=1e-6)


def test_a_kernel_is_turned_and_a_matrix_is_not():
    values = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert as_onnx(Parameter("k", (1, 2, 3, 4), form="image"), values)[3, 2, 0, 1] == values[0, 1, 2, 3]
    assert as_onnx(Parameter("m", (1, 2, 3, 4), form="matrix"), values).shape == (6, 4)
