"""Model folders: what is in them, inline or beside, and the same bytes for the same seed."""

import hashlib

import numpy as np
import onnxruntime
import pytest

from accelserve.backends.onnx_runtime.files import external_files
from accelserve.models.manifest import read_manifest
from accelserve.recipes import writing
from accelserve.recipes.build import build
from accelserve.recipes.catalog import Recipe, Wanted
from accelserve.recipes.resnet import ResNet, resnet
from accelserve.recipes.seeded import SeededWeights
from accelserve.wire.onnx_pb2 import ModelProto

SMALL = Recipe(
    "small",
    "Small",
    lambda wanted: resnet(ResNet("resnet_v1_50", (1, 1), width=8, size=32), wanted.classes),
    "resnet_v1_50/logits/biases",
    classes=4,
    preprocessing={"resize": "fit-crop", "mean": (1.0, 2.0, 3.0), "scale": (0.5,)},
)


def quiet(what, done, total):
    pass


def make(folder, seed=0, labels=None):
    return build(SMALL, Wanted(4), SeededWeights(seed), folder, labels, quiet)


def digest(folder):
    return [
        (str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def test_the_model_tells_where_its_device_part_ends_and_what_clients_call_things(tmp_path):
    built = make(tmp_path / "m")
    model = ModelProto.FromString((tmp_path / "m" / "1" / "model.onnx").read_bytes())
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said == {
        "accelserve.recipe": "small",
        "accelserve.weights": "seed 0",
        "accelserve.definition": "slim",
        "accelserve.device_output": "resnet_v1_50/pool5:0",
        "accelserve.input_name": "Placeholder:0",
        "accelserve.input_key": "images",
        "accelserve.output_key": "output_alias",
    }
    assert any(said["accelserve.device_output"] in node.output for node in model.graph.node)
    assert built.bytes == (tmp_path / "m" / "1" / "model.onnx").stat().st_size


def test_the_manifest_says_how_pictures_are_made_ready_and_names_the_labels(tmp_path):
    make(tmp_path / "m", labels=("a", "b", "c", "ö"))
    manifest = read_manifest(tmp_path / "m" / "accelserve.toml")
    assert manifest.labels == ("a", "b", "c", "ö")
    assert manifest.preprocessing == {"resize": "fit-crop", "mean": (1.0, 2.0, 3.0), "scale": (0.5,)}


def test_a_seed_gives_the_same_files_and_another_gives_others(tmp_path):
    make(tmp_path / "one"), make(tmp_path / "again"), make(tmp_path / "other", seed=1)
    assert digest(tmp_path / "one") == digest(tmp_path / "again")
    assert digest(tmp_path / "one") != digest(tmp_path / "other")


def test_many_weights_lie_beside_the_model_and_answer_alike(tmp_path, monkeypatch):
    make(tmp_path / "inline")
    monkeypatch.setattr(writing, "_INLINE_BYTES", 0)
    built = make(tmp_path / "beside")
    files = list((tmp_path / "beside" / "1").iterdir())
    assert external_files(tmp_path / "beside" / "1" / "model.onnx") == ("model.onnx.data",)
    assert built.bytes == sum(file.stat().st_size for file in files)
    pictures = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    one, other = (
        onnxruntime.InferenceSession(tmp_path / name / "1" / "model.onnx").run(None, {"InputImage:0": pictures})[0]
        for name in ("inline", "beside")
    )
    assert np.array_equal(one, other)


def test_progress_reaches_the_whole(tmp_path):
    told = []
    build(SMALL, Wanted(4), SeededWeights(0), tmp_path / "m", None, lambda *step: told.append(step))
    assert told[-1] == ("weights", told[-1][2], told[-1][2])


def test_what_fails_half_way_leaves_nothing(tmp_path):
    class Ending(SeededWeights):
        def array(self, parameter):
            raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match=r"small: .*/m cannot be written: No space left on device"):
        build(SMALL, Wanted(4), Ending(0), tmp_path / "m", None, quiet)
    assert list(tmp_path.iterdir()) == []
