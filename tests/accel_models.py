"""A residual network of a few kilobytes under the names of the original service's ResNet-50, and folders made of it."""

from pathlib import Path

from accelserve.convert.accel_conversion import AccelRequest, convert_for_fpga
from accelserve.models.manifest import read_manifest
from accelserve.models.repository import find_models
from accelserve.recipes.build import build
from accelserve.recipes.catalog import Recipe, Wanted
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights

SOFTMAX = "classifier/resnet_v1_50/predictions/Softmax:0"
CLASSES = 4
SIDE = 32
MEAN = (123.68, 116.779, 103.939)


def small_resnet(folder: Path, labels: tuple[str, ...] | None = None, **preprocessing: object) -> Path:
    """A folder as `recipes build` makes it: float32 [N, 32, 32, 3] -> 4 scores, from pictures by `azure-accel`."""
    steps = {"resize": "azure-accel", "mean": MEAN, "scale": (1.0,), **preprocessing}
    recipe = Recipe(
        "small",
        "Small",
        lambda wanted: resnet(ResNet("resnet_v1_50", (1, 1), width=8, size=SIDE), wanted.classes),
        "resnet_v1_50/logits/biases",
        classes=CLASSES,
        preprocessing=steps,
    )
    build(recipe, Wanted(CLASSES), SeededWeights(0), folder, labels, lambda *_: None)
    return folder


def accel_request(path: Path, **options: object) -> AccelRequest:
    found = find_models("resnet50", path)
    return AccelRequest("resnet50", 1, found.versions[0].path, read_manifest(found.manifest), **options)


def small_accel(folder: Path, scratch: Path, **options: object) -> Path:
    """The same converted. scratch: an empty place for the source."""
    folder.mkdir(parents=True)
    convert_for_fpga(accel_request(small_resnet(scratch / "source"), **options), folder, lambda *_: None)
    return folder
