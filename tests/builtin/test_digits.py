"""The shipped digits model, its pictures, and the script that makes both."""

import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from accelserve.builtin import digits_path, pictures
from accelserve.preprocessing import Preprocessing

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
MODEL = digits_path() / "1" / "model.onnx"

SCORE_SAVED_MODEL = """
import json, sys
import tensorflow.compat.v1 as tf
with tf.Session(graph=tf.Graph()) as session:
    signature = tf.saved_model.load(session, ["serve"], sys.argv[1]).signature_def["serving_default"]
    images, scores = signature.inputs["images"], signature.outputs["scores"]
    shapes = [[d.size for d in t.tensor_shape.dim] for t in (images, scores)]
    files = [open(name, "rb").read() for name in sys.argv[2:]]
    together = session.run(scores.name, {images.name: files})
    alone = [session.run(scores.name, {images.name: [data]})[0].tolist() for data in files]
print(json.dumps({"dtype": images.dtype, "shapes": shapes, "together": together.tolist(), "alone": alone}))
"""


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])


@pytest.fixture
def digit_pictures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    import digit_pictures

    return digit_pictures


def settings() -> dict:
    return tomllib.loads((digits_path() / "accelserve.toml").read_text())


def with_opencv(path: Path) -> np.ndarray:
    """What the server does: decode, then stretch by area."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)


def with_pillow(path: Path) -> np.ndarray:
    """Another decoder and another filter, as clients that shrink pictures themselves have."""
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB").resize((32, 32), Image.Resampling.BOX))


def with_the_server(path: Path) -> np.ndarray:
    images = pytest.importorskip("accelserve.codecs.images")
    prep = settings()["preprocessing"]
    return images.decode_picture(
        path.read_bytes(), Preprocessing(**prep | {"size": tuple(prep["size"])}), dtype=np.dtype(np.uint8)
    )


def train_script(*arguments: str | Path) -> str:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, EXAMPLE / "train.py", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=900).stdout


def test_the_model_is_small():
    assert MODEL.stat().st_size < 500_000


def test_there_are_ten_pictures_of_the_size_a_camera_sends():
    assert [truth for _, truth in pictures()] == list(range(10))
    for path, truth in pictures():
        assert path.name == f"digit-{truth}.jpg"
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            assert picture.mode == "RGB"
            assert min(picture.size) >= 320
        assert 10_000 < path.stat().st_size < 60_000


def test_the_graph_takes_a_batch_of_small_colour_pictures_and_gives_ten_scores(session):
    (image,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 32, 32, 3])
    assert (scores.name, scores.type, scores.shape) == ("scores", "tensor(float)", ["batch", 10])


def test_the_file_is_valid_and_asks_for_no_newer_runtime_than_it_needs():
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version <= 21) for o in model.opset_import] == [("", True)]


def test_the_settings_say_how_a_picture_becomes_the_input():
    found = settings()
    assert (digits_path() / found["labels"]).read_text().split() == (
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    )
    assert found["preprocessing"] == {
        "resize": "stretch",
        "size": [32, 32],
        "channel_order": "RGB",
        "layout": "NHWC",
        "exif": False,
    }
    assert found["batching"] == {"max_batch_size": 64}


@pytest.mark.parametrize("decode", [with_opencv, with_pillow, with_the_server])
def test_each_picture_is_read_right_and_surely(session, decode):
    batch = np.stack([decode(path) for path, _ in pictures()])
    (scores,) = session.run(["scores"], {"image": batch})
    assert scores.dtype == np.float32
    assert scores.argmax(axis=1).tolist() == [truth for _, truth in pictures()]
    assert scores.max(axis=1).min() > 0.8
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_a_batch_gives_what_each_picture_alone_gives(session):
    batch = np.stack([with_opencv(path) for path, _ in pictures()])
    (together,) = session.run(["scores"], {"image": batch})
    alone = np.concatenate([session.run(["scores"], {"image": row[None]})[0] for row in batch])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-7)


def test_an_empty_board_has_finite_scores(session):
    (scores,) = session.run(["scores"], {"image": np.full((1, 32, 32, 3), 128, np.uint8)})
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("dark_on_light", [False, True])
def test_the_shipped_model_reads_97_percent_of_the_digits_held_out(session, digit_pictures, dark_on_light):
    split = digit_pictures.split_digits()
    style = digit_pictures.Style()
    style = digit_pictures.dark_on_light(style) if dark_on_light else style
    rng = np.random.default_rng(0)
    drawn = [digit_pictures.draw(cells, 240, style, rng) for cells in split.held_out_cells]
    (scores,) = session.run(["scores"], {"image": np.stack([digit_pictures.shrink(p, 32) for p in drawn])})
    assert len(split.held_out_truths) == 360
    assert (scores.argmax(axis=1) == split.held_out_truths).mean() >= 0.97


def test_no_held_out_digit_is_among_those_trained_on(digit_pictures):
    split = digit_pictures.split_digits()
    trained = {cells.tobytes() for cells in split.train_cells}
    assert len(split.train_cells) == 1437
    assert not [cells for cells in split.held_out_cells if cells.tobytes() in trained]


@pytest.mark.tensorflow
def test_the_saved_model_decodes_in_its_graph_and_agrees_with_the_onnx_model(session, tmp_path):
    import json

    train_script("--saved-model", tmp_path)
    folder = tmp_path / "digits"
    assert (folder / "1" / "saved_model.pb").is_file()
    assert tomllib.loads((folder / "accelserve.toml").read_text()) == {
        "labels": "labels.txt",
        "batching": {"max_batch_size": 64},
    }
    assert (folder / "labels.txt").read_text() == (digits_path() / "labels.txt").read_text()

    command = [sys.executable, "-c", SCORE_SAVED_MODEL, folder / "1", *(path for path, _ in pictures())]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)
    assert found["dtype"] == 7
    assert found["shapes"] == [[-1], [-1, 10]]
    assert np.argmax(found["together"], axis=1).tolist() == list(range(10))
    np.testing.assert_allclose(found["together"], found["alone"], rtol=1e-4, atol=1e-6)
    batch = np.stack([with_opencv(path) for path, _ in pictures()])
    (wanted,) = session.run(["scores"], {"image": batch})
    np.testing.assert_allclose(found["together"], wanted, atol=0.02)


@pytest.mark.full
@pytest.mark.tensorflow
def test_training_anew_reads_97_percent_of_the_digits_held_out(tmp_path):
    printed = train_script("--onnx", tmp_path)
    accuracy = float(printed.split("held-out accuracy: ")[1].split()[0])
    assert accuracy >= 0.97
    assert (tmp_path / "digits" / "1" / "model.onnx").stat().st_size < 500_000
    assert len(list((tmp_path / "pictures").glob("digit-?.jpg"))) == 10
