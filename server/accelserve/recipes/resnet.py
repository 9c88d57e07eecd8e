"""ResNet v1 with bottlenecks: slim's `resnet_v1_50` and `resnet_v1_152`, and Keras' ResNet50 and ResNet152.

The two definitions have the same parameters by shape and are not the same network, so weights of one are wrong in the
other:
                      slim (tf_slim.nets.resnet_v1)            Keras (keras.applications)
    stride 2          in the 3x3 of a block's last unit        in the first 1x1 of a block's first unit
    first max pool    pads after the end (SAME)                pads on both sides
    shortcut          max pool 1x1 where only sizes differ     always a convolution in a first unit
    convolutions      without biases                           with biases
    epsilon           1e-5                                     1.001e-5
"""

from dataclasses import dataclass

from accelserve.recipes.network import Image, Network, Norm

_RESIDUAL_GAMMA = 0.25  # seeded: sums of many branches stay small enough for 16-bit floats


@dataclass(frozen=True, slots=True)
class ResNet:
    """units: how many in each of the four blocks. width: channels of the first bottleneck, doubled by each block."""

    name: str
    units: tuple[int, ...]
    width: int = 64
    size: int = 224
    keras: bool = False

    @property
    def norm(self) -> Norm:
        return Norm(1.001e-5 if self.keras else 1e-5)


def resnet(plan: ResNet, classes: int) -> Network:
    network = Network(plan.name, plan.size, input_spread=64.0)
    image = _conv(network, plan, network.image(), f"{plan.name}/conv1", plan.width, 7, stride=2)
    image = network.max_pool(image, f"{plan.name}/pool1", 3, 2, 1 if plan.keras else "SAME")
    for block, units in enumerate(plan.units):
        image = _block(network, plan, image, block, units)
    pooled = network.op("GlobalAveragePool", f"{plan.name}/pool5/Mean", [image.tensor])
    count = network.features(Image(pooled, image.channels, 1, 1), f"{plan.name}/pool5", f"{plan.name}/pool5/NHWC")
    scope = f"{plan.name}/logits"
    logits = network.classifier(scope, count, classes, f"{scope}/BiasAdd")
    softmax = network.op("Softmax", f"classifier/{plan.name}/predictions/Softmax", [logits], axis=1)
    network.output(softmax, (classes,))
    return network


def _block(network: Network, plan: ResNet, image: Image, block: int, units: int) -> Image:
    last = len(plan.units) - 1
    for unit in range(units):
        halves = (unit == 0 and block > 0) if plan.keras else (unit == units - 1 and block < last)
        scope = f"{plan.name}/block{block + 1}/unit_{unit + 1}/bottleneck_v1"
        image = _bottleneck(network, plan, image, scope, plan.width << block, 2 if halves else 1)
    return image


def _bottleneck(network: Network, plan: ResNet, image: Image, scope: str, width: int, stride: int) -> Image:
    """1x1, 3x3, 1x1 to four times `width`, added to what came in."""
    first, second = (stride, 1) if plan.keras else (1, stride)
    shortcut = _shortcut(network, plan, image, scope, 4 * width, stride)
    branch = _conv(network, plan, image, f"{scope}/conv1", width, 1, stride=first)
    branch = _conv(network, plan, branch, f"{scope}/conv2", width, 3, stride=second)
    branch = network.conv(branch, f"{scope}/conv3", 4 * width, 1, bias=plan.keras)
    branch = network.norm(branch, f"{scope}/conv3", Norm(plan.norm.epsilon, _RESIDUAL_GAMMA))
    return network.relu(network.add(shortcut, branch, scope), scope)


def _shortcut(network: Network, plan: ResNet, image: Image, scope: str, channels: int, stride: int) -> Image:
    if image.channels != channels:
        shortcut = network.conv(image, f"{scope}/shortcut", channels, 1, stride=stride, bias=plan.keras)
        return network.norm(shortcut, f"{scope}/shortcut", plan.norm)
    return image if stride == 1 else network.max_pool(image, f"{scope}/shortcut", 1, stride)


def _conv(
    network: Network, plan: ResNet, image: Image, scope: str, channels: int, kernel: int, stride: int = 1
) -> Image:
    """With normalisation and ReLU; padded on both sides alike, whatever the stride."""
    image = network.conv(image, scope, channels, kernel, stride=stride, padding=(kernel - 1) // 2, bias=plan.keras)
    return network.relu(network.norm(image, scope, plan.norm), scope)
