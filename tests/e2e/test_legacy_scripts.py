"""Scripts of TensorFlow 1's days: of the shapes of the documents that the project began from, written by us.

The documents' own scripts run verbatim in `make test-full`, where the documents are.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from script_worker import JSON, get, post, worker

from legacy_models import CLASSES, jpeg_classifier, mnist_checkpoint
from model_builders import import_tensorflow

pytestmark = pytest.mark.tensorflow

SAVED_MODEL = """
import ujson
import tensorflow as tf
from azureml.core.model import Model
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init():
    global session, wanted, picture
    session = tf.Session()
    tags = [tf.saved_model.tag_constants.SERVING]
    loaded = tf.saved_model.loader.load(session, tags, Model.get_model_path("resnet50"))
    signature = loaded.signature_def["serving_default"]
    picture = [tensor.name for tensor in signature.inputs.values()][0]
    wanted = [tensor.name for tensor in signature.outputs.values()]

@rawhttp
def run(request):
    if request.method != "POST":
        return AMLResponse(b"POST a picture", 405)
    return AMLResponse(ujson.dumps(session.run(wanted, {picture: [request.get_data(False)]})[1]), 200)
"""
CHECKPOINT = """
import json, os
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from azureml.core.model import Model

def init():
    global session, pixels, scores
    tf.reset_default_graph()
    assert ops.get_default_graph() is tf.get_default_graph()
    folder = Model.get_model_path("mnist")
    saver = tf.train.import_meta_graph(os.path.join(folder, "mnist-tf.model.meta"))
    pixels, scores = map(tf.get_default_graph().get_tensor_by_name, ("network/X:0", "network/output/MatMul:0"))
    session = tf.Session()
    saver.restore(session, os.path.join(folder, "mnist-tf.model"))

def run(raw_data):
    rows = np.array(json.loads(raw_data)["data"])
    return np.argmax(scores.eval(session=session, feed_dict={pixels: rows}), axis=1).tolist()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """NAME -> path, as a script is told."""
    root = tmp_path_factory.mktemp("models")
    return {
        "resnet50": str(jpeg_classifier(root / "resnet50" / "1" / "resnet50").parents[1]),
        "mnist": str(mnist_checkpoint(root / "mnist")),
    }


@cache
def jpeg() -> bytes:
    tf = import_tensorflow()
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    return bytes(tf.io.encode_jpeg(pixels).numpy())


@cache
def rows() -> str:
    return json.dumps({"data": np.random.default_rng(2).random((2, 784)).round(3).tolist()})


def answers(folder, script, request, models, times):
    """The bodies that so many fresh processes answer."""
    bodies = []
    for _ in range(times):
        with worker(folder, script, models=models, legacy_tensorflow=True) as made:
            answer = made.ask(request)
            assert answer.status == 200, made.log()
            bodies.append(answer.body)
    return bodies


def are_probabilities(body):
    rows = np.array(json.loads(body))
    return rows.shape == (1, CLASSES) and abs(rows.sum() - 1) < 1e-3


def probabilities(model: str) -> np.ndarray:
    """What TensorFlow in this process says of `jpeg`: [1, 1001]."""
    v1 = import_tensorflow().compat.v1
    with v1.Session(graph=v1.Graph()) as session:
        tags = [v1.saved_model.tag_constants.SERVING]
        signature = v1.saved_model.loader.load(session, tags, model).signature_def["serving_default"]
        feed = {signature.inputs["input"].name: [jpeg()]}
        return np.asarray(session.run(signature.outputs["probabilities"].name, feed))


def digits(folder: str) -> list[int]:
    """What TensorFlow in this process reads in `rows`."""
    v1 = import_tensorflow().compat.v1
    reader = v1.train.load_checkpoint(f"{folder}/mnist-tf.model")
    data = np.array(json.loads(rows())["data"], np.float32)
    return np.argmax(data @ reader.get_tensor("network/kernel"), axis=1).tolist()


def test_a_saved_model_with_jpeg_strings_scores_as_tensorflow_itself(tmp_path, models):
    (body,) = answers(tmp_path, SAVED_MODEL, post(jpeg(), ("content-type", "image/jpeg")), models, 1)
    assert are_probabilities(body)
    np.testing.assert_allclose(json.loads(body), probabilities(f"{models['resnet50']}/1/resnet50"), rtol=1e-5)


def test_a_checkpoint_scores_as_tensorflow_itself(tmp_path, models):
    (body,) = answers(tmp_path, CHECKPOINT, post(rows(), *JSON), models, 1)
    assert json.loads(body) == digits(models["mnist"])


def test_without_the_option_the_operator_is_told_of_it(tmp_path, models):
    with worker(tmp_path, CHECKPOINT, models=models) as made:
        assert made.failed.message == (
            "init() failed: AttributeError: module 'tensorflow' has no attribute 'reset_default_graph'; "
            "a script of TensorFlow 1 runs with --legacy-tensorflow"
        )


MODULES = """
import tensorflow
import tensorflow.compat.v1 as one
import tensorflow as tf
import tensorflow.saved_model, tensorflow.train
from tensorflow.train import Saver
from tensorflow.saved_model import loader
from tensorflow.python.ops import array_ops
from tensorflow.core.framework import graph_pb2
import ujson

def init():
    assert tf.placeholder is one.placeholder is tensorflow.placeholder
    assert tf.train.Saver is Saver and tf.saved_model.loader is loader
    assert not tf.executing_eagerly()
    assert type(tf.Variable(1.0)).__name__ == "RefVariable"
    tf.Session().close()

def run(data):
    def encode(value, **options):
        return ujson.dumps(value, **options)
    import numpy as np
    return [ujson.loads(data), encode(np.float32([0.5])), encode({"b": 1, "a": 2}, sort_keys=True), encode(b"x")]
"""


def test_modules_of_tensorflow_1_and_ujson_are_there_under_their_names(tmp_path):
    with worker(tmp_path, MODULES, legacy_tensorflow=True) as made:
        made.ready  # noqa: B018
        assert json.loads(made.ask(post("[1]")).body) == [[1], "[0.5]", '{"a":2,"b":1}', '"x"']


def documents() -> Path | None:
    """Where the documents are: ACCELSERVE_DOCUMENTS, else `shared/seeds` beside the checkout."""
    places = [os.environ.get("ACCELSERVE_DOCUMENTS"), Path(__file__).parents[3] / "shared" / "seeds"]
    return next((Path(place) for place in places if place and Path(place).is_dir()), None)


def scripts_of(folder: Path, holding: str) -> set[str]:
    """The Python blocks of the documents that define run() and hold a text, verbatim."""
    blocks = (block for file in sorted(folder.glob("*.txt")) for block in file.read_text().split("```")[1::2])
    codes = (block.partition("\n")[2] for block in blocks if block.lower().startswith("python\n"))
    return {code for code in codes if "def run(" in code and holding in code}


@pytest.mark.full
@pytest.mark.parametrize("holding", ["saved_model.loader", "import_meta_graph"])
def test_the_documents_own_scripts_score_the_same_in_20_fresh_processes(tmp_path, models, holding):
    folder = documents()
    if folder is None:
        pytest.skip("the documents are not here: say where with ACCELSERVE_DOCUMENTS")
    scripts = scripts_of(folder, holding)
    assert scripts
    named = models | {"tf-dnn-mnist": models["mnist"]}
    bodies = set()
    for script in scripts:
        if holding == "import_meta_graph":
            bodies |= set(answers(tmp_path, script, post(rows(), *JSON), named, 20))
            continue
        bodies |= set(answers(tmp_path, script, post(jpeg()), named, 20))
        assert all(map(are_probabilities, bodies))
        with worker(tmp_path, script, models=named, legacy_tensorflow=True) as made:
            refused = made.ask(get())
            assert (refused.status, refused.body) == (405, b"GET is not supported")
    assert len(bodies) == 1
