import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import accelserve
import model_builders
from accelserve.backends.base import Batch, Device, ModelArtifact, Prepared, SessionOptions
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import tf_session
from accelserve.backends.tf_session.backend import _MOST_CALLABLES, TfSessionBackend
from accelserve.devices import DeviceKind, parse_device_request
from accelserve.errors import Kind, ScoringError

pytestmark = pytest.mark.tensorflow


def artifact(path: Path) -> ModelArtifact:
    return ModelArtifact("m", 123, "saved_model", path)


def load(path: Path, **options):
    backend = TfSessionBackend()
    device, settings = backend.inventory().devices[0], SessionOptions(**{"threads": 2, **options})
    prepared = backend.prepare(artifact(path), device, settings, None, lambda what, done: None)
    return backend.load(prepared, device, settings, None)


@pytest.fixture
def opened(tmp_path):
    """Builds a model and opens it; closed at the end."""
    sessions = []

    def build_and_open(build: Callable[[Path], Path]):
        sessions.append(load(build(tmp_path / build.__name__ / "123")))
        return sessions[-1]

    yield build_and_open
    for session in sessions:
        session.close()


def ask(session, signature: str = "serving_default", **inputs):
    return session.run(Batch(signature, inputs, tuple(session.signatures[signature].outputs), 1)).outputs


def floats(*values) -> np.ndarray:
    return np.array(values, np.float32)


def example(**features: float) -> bytes:
    tf = model_builders.import_tensorflow()
    lists = {k: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for k, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


def test_a_tf1_model_answers_by_each_of_its_signatures(opened):
    session = opened(model_builders.saved_model_half_plus_two)
    examples = np.array([example(x=2, x2=4), example(x=6)], object)
    assert ask(session, x=floats([2], [6]))["y"].tolist() == [[3], [5]]
    assert ask(session, "classify_x_to_y", inputs=examples)["scores"].tolist() == [[3], [5]]
    assert ask(session, "regress_x_to_y2", inputs=examples)["outputs"].tolist() == [[4], [6]]
    assert ask(session, "regress_x2_to_y3", inputs=floats([4]))["outputs"].tolist() == [[5]]


def test_signatures_are_ordered_by_name_and_described(opened):
    signatures = opened(model_builders.saved_model_half_plus_two).signatures
    assert list(signatures) == sorted(signatures)
    x = signatures["serving_default"].inputs["x"]
    assert (str(x), x.tensor_name) == ("float32[-1,1]", "x:0")
    assert signatures["classify_x_to_y"].inputs["inputs"].dtype.is_string
    assert signatures["classify_x_to_y"].method_name == "tensorflow/serving/classify"
    assert not any(signature.strict_shapes for signature in signatures.values())


def test_a_tf2_model_answers_and_has_its_defaults(opened):
    session = opened(model_builders.saved_model_half_plus_two_tf2)
    signature = session.signatures["serving_default"]
    assert ask(session, x=floats(2))["y"].tolist() == [3]
    assert signature.defaults["x"].tolist() == [0]
    assert "__saved_model_init_op" not in session.signatures
    assert len(session.signatures) == 6


def test_shapes_that_the_graph_can_work_with_are_accepted_as_tf_serving_does(opened):
    two = opened(model_builders.saved_model_half_plus_two)
    for shape in ((1,), (2, 3), ()):
        assert ask(two, x=np.zeros(shape, np.float32))["y"].shape == shape
    three = opened(model_builders.saved_model_half_plus_three)
    assert ask(three, x=floats(1, 2, 5))["y"].tolist() == [3.5, 4, 5.5]


def test_a_model_with_state_counts_and_its_scalars_are_arrays(opened):
    session = opened(model_builders.saved_model_counter)
    for _ in range(2):
        ask(session, "incr_counter")
    ask(session, "incr_counter_by", delta=np.array(3, np.float32))
    output = ask(session, "get_counter")["output"]
    assert isinstance(output, np.ndarray)
    assert (output.shape, output.dtype, output.item()) == ((), np.float32, 5)
    assert session.signatures["get_counter"].outputs["output"].dtype.name == "float32"


def test_pictures_are_decoded_in_the_graph(opened):
    session = opened(model_builders.saved_model_jpeg)
    scores = ask(session, images=np.array([model_builders.jpeg((255, 0, 0))], object))["scores"]
    np.testing.assert_allclose(scores, [[1, 0, 0]], atol=0.02)


@pytest.mark.parametrize("picture", [b"no picture", b"", model_builders.jpeg()[:200]], ids=["text", "empty", "cut"])
def test_a_picture_that_the_graph_cannot_decode_is_told_apart(opened, picture, capfd):
    session = opened(model_builders.saved_model_jpeg)
    with pytest.raises(ScoringError, match="m:123") as refusal:
        ask(session, images=np.array([model_builders.jpeg(), picture], object))
    assert refusal.value.kind is Kind.UNDECODABLE
    assert "[[" not in refusal.value.message


def test_a_broken_example_is_no_broken_picture(opened):
    session = opened(model_builders.saved_model_half_plus_two)
    with pytest.raises(ScoringError, match="Feature: x") as refusal:
        ask(session, "classify_x_to_y", inputs=np.array([example(x2=1)], object))
    assert refusal.value.kind is Kind.INVALID


@pytest.mark.parametrize("x", [np.ones((1, 1)), np.array([b"a"], object), np.array([1], object)])
def test_an_input_of_another_type_is_the_clients_mistake(opened, x):
    session = opened(model_builders.saved_model_half_plus_two)
    with pytest.raises(ScoringError, match="m:123") as refusal:
        ask(session, x=x)
    assert refusal.value.kind is Kind.INVALID


def test_a_string_that_is_no_text_passes_unread(tmp_path):
    session = load(save(tmp_path / "1", lambda tf: tf.identity(tf.compat.v1.placeholder(tf.string, None, "x"))))
    for x in (np.array([b"\xff\0a", b""], object), np.array(b"\xff", object)):
        y = ask(session, x=x)["y"]
        assert (y.dtype, y.shape, y.tolist()) == (object, x.shape, x.tolist())
    session.close()


def save(path: Path, build, signatures=None) -> Path:
    """A TF1 model whose placeholder is called x and whose answer `build(tf)` returns, or the given signatures."""
    tf = model_builders.import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default() as graph:
        y = build(tf)
        x = graph.get_tensor_by_name("x:0")
        made = signatures(tf, x, y) if signatures else {}
        plain = {"serving_default": model_builders.v1_signature(tf, {"x": x}, {"y": y})}
        model_builders.save_v1(tf, path, {**plain, **made})
    return path


def test_a_signature_with_a_sparse_tensor_is_left_out_with_a_reason(tmp_path, caplog):
    def sparse(tf, x, y):
        placeholder = tf.compat.v1.sparse_placeholder(tf.float32, name="sparse")
        return {"sparse": model_builders.v1_signature(tf, {"s": placeholder}, {"y": y})}

    session = load(save(tmp_path / "1", lambda tf: tf.compat.v1.placeholder(tf.float32, None, "x") * 2, sparse))
    assert list(session.signatures) == ["serving_default"]
    assert 'signature "sparse" is left out' in caplog.text
    session.close()


def test_without_the_private_call_the_public_one_answers(opened, caplog):
    session = opened(model_builders.saved_model_half_plus_two)
    session._session = WithoutCallables(session._session)
    assert ask(session, x=floats([2]))["y"].tolist() == [[3]]
    assert "Session.run" in caplog.text


class WithoutCallables:
    """A session of a TensorFlow that has lost `_make_callable_from_options`."""

    def __init__(self, session) -> None:
        self.run, self.close = session.run, session.close


def test_the_kept_callables_are_bounded_whatever_outputs_are_asked_for(tmp_path):
    def eight(tf, x, y):
        outputs = {f"y{n}": y + float(n) for n in range(8)}
        return {"many": model_builders.v1_signature(tf, {"x": x}, outputs)}

    session = load(save(tmp_path / "1", lambda tf: tf.compat.v1.placeholder(tf.float32, None, "x") * 1, eight))
    for mask in range(1, 256):
        wanted = tuple(f"y{n}" for n in range(8) if mask >> n & 1)
        outputs = session.run(Batch("many", {"x": floats(1)}, wanted, 1)).outputs
        assert {name: value.item() for name, value in outputs.items()} == {name: 1 + int(name[1:]) for name in wanted}
    assert len(session._callables) <= _MOST_CALLABLES + len(session.signatures)
    session.close()


def test_a_broken_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"hello")
    with pytest.raises(ScoringError, match="m:123 does not load: ") as refusal:
        load(tmp_path)
    assert refusal.value.kind is Kind.PRECONDITION
    assert "\n" not in refusal.value.message


def test_a_model_without_the_serve_tag_is_refused_naming_its_tags(tmp_path):
    path = model_builders.saved_model_counter(tmp_path / "1")
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"serve", b"train", 1))
    with pytest.raises(ScoringError, match="train") as refusal:
        load(path)
    assert refusal.value.kind is Kind.PRECONDITION


def test_loading_says_nothing_that_is_no_news(tmp_path, caplog):
    path = model_builders.saved_model_half_plus_two(tmp_path / "1")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load(path).close()
    assert caplog.records == []


def test_a_required_gpu_is_refused_without_asking_tensorflow():
    pool = BackendPool([tf_session()])
    with pytest.raises(ScoringError, match="tf_session: it drives no gpu") as refusal:
        pool.choose(artifact(Path("m")), parse_device_request("gpu"))
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_a_gpu_is_refused_at_the_load_too():
    gpu = Device("gpu:0", DeviceKind.GPU, "a GPU")
    with pytest.raises(ScoringError, match="saved_model_onnx takes SavedModels to a GPU") as refusal:
        TfSessionBackend().load(Prepared(artifact(Path("m")), Path("m")), gpu, SessionOptions(), None)
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_nothing_imports_tensorflow_before_a_model_is_loaded():
    program = (
        "import sys; from accelserve.backends.tf_session.backend import TfSessionBackend; "
        "TfSessionBackend().inventory(); sys.exit('tensorflow' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(accelserve.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60).returncode == 0


def test_settings_of_the_models_life_on_a_gpu_do_nothing_here_and_the_log_says_so(tmp_path, caplog):
    path = model_builders.saved_model_half_plus_two(tmp_path / "m")
    with caplog.at_level("INFO", logger="accelserve.backends"):
        load(path, extra={"precision": "fp16", "sample": "/s.npz"}).close()
    assert "runs in TensorFlow on cpu:0, where precision, sample does nothing" in caplog.text
    with pytest.raises(ScoringError, match=r"tf_session has no settings, got precison; on a GPU there are .*precision"):
        load(path, extra={"precison": "fp16"})
