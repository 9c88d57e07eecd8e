"""The real public clients, in .venv-compat, against our running server: what their users' programs do."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accel_dialect import SOFTMAX, dense_accel
from onnx import TensorProto, helper
from server_process import Server, serving
from small_networks import value, write

from model_builders import import_tensorflow, jpeg, save_v1, synthetic_model, v1_signature

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = ROOT / ".venv-compat" / "bin" / "python"

pytestmark = [
    pytest.mark.compat,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason="THE REAL CLIENTS WERE NOT ASKED: .venv-compat is absent; `make test` or scripts/compat-env makes it",
    ),
]

RNG = np.random.default_rng(7)
RESNET_WEIGHTS = RNG.normal(0, 1, (3, 1001)).astype(np.float32)
MNIST_WEIGHTS = RNG.normal(0, 0.05, (784, 10)).astype(np.float32)
PICTURE = RNG.random((1, 224, 224, 3), np.float32)
DIGITS = RNG.random((40, 784), np.float32)
COLOUR = (200, 100, 50)
SLEEPER = 'delay_ms = 400\n[inputs.x]\ndtype = "float32"\nshape = [-1, 1]\noutput = "y"\n'


def resnet(path: Path) -> Path:
    """input_1 float32 ["batch", 224, 224, 3] -> activation_49 float32 ["batch", 1001], as resnet_client_grpc asks."""
    return write(
        path,
        [
            helper.make_node("ReduceMean", ["input_1"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["activation_49"]),
        ],
        [value("input_1", TensorProto.FLOAT, "batch", 224, 224, 3)],
        [value("activation_49", TensorProto.FLOAT, "batch", 1001)],
        weights=RESNET_WEIGHTS,
    )


def string_accel(path: Path) -> Path:
    """The accel clients' names on a SavedModel of JPEG strings, keys as the sample's simple_save writes them."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        images = v1.placeholder(tf.string, [None], name="Placeholder")

        def decode(picture: Any) -> Any:
            return tf.image.resize(tf.image.decode_jpeg(picture, channels=3), [8, 8]) / 255.0

        pixels = tf.map_fn(decode, images, fn_output_signature=tf.TensorSpec([8, 8, 3], tf.float32))
        scores = tf.reduce_mean(pixels, axis=[1, 2], name=SOFTMAX)
        signature = v1_signature(tf, {"images": images}, {"output_alias": scores})
        save_v1(tf, path, {"serving_default": signature})
    return path


def mnist(path: Path) -> Path:
    """predict_images: images float32 [-1, 784] -> scores [-1, 10]; serving_default: Examples, as mnist_client asks."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([784], tf.float32)})
        images = tf.identity(parsed["x"], name="x")
        scores = tf.nn.softmax(tf.matmul(images, tf.constant(MNIST_WEIGHTS)), name="y")
        classes = tf.as_string(tf.argsort(scores, direction="DESCENDING"))
        signatures = {
            "predict_images": v1_signature(tf, {"images": images}, {"scores": scores}),
            "serving_default": v1_signature(
                tf, {"inputs": examples}, {"classes": classes, "scores": scores}, "classify"
            ),
        }
        save_v1(tf, path, signatures)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    models = {
        "resnet": resnet(folder / "resnet.onnx"),
        "dense": dense_accel(folder / "dense.onnx"),
        "string": string_accel(folder / "string" / "3").parent,
        "mnist": mnist(folder / "mnist" / "1").parent,
        "sleeper": synthetic_model(folder / "sleeper.synthetic.toml", SLEEPER),
    }
    arguments = (*(f"--model={name}={path}" for name, path in models.items()), "--default-model=string")
    with serving(*arguments, log=folder / "log") as server:
        yield server


def flows(script: str, *arguments: object) -> dict[str, dict[str, Any]]:
    command = [str(PYTHON), "-W", "ignore", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- tensorflow-serving-api


@pytest.fixture(scope="module")
def serving_api(server, tmp_path_factory) -> dict[str, dict[str, Any]]:
    given = tmp_path_factory.mktemp("given") / "given.npz"
    np.savez(given, picture=PICTURE, digits=DIGITS)
    return flows("ask_with_serving_api.py", server.grpc, given)


def test_resnet_client_grpc_reads_its_scores(serving_api):
    answer = serving_api["resnet_client_grpc"]["answer"]
    want = PICTURE.mean(axis=(1, 2)) @ RESNET_WEIGHTS
    np.testing.assert_allclose(answer["scores"], want[0], rtol=1e-4, atol=1e-4)
    assert (answer["prediction"], answer["version"]) == (int(want.argmax()), 1)


@pytest.mark.parametrize("flow", ["mnist_client", "make_ndarray of a batch"])
def test_mnist_client_gets_for_each_digit_its_own_prediction(serving_api, flow):
    assert serving_api[flow]["answer"] == (DIGITS @ MNIST_WEIGHTS).argmax(axis=1).tolist()


def test_metadata_unpacks_into_the_real_signature_def_map(serving_api):
    answer = serving_api["metadata"]["answer"]
    signatures = answer["signatureDef"]
    assert {name: found["methodName"] for name, found in signatures.items()} == {
        "predict_images": "tensorflow/serving/predict",
        "serving_default": "tensorflow/serving/classify",
    }
    assert signatures["predict_images"]["inputs"]["images"] == {
        "name": "x:0",
        "dtype": "DT_FLOAT",
        "tensorShape": {"dim": [{"size": "-1"}, {"size": "784"}]},
    }
    assert answer["version"] == 1


def test_status_reads_as_the_real_message(serving_api):
    (told,) = serving_api["status"]["answer"]["model_version_status"]
    assert (told["version"], told["state"]) == ("1", "AVAILABLE")


@pytest.mark.parametrize(
    ("flow", "code", "text"),
    [
        ("unknown model", "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        ("metadata of nobody", "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        ("metadata field", "INVALID_ARGUMENT", "Metadata field foo is not supported"),
        ("status of nobody", "NOT_FOUND", "Could not find any versions of model nobody"),
        ("unknown signature", "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        ("no inputs", "INVALID_ARGUMENT", "input size does not match signature: 0!=1"),
        ("wrong name", "INVALID_ARGUMENT", "Signature input alias: input_1"),
        ("wrong dtype", "INVALID_ARGUMENT", '"input_1": want float32[-1,224,224,3], got float64[1,224,224,3]'),
        ("wrong shape", "INVALID_ARGUMENT", '"input_1": want float32[-1,224,224,3], got float32[224,224,3]'),
        ("too late", "DEADLINE_EXCEEDED", ""),
    ],
)
def test_a_real_client_reads_why_it_was_refused(serving_api, flow, code, text):
    told = serving_api[flow]
    assert told["code"] == code, told
    assert text in told["text"]
    assert told["took_s"] < 1


def test_a_deadline_that_is_long_enough_is_no_hindrance(serving_api):
    assert serving_api["on time"]["answer"] == 1


# --- azureml-accel-models


@pytest.fixture(scope="module")
def accel(server, tmp_path_factory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "good.jpg").write_bytes(jpeg(COLOUR))
    (folder / "broken.jpg").write_bytes(jpeg(COLOUR)[:40] + bytes(400))
    host, _, port = server.grpc.rpartition(":")
    return flows("ask_with_accel_client.py", host, port, folder / "good.jpg", folder / "broken.jpg")


@pytest.mark.parametrize(
    "flow", ["named output", "default output", "names of the signature", "service by its name", "dense model"]
)
def test_the_accel_client_scores_a_jpeg_and_gets_one_row(accel, flow):
    answer = accel[flow]["answer"]
    assert answer["shape"] == [3]
    np.testing.assert_allclose(answer["scores"], np.array(COLOUR) / 255, atol=0.02)


def test_the_accel_client_scores_a_batch_of_jpegs(accel):
    answer = accel["batch"]["answer"]
    assert answer["shape"] == [3, 3]
    np.testing.assert_allclose(answer["scores"], np.tile(np.array(COLOUR) / 255, 3), atol=0.02)


def test_the_accel_client_scores_pixels(accel):
    assert accel["pixels"]["answer"] == {"shape": [2, 3], "scores": [1.0] * 6}


@pytest.mark.parametrize("flow", ["wrong input", "no picture", "no picture for a dense model"])
def test_the_accel_client_does_not_repeat_a_mistake_of_its_own(accel, flow):
    """It tries five times, for 15 s, after everything but INVALID_ARGUMENT."""
    told = accel[flow]
    assert told["code"] == "INVALID_ARGUMENT", told
    assert told["took_s"] < 1
