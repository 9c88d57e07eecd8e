"""A recipe carried out: the network with its weights in a folder that `serve` and `register` take."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accelserve.convert.unfinished import appearing
from accelserve.durable_files import flush_tree
from accelserve.recipes.catalog import Recipe, Wanted
from accelserve.recipes.network import Network
from accelserve.recipes.writing import Told, Weights, write_model

INPUT_NAME, INPUT_KEY, OUTPUT_KEY = "Placeholder:0", "images", "output_alias"
"""What the original's clients call the pictures and the answer; `convert --to accelonnx` reads it from the model."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was made. macs: for one picture. bytes: on disk. outputs, device_outputs: tensors of the graph."""

    recipe: str
    folder: Path
    weights: str
    definition: str
    classes: int
    parameters: int
    macs: int
    bytes: int
    outputs: tuple[str, ...]
    device_outputs: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "recipe": self.recipe,
            "folder": str(self.folder),
            "weights": self.weights,
            "definition": self.definition,
            "classes": self.classes,
            "parameters": self.parameters,
            "macs": self.macs,
            "bytes": self.bytes,
            "outputs": list(self.outputs),
            "device_outputs": list(self.device_outputs),
        }


def build(
    recipe: Recipe, wanted: Wanted, weights: Weights, output: Path, labels: tuple[str, ...] | None, told: Told
) -> Built:
    """Make `output`, which must not exist; it appears when it is whole.

    Raises ScoringError: CONFLICT when it exists, PRECONDITION when it cannot be written.
    """
    network = recipe.build(wanted)
    metadata = _metadata(recipe, wanted, network, weights)
    with appearing(recipe.name, output) as folder:
        (folder / "1").mkdir()
        written = write_model(network, weights, metadata, folder / "1", told)
        if labels:
            (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        (folder / "accelserve.toml").write_text(manifest(recipe, bool(labels)), encoding="utf-8")
        flush_tree(folder)
    return Built(
        recipe.name,
        output,
        weights.description,
        wanted.definition,
        wanted.classes,
        network.parameter_count,
        network.macs,
        written,
        tuple(value.name for value in network.outputs),
        network.device_outputs,
    )


def _metadata(recipe: Recipe, wanted: Wanted, network: Network, weights: Weights) -> Mapping[str, str]:
    said = {
        "accelserve.recipe": recipe.name,
        "accelserve.weights": weights.description,
        "accelserve.definition": wanted.definition,
        "accelserve.device_output": ",".join(network.device_outputs),
        "accelserve.input_name": INPUT_NAME,
        "accelserve.input_key": INPUT_KEY,
    }
    return {**said, "accelserve.output_key": OUTPUT_KEY} if len(network.outputs) == 1 else said


def manifest(recipe: Recipe, labelled: bool) -> str:
    """The model's accelserve.toml: how pictures are made ready, and the labels beside it."""
    lines = ['labels = "labels.txt"\n'] if labelled else []
    lines += ["[preprocessing]"]
    lines += [f"{key} = {_toml(value)}" for key, value in recipe.preprocessing.items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else str(value)
