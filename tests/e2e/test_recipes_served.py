"""What `recipes build` makes, as the server takes it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from server_process import serving

from accelserve.cli import main
from accelserve.client import Client
from accelserve.models.store import ModelStore
from accelserve.recipes.build import build
from accelserve.recipes.catalog import RECIPES, Recipe, Wanted
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights
from accelserve.wire.onnx_pb2 import ModelProto, ValueInfoProto
from model_builders import jpeg

OUTPUT = "classifier/resnet_v1_50/predictions/Softmax:0"
SMALL = Recipe(
    "small",
    "Small",
    lambda wanted: resnet(ResNet("resnet_v1_50", (1, 1), width=4, size=64), wanted.classes),
    "resnet_v1_50/logits/biases",
    preprocessing=RECIPES["resnet50"].preprocessing,
)


def quiet(what, done, total):
    pass


@pytest.fixture
def pictures(tmp_path):
    """A red one and one in stripes."""
    red, striped = tmp_path / "red.jpg", tmp_path / "striped.jpg"
    red.write_bytes(jpeg(size=(400, 300)))

    from PIL import Image

    stripes = np.tile(np.array([[0, 255]], np.uint8).repeat(8, axis=1), (300, 25))
    Image.fromarray(stripes).convert("RGB").save(striped)
    return red, striped


def test_a_recipe_is_registered_and_scores_jpegs_with_labels(tmp_path, pictures, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build(SMALL, Wanted(3), SeededWeights(0), tmp_path / "small", ("cat", "dog", "eel"), quiet)
    flags = ("--store", str(tmp_path / "store"), "--sample", str(pictures[0]))
    assert main(["register", str(tmp_path / "small"), "--name", "small", *flags]) == 0
    assert ModelStore(tmp_path / "store").names() == ("small",)
    with (
        serving(f"--model=small={tmp_path / 'small'}", log=tmp_path / "log") as server,
        Client(server.http) as client,
    ):
        scores = [client.score(picture) for picture in pictures]
        assert sum(scores[0]) == pytest.approx(1, abs=1e-5)
        assert np.abs(np.subtract(*scores)).max() > 1e-3
        dense = client.predict({"InputImage:0": np.zeros((2, 64, 64, 3), np.float32)}, model="small")
        assert dense[OUTPUT].shape == (2, 3)


def largest_activations(model: Path, size: int, scale: float) -> dict[str, float]:
    """Of every tensor within the device's part, for pictures of noise and of one colour."""
    proto = ModelProto.FromString(model.read_bytes())
    constants = {tensor.name for tensor in proto.graph.initializer}
    inner = [name for node in proto.graph.node for name in node.output if name not in constants]
    del proto.graph.output[:]
    for name in inner:
        proto.graph.output.append(ValueInfoProto(name=name))
    told = model.with_name("told.onnx")
    told.write_bytes(proto.SerializeToString())
    shown = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.float32)
    shown[1], shown[2] = 255, np.kron(shown[2, ::10, ::10], np.ones((10, 10, 1)))[:size, :size]
    shown = (shown - np.float32([123.68, 116.779, 103.939])) * np.float32(scale)
    values = onnxruntime.InferenceSession(told).run(None, {"InputImage:0": shown})
    return {name: float(np.abs(value).max()) for name, value in zip(inner, values, strict=True)}


@pytest.mark.full
@pytest.mark.parametrize("name", list(RECIPES))
def test_the_five_answer_and_their_seeded_activations_fit_16_bit_floats(tmp_path, pictures, name):
    command = [sys.executable, "-m", "accelserve", "recipes", "build", name, "--weights", "seeded", "--json"]
    done = subprocess.run([*command, "--output", str(tmp_path / name)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["parameters"] == RECIPES[name].build(Wanted(RECIPES[name].classes)).parameter_count
    scale = RECIPES[name].preprocessing["scale"][0]
    largest = largest_activations(tmp_path / name / "1" / "model.onnx", 300 if name == "ssd-vgg" else 224, scale)
    assert max(largest.values()) < 2000, max(largest, key=largest.get)
    (tmp_path / name / "1" / "told.onnx").unlink()
    manifest = tmp_path / name / "accelserve.toml"
    manifest.write_text(f"{manifest.read_text()}[batching]\nmax_batch_size = 1\n")
    with serving(f"--model={name}={tmp_path / name}", log=tmp_path / "log") as server, Client(server.http) as client:
        one, other = (np.concatenate([np.ravel(v) for v in values(client.score(p))]) for p in pictures)
    assert np.isfinite(one).all()
    assert np.abs(one - other).max() > 1e-3


def values(answer):
    return list(answer.values()) if isinstance(answer, dict) else [answer]
