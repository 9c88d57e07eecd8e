"""DenseNet-121: pudae's definition in slim, which the original's names come from, and Keras' DenseNet121.

The two have the same parameters; they pad the two halvings at the beginning differently (TensorFlow's SAME, which puts
the odd row behind; Keras on both sides) and differ in epsilon (1.1e-5; 1.001e-5).
"""

from dataclasses import dataclass

from accelserve.recipes.network import Image, Network, Norm

_BOTTLENECK = 4


@dataclass(frozen=True, slots=True)
class DenseNet:
    """layers: how many in each dense block. growth: channels that each adds; twice as many come from the first
    convolution."""

    name: str = "densenet121"
    layers: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    size: int = 224
    keras: bool = False

    @property
    def norm(self) -> Norm:
        return Norm(1.001e-5 if self.keras else 1.1e-5)


def densenet(plan: DenseNet, classes: int) -> Network:
    """The pictures arrive multiplied by 0.017, and so with values of about one."""
    name = plan.name
    network = Network(name, plan.size, input_spread=1.1)
    conv_padding, pool_padding = (3, 1) if plan.keras else ("SAME", "SAME")
    image = network.conv(network.image(), f"{name}/conv1", 2 * plan.growth, 7, stride=2, padding=conv_padding)
    image = network.relu(network.norm(image, name, plan.norm), name)
    image = network.max_pool(image, f"{name}/MaxPool2D", 3, 2, pool_padding)
    for block, layers in enumerate(plan.layers, 1):
        for layer in range(1, layers + 1):
            image = _layer(network, plan, image, f"{name}/dense_block{block}/conv_block{layer}")
        if block < len(plan.layers):
            image = _transition(network, plan, image, f"{name}/transition_block{block}")
    image = network.relu(network.norm(image, f"{name}/final_block", plan.norm), f"{name}/final_block")
    mean = f"{name}/final_block/global_avg_pool/Mean"
    pooled = network.op("GlobalAveragePool", f"{mean}/NCHW", [image.tensor])
    count = network.features(Image(pooled, image.channels, 1, 1), mean, mean)
    logits = network.classifier(f"{name}/logits", count, classes, f"{name}/logits/BiasAdd")
    softmax = network.op("Softmax", f"classifier/{name}/predictions/Softmax", [logits], axis=1)
    network.output(softmax, (classes,))
    return network


def _layer(network: Network, plan: DenseNet, image: Image, scope: str) -> Image:
    """What comes in, and `growth` channels more."""
    narrow = _conv(network, plan, image, f"{scope}/x1", _BOTTLENECK * plan.growth, 1)
    return network.concat(image, _conv(network, plan, narrow, f"{scope}/x2", plan.growth, 3), scope)


def _transition(network: Network, plan: DenseNet, image: Image, scope: str) -> Image:
    """Half the channels, half the height and width."""
    image = _conv(network, plan, image, f"{scope}/blk", image.channels // 2, 1)
    return network.average_pool(image, f"{scope}/AvgPool2D", 2, 2)


def _conv(network: Network, plan: DenseNet, image: Image, scope: str, channels: int, kernel: int) -> Image:
    image = network.relu(network.norm(image, scope, plan.norm), scope)
    return network.conv(image, f"{scope}/Conv", channels, kernel)
