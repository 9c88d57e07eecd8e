"""`accelserve recipes`: the networks of the original FPGA service, built from the user's weights or seeded ones."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelserve.commands.parsing import Commands, WholeFlags, add_json, argument
from accelserve.config_sources import ConfigError
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.recipes.build import Built
    from accelserve.recipes.catalog import Recipe, Wanted
    from accelserve.recipes.network import Network
    from accelserve.recipes.writing import Told, Weights

_SEEDED = "seeded"
_LARGEST_SEED = 2**63 - 1
_EPILOG = """\
examples:
  accelserve recipes list
  accelserve recipes build resnet50 --weights seeded               makes ./resnet50, to try things with
  accelserve recipes build resnet50 --weights resnet50.weights.h5  yours
  accelserve serve --model resnet50=resnet50                       then: curl --data-binary @cat.jpg HOST/score?top=5
"""
_BUILD_EPILOG = """\
weights:
  seeded                             random ones from --seed: the same bytes on every machine
  FILE.npz                           arrays by the names of slim's variables: resnet_v1_50/conv1/weights, ...
  model.ckpt-1000, a folder          a TensorFlow checkpoint, or a SavedModel, with those names (needs tensorflow)
  FILE.weights.h5, .h5, .keras       of keras.applications: ResNet50, ResNet152, DenseNet121, VGG16 (needs h5py)
Several files are read as one: a featurizer's and a classifier's. Everything that does not fit is told at once, with the
shapes wanted and got.

examples:
  accelserve recipes build resnet50 --weights seeded --seed 7
  accelserve recipes build resnet152 --weights resnet152.weights.h5 --labels imagenet.txt --output models/resnet152
  accelserve recipes build ssd-vgg --weights ssd_300_vgg.ckpt --detections

The folder holds 1/model.onnx and accelserve.toml: `serve --model NAME=DIR`, `register DIR --name NAME` and
`convert DIR --to accelonnx` take it as it is. Graph, tensor names and shapes are the original service's: the picture
arrives as "InputImage:0", the answer leaves as, for instance, "classifier/resnet_v1_50/predictions/Softmax:0".

exit codes: 0 built, 2 usage, 3 weights that do not fit, 4 no such recipe or file, 5 the folder exists
"""


def add(commands: Commands) -> None:
    recipes = commands.add_parser(
        "recipes",
        help="build ResNet-50 and other networks that FPGAs run",
        description="The networks of the original FPGA service as ONNX, under its tensor names.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = recipes.add_subparsers(parser_class=WholeFlags, title="actions", required=True, metavar="ACTION")
    _add_build(actions)
    listing = actions.add_parser("list", help="list the networks")
    add_json(listing)
    listing.set_defaults(run=_list)


def _add_build(actions: Commands) -> None:
    build = actions.add_parser(
        "build",
        help="build one",
        description="Build a network as an ONNX model that is ready to be served.",
        epilog=_BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument("recipe", metavar="NETWORK", help="one of `accelserve recipes list`")
    build.add_argument(
        "--weights",
        required=True,
        nargs="+",
        metavar="FILE|seeded",
        help="yours (see below), or `seeded`: random ones, for trying things",
    )
    build.add_argument(
        "--seed", type=argument(_seed), metavar="N", help="of seeded weights (default: 0); the same bytes everywhere"
    )
    build.add_argument("--classes", type=argument(_classes), metavar="N", help="how many (default: the file's)")
    build.add_argument(
        "--definition",
        choices=["slim", "keras"],
        help="whose network: slim's strides are in the last unit of a block, as in the original (default), Keras' in "
        "the first",
    )
    build.add_argument(
        "--detections",
        action="store_true",
        help="ssd-vgg: answer classes, scores and boxes of what was found, instead of twelve raw outputs",
    )
    build.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, one a line")
    build.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write (default: ./NETWORK); must not exist"
    )
    add_json(build)
    build.set_defaults(run=_build)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > _LARGEST_SEED:
        raise ValueError(f"want a number from 0 to {_LARGEST_SEED}")
    return int(text)


def _classes(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 100_000:
        raise ValueError("want a number from 2 to 100000")
    return int(text)


def _build(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.commands.progress import ProgressLine
    from accelserve.recipes.build import build
    from accelserve.recipes.catalog import recipe_of

    recipe = recipe_of(parsed.recipe)
    _check_flags(recipe, parsed)
    started = time.monotonic()
    line = ProgressLine(sys.stderr, time.monotonic)
    try:
        with _weights(recipe, parsed, line) as (weights, wanted):
            labels = _labels(parsed.labels, wanted.classes)
            built = build(recipe, wanted, weights, parsed.output or Path(recipe.name), labels, line)
    finally:
        line.end()
    _print(parsed, built, time.monotonic() - started)
    return ExitCode.OK


def _check_flags(recipe: "Recipe", parsed: argparse.Namespace) -> None:
    """Raises ConfigError with all that does not go together, and ScoringError(CONFLICT) for a folder that exists."""
    problems = []
    if parsed.detections and not recipe.detects:
        problems.append(f"--detections: {recipe.name} finds no boxes; ssd-vgg does")
    if parsed.definition and parsed.definition not in recipe.definitions:
        problems.append(f"--definition {parsed.definition}: {recipe.name} has only {', '.join(recipe.definitions)}")
    if _SEEDED in parsed.weights[1:] or parsed.weights[0] == _SEEDED != parsed.weights[-1]:
        problems.append("--weights: `seeded` goes with no file")
    if parsed.seed is not None and parsed.weights != [_SEEDED]:
        problems.append("--seed goes with --weights seeded")
    if problems:
        raise ConfigError(problems)
    output = parsed.output or Path(recipe.name)
    if output.exists():
        raise ScoringError(Kind.CONFLICT, f"{output} exists: delete it, or choose another --output")


@contextmanager
def _weights(recipe: "Recipe", parsed: argparse.Namespace, told: "Told") -> Iterator[tuple["Weights", "Wanted"]]:
    """The weights, checked, and the network that they are of."""
    from accelserve.recipes.catalog import Wanted
    from accelserve.recipes.file_weights import FileWeights
    from accelserve.recipes.seeded import SeededWeights
    from accelserve.recipes.weight_files import opened

    if parsed.weights == [_SEEDED]:
        definition = parsed.definition or recipe.definitions[0]
        wanted = Wanted(parsed.classes or recipe.classes, definition, parsed.detections)
        yield SeededWeights(parsed.seed or 0), wanted
        return
    paths = [Path(text) for text in parsed.weights]
    with opened(*paths) as arrays:
        weights = FileWeights(arrays, *paths)
        definition = _definition(recipe, parsed, arrays.keras)
        classes = parsed.classes or weights.classes(recipe) or recipe.classes
        wanted = Wanted(classes, definition, parsed.detections)
        weights.check(recipe.build(wanted).parameters, told)
        yield weights, wanted


def _definition(recipe: "Recipe", parsed: argparse.Namespace, keras: bool) -> str:
    """Weights that Keras saved belong to Keras' network, whatever is wished."""
    if not keras:
        return str(parsed.definition or recipe.definitions[0])
    if parsed.definition == "slim" or "keras" not in recipe.definitions:
        whose = f"Keras has no {recipe.title}" if "keras" not in recipe.definitions else "they belong to Keras' network"
        raise ConfigError([f"--weights {' '.join(parsed.weights)} are of Keras: {whose}"])
    return "keras"


def _labels(path: Path | None, classes: int) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        labels = tuple(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--labels {path} cannot be read: {error}"]) from error
    if len(labels) != classes:
        raise ConfigError([f"--labels {path}: want {classes} lines, one a class, got {len(labels)}"])
    return labels


def _print(parsed: argparse.Namespace, built: "Built", seconds: float) -> None:
    if parsed.json:
        print(json.dumps(built.as_json(), indent=2))
        return
    size = f"{built.bytes / 2**20:,.0f} MiB"
    print(f"{built.folder}: {built.parameters:,} parameters from {built.weights}, {size}, {seconds:.1f} s")
    print(f"serve it: accelserve serve --model {shlex.quote(f'{built.recipe}={built.folder}')}")


def _list(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.recipes.catalog import RECIPES, Wanted

    rows = [_row(recipe, recipe.build(Wanted(recipe.classes, recipe.definitions[0]))) for recipe in RECIPES.values()]
    print(json.dumps({"recipes": rows}, indent=2) if parsed.json else _table(rows))
    return ExitCode.OK


def _row(recipe: "Recipe", network: "Network") -> dict[str, Any]:
    """A recipe as the original had it: nothing is built for that but the graph."""
    return {
        "name": recipe.name,
        "network": recipe.title,
        "input": [network.size, network.size, 3],
        "classes": recipe.classes,
        "parameters": network.parameter_count,
        "macs": network.macs,
        "definitions": list(recipe.definitions),
        "device_outputs": list(network.device_outputs),
        "outputs": [value.name for value in network.outputs],
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [("NAME", "NETWORK", "INPUT", "CLASSES", "PARAMETERS", "GMAC", "OUTPUT")]
    for row in rows:
        first, *others = row["outputs"]
        cells.append(
            (
                row["name"],
                row["network"],
                "x".join(map(str, row["input"])),
                str(row["classes"]),
                f"{row['parameters']:,}",
                f"{row['macs'] / 1e9:.2f}",
                f"{first} and {len(others)} more" if others else first,
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
