"""SSD-VGG-300: balancap's `ssd_300_vgg`, with the original service's first map of 37x37 (pool3 pads nothing).

Twelve raw outputs: for each of six maps the logits of the classes, then for each the four numbers of a box.
"""

from dataclasses import dataclass

from accelserve.recipes.detections import Anchors, detections
from accelserve.recipes.network import Image, Network, Parameter
from accelserve.recipes.vgg import layer, vgg_block

ANCHORS = (
    Anchors((21, 45), 8, (2, 1 / 2)),
    Anchors((45, 99), 16, (2, 1 / 2, 3, 1 / 3)),
    Anchors((99, 153), 32, (2, 1 / 2, 3, 1 / 3)),
    Anchors((153, 207), 64, (2, 1 / 2, 3, 1 / 3)),
    Anchors((207, 261), 100, (2, 1 / 2)),
    Anchors((261, 315), 300, (2, 1 / 2)),
)
_L2_SCALE = 20.0


@dataclass(frozen=True, slots=True)
class Ssd:
    """width: as of a VGG. detections: boxes that were found instead of the twelve raw outputs."""

    name: str = "ssd_300_vgg"
    width: int = 64
    size: int = 300
    detections: bool = False


def ssd(plan: Ssd, classes: int) -> Network:
    """classes: with the background, which is class 0."""
    network = Network(plan.name, plan.size, input_spread=64.0)
    maps = _maps(network, plan)
    logits, boxes = [], []
    for (block, image), anchors in zip(maps.items(), ANCHORS, strict=True):
        scope = f"{plan.name}/{block}_box"
        if block == "block4":
            image = _l2_normalised(network, image, scope)
        boxes.append(_head(network, image, f"{scope}/conv_loc", f"{scope}/Reshape", anchors.count, 4))
        logits.append(_head(network, image, f"{scope}/conv_cls", f"{scope}/Reshape_1", anchors.count, classes))
    network.device_outputs = (*logits, *boxes)
    if plan.detections:
        shapes = [(image.height, image.width) for image in maps.values()]
        detections(network, ANCHORS, shapes, logits, boxes, classes)
    else:
        for tensors, numbers in ((logits, classes), (boxes, 4)):
            for tensor, image, anchors in zip(tensors, maps.values(), ANCHORS, strict=True):
                network.output(tensor, (image.height, image.width, anchors.count, numbers))
    return network


def _maps(network: Network, plan: Ssd) -> dict[str, Image]:
    """The six images that boxes are looked for in, by the original's names of the blocks."""
    name, width = plan.name, plan.width
    image = network.image()
    for number in (1, 2, 3):
        image = vgg_block(network, image, name, number, width)
        image = network.max_pool(image, f"{name}/pool{number}", 2, 2, "VALID" if number == 3 else "SAME")
    maps = {"block4": vgg_block(network, image, name, 4, width)}
    image = network.max_pool(maps["block4"], f"{name}/pool4", 2, 2)
    image = network.max_pool(vgg_block(network, image, name, 5, width), f"{name}/pool5", 3, 1)
    image = layer(network, image, f"{name}/conv6", 16 * width, 3, dilation=6)
    image = maps["block7"] = layer(network, image, f"{name}/conv7", 16 * width, 1)
    for block, narrow, stride in (("block8", 4, 2), ("block9", 2, 2), ("block10", 2, 1), ("block11", 2, 1)):
        scope = f"{name}/{block}"
        image = layer(network, image, f"{scope}/conv1x1", narrow * width, 1)
        padding = 1 if stride == 2 else "VALID"
        image = maps[block] = layer(network, image, f"{scope}/conv3x3", 2 * narrow * width, 3, padding, stride)
    return maps


def _l2_normalised(network: Network, image: Image, scope: str) -> Image:
    """Each pixel's channels over their Euclidean length, times a learned scale for each channel."""
    base = f"{scope}/L2Normalization"
    length_one = network.op("LpNormalization", f"{base}/l2_normalize", [image.tensor], axis=1, p=2)
    gamma = Parameter(f"{base}/gamma", (image.channels,), _L2_SCALE, 1.0, form="channels")
    tensor = network.op("Mul", f"{base}/mul", [length_one, network.parameter(gamma)])
    return Image(tensor, image.channels, image.height, image.width)


def _head(network: Network, image: Image, scope: str, name: str, anchors: int, numbers: int) -> str:
    """float32[N, height, width, anchors, numbers] as the output of `name`."""
    raw = network.conv(image, scope, anchors * numbers, 3, bias=True)
    rows = network.op("Transpose", f"{scope}/NHWC", [raw.tensor], perm=[0, 2, 3, 1])
    shape = network.integers(f"{name}/shape", [0, image.height, image.width, anchors, numbers])
    return network.op("Reshape", name, [rows, shape])
