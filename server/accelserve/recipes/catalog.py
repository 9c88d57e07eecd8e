"""The networks that there are recipes for, and what each is to its clients and to the preprocessor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from accelserve.errors import Kind, ScoringError
from accelserve.recipes.densenet import DenseNet, densenet
from accelserve.recipes.network import Network
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.ssd import ANCHORS, Ssd, ssd
from accelserve.recipes.vgg import Vgg, vgg

_MEAN = (123.68, 116.779, 103.939)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What may differ from build to build. definition: "slim" or "keras"."""

    classes: int
    definition: str = "slim"
    detections: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network.

    build: writes it down. classes: as trained by the original. head: the biases whose length tells how many classes
    weights have, in groups of `head_group`. definitions: whose definition it can follow, the default first.
    preprocessing: the table of accelserve.toml.
    """

    name: str
    title: str
    build: Callable[[Wanted], Network]
    head: str
    classes: int = 1000
    head_group: int = 1
    definitions: tuple[str, ...] = ("slim", "keras")
    detects: bool = False
    preprocessing: Mapping[str, object] = field(default_factory=dict)


def _classified(scale: float = 1.0) -> Mapping[str, object]:
    return {"resize": "azure-accel", "mean": _MEAN, "scale": (scale,)}


def _resnet(name: str, units: tuple[int, ...]) -> Callable[[Wanted], Network]:
    return lambda wanted: resnet(ResNet(name, units, keras=wanted.definition == "keras"), wanted.classes)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                "resnet50",
                "ResNet-50",
                _resnet("resnet_v1_50", (3, 4, 6, 3)),
                "resnet_v1_50/logits/biases",
                preprocessing=_classified(),
            ),
            Recipe(
                "resnet152",
                "ResNet-152",
                _resnet("resnet_v1_152", (3, 8, 36, 3)),
                "resnet_v1_152/logits/biases",
                preprocessing=_classified(),
            ),
            Recipe(
                "densenet121",
                "DenseNet-121",
                lambda wanted: densenet(DenseNet(keras=wanted.definition == "keras"), wanted.classes),
                "densenet121/logits/biases",
                preprocessing=_classified(0.017),
            ),
            Recipe(
                "vgg16",
                "VGG-16",
                lambda wanted: vgg(Vgg(), wanted.classes),
                "vgg_16/fc8/biases",
                preprocessing=_classified(),
            ),
            Recipe(
                "ssd-vgg",
                "SSD-VGG-300",
                lambda wanted: ssd(Ssd(detections=wanted.detections), wanted.classes),
                "ssd_300_vgg/block11_box/conv_cls/biases",
                classes=21,
                head_group=ANCHORS[-1].count,
                definitions=("slim",),
                detects=True,
                preprocessing={"resize": "stretch", "resampling": "legacy", "mean": _MEAN, "scale": (1.0,)},
            ),
        )
    }
)


def recipe_of(name: str) -> Recipe:
    """Raises ScoringError(NOT_FOUND) naming those that there are."""
    if name not in RECIPES:
        raise ScoringError(Kind.NOT_FOUND, f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
