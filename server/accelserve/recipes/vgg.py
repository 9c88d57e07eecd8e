"""VGG-16: slim's `vgg_16`, which is Keras' VGG16 too, its dense layers written as convolutions."""

from dataclasses import dataclass

from accelserve.recipes.network import Image, Network, Padding


@dataclass(frozen=True, slots=True)
class Vgg:
    """width: channels of the first block, doubled by each up to eight times as many; dense: of fc6 and fc7."""

    name: str = "vgg_16"
    width: int = 64
    dense: int = 4096
    size: int = 224


_CONVOLUTIONS = (2, 2, 3, 3, 3)


def vgg(plan: Vgg, classes: int) -> Network:
    """Ends in logits: the original's service has no softmax here."""
    name = plan.name
    network = Network(name, plan.size, input_spread=64.0)
    image = network.image()
    for block in range(1, 6):
        image = network.max_pool(vgg_block(network, image, name, block, plan.width), f"{name}/pool{block}", 2, 2)
    image = layer(network, image, f"{name}/fc6", plan.dense, image.height, "VALID")
    image = network.conv(image, f"{name}/fc7", plan.dense, 1, bias=True)
    image = network.relu(image, f"{name}/fc7/NCHW")
    count = network.features(image, f"{name}/fc7/Relu", f"{name}/fc7/Relu")
    network.output(network.classifier(f"{name}/fc8", count, classes, f"{name}/fc8/squeezed"), (classes,))
    return network


def vgg_block(network: Network, image: Image, name: str, block: int, width: int) -> Image:
    """The convolutions of one of the five blocks; the SSD stands on them as well."""
    channels = width * min(2 ** (block - 1), 8)
    for number in range(1, _CONVOLUTIONS[block - 1] + 1):
        image = layer(network, image, f"{name}/conv{block}/conv{block}_{number}", channels, 3)
    return image


def layer(
    network: Network,
    image: Image,
    scope: str,
    channels: int,
    kernel: int,
    padding: Padding = "SAME",
    stride: int = 1,
    dilation: int = 1,
) -> Image:
    """A convolution with biases and ReLU."""
    image = network.conv(image, scope, channels, kernel, stride=stride, padding=padding, dilation=dilation, bias=True)
    return network.relu(image, scope)
