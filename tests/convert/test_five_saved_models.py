"""The SavedModels that people bring: converted, and compared with TensorFlow; or refused by the operators' names."""

from importlib import metadata

import numpy as np
import pytest

import saved_models
from accelserve.backends.base import Batch, ModelArtifact
from accelserve.backends.saved_model_onnx.cut_model import read_cut
from accelserve.convert.conversion import Request, convert
from accelserve.errors import Kind, ScoringError
from model_builders import jpeg

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]  # tf2onnx and Keras warn of themselves


def converted(tmp_path, build, **options):
    """The report, and the folder."""
    source = build(tmp_path / "model" / "1")
    request = Request(build.__name__, source, tmp_path / "out", **options)
    steps = []
    report = convert(request, saved_models.open_on_the_cpu, lambda what, done: steps.append(done))
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    return report, tmp_path / "out"


def refused(tmp_path, build, **options) -> ScoringError:
    with pytest.raises(ScoringError) as error:
        converted(tmp_path, build, **options)
    assert not list(tmp_path.glob("*out*")), "half an artifact is left"
    return error.value


def parts(report, signature: str = "serving_default") -> list[str]:
    return list(report["signatures"][signature]["nodes"])


@pytest.mark.parametrize("build", saved_models.FIVE, ids=lambda build: build.__name__)
def test_each_of_the_five_answers_as_tensorflow_does(tmp_path, build):
    report, _ = converted(tmp_path, build)
    for name, told in report["signatures"].items():
        for output in told["comparison"]["outputs"]:
            print(f"{build.__name__} {name} {output['name']} {output['tensor']}: error {output['error']:.1e}")
            assert output["equal"]
            assert output["error"] < 1e-5
        assert told["comparison"]["rows_independent"]
        assert told["comparison"]["batch_sizes"] == (1, 3)


@pytest.mark.full
@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (saved_models.keras_text, ["host", "dense"]),
        (saved_models.keras_recurrent, ["dense"]),
        (saved_models.keras_attention, ["dense"]),
        (saved_models.keras_any_size, ["dense"]),
        (saved_models.all_in_a_loop, ["dense"]),
        (saved_models.whole_numbers, ["dense"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_other_layers_and_loops_convert_too(tmp_path, build, wanted):
    report, _ = converted(tmp_path, build)
    assert parts(report) == wanted
    assert all(o["error"] < 1e-5 for o in report["signatures"]["serving_default"]["comparison"]["outputs"])


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (saved_models.tf1_jpeg, ["host", "dense"]),
        (saved_models.tf1_jpeg_old_loops, ["host", "dense"]),
        (saved_models.keras_classifier, ["dense"]),
        (saved_models.two_inputs_two_outputs, ["host", "dense"]),
        (saved_models.word_tables, ["host", "dense", "tail"]),
        (saved_models.mnist_checkpoint, ["dense"]),
        (saved_models.one_picture, ["host", "dense"]),
        (saved_models.unsupported_op_before_the_network, ["host", "dense"]),
        (saved_models.unsupported_op_after_the_network, ["dense", "tail"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_cut_lies_where_strings_and_weights_say(tmp_path, build, wanted):
    assert parts(converted(tmp_path, build)[0]) == wanted


def test_a_host_that_has_only_the_gpu_build_of_onnx_runtime_converts_too(tmp_path, monkeypatch):
    found = metadata.Distribution.from_name

    def with_the_gpu_build_alone(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return found(name.removesuffix("-gpu"))

    monkeypatch.setattr(metadata.Distribution, "from_name", with_the_gpu_build_alone)
    report, _ = converted(tmp_path, saved_models.mnist_checkpoint)
    assert report["tools"].keys() == {"tf2onnx", "onnx", "onnxruntime-gpu"}


def test_checks_inside_the_graph_are_left_out_and_told(tmp_path):
    told = converted(tmp_path, saved_models.checked)[0]["signatures"]["serving_default"]
    assert any("small" in name for name in told["checks_left_out"])


def test_a_given_jpeg_is_compared_too(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(jpeg(size=(40, 30)))
    report, _ = converted(tmp_path, saved_models.tf1_jpeg, samples=(tmp_path / "cat.jpg",))
    assert report["signatures"]["serving_default"]["comparison"]["sample"] == "cat.jpg"


def test_tables_are_asked_with_their_own_words(tmp_path):
    report, folder = converted(tmp_path, saved_models.word_tables)
    assert "'accept'" in report["signatures"]["serving_default"]["comparison"]["sample"]
    session = saved_models.open_on_the_cpu(ModelArtifact("words", 1, "cut", folder))
    words = np.array([[b"accept", b"batch", b"card", b"nonsense"]], object)
    outputs = session.run(Batch("serving_default", {"words": words}, ("scores", "label"), 1)).outputs
    session.close()
    assert outputs["label"][0].decode() == saved_models.LABELS[int(outputs["scores"][0].argmax())]


def test_a_dense_model_is_one_plain_onnx_file_named_by_the_signature(tmp_path):
    import onnxruntime

    _, folder = converted(tmp_path, saved_models.mnist_checkpoint)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["images"]
    assert [o.name for o in session.get_outputs()] == ["scores"]
    signature = read_cut(folder, "").signatures["serving_default"].signature
    assert signature.inputs["images"].tensor_name == "network/X:0", "clients name tensors as the SavedModel does"


def test_signatures_that_are_the_same_network_share_its_file(tmp_path):
    _, folder = converted(tmp_path, saved_models.keras_classifier)
    model = read_cut(folder, "")
    assert set(model.signatures) == {"serve", "serving_default"}
    assert len(model.files) == 1


def test_the_same_content_gives_the_same_bytes(tmp_path):
    source = saved_models.word_tables(tmp_path / "model")
    contents = []
    for name in ("first", "second"):
        convert(Request("m", source, tmp_path / name), saved_models.open_on_the_cpu, lambda what, done: None)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name / "0").iterdir()})
    assert set(contents[0]) == {"host.pb", "model.onnx", "tail.pb"}
    assert contents[0] == contents[1]


def test_a_signature_that_cannot_be_converted_is_left_out_with_its_reason(tmp_path):
    report, folder = converted(tmp_path, saved_models.several_signatures)
    assert set(read_cut(folder, "").signatures) == {"serving_default", "same", "examples"}
    assert 'StringUpper "StringUpper"' in report["left_out"]["text"]
    assert "--sample" in report["left_out"]["guarded"]


def test_a_signature_of_examples_is_asked_with_examples_of_its_features(tmp_path):
    report, _ = converted(tmp_path, saved_models.several_signatures)
    comparison = report["signatures"]["examples"]["comparison"]
    assert "generated, strings" in comparison["sample"]
    assert comparison["outputs"][0]["equal"]


def test_a_signature_that_was_asked_for_has_to_succeed(tmp_path):
    error = refused(tmp_path, saved_models.several_signatures, signatures=("text",))
    assert error.kind is Kind.PRECONDITION
    assert 'several_signatures: signature "text" cannot be converted: nothing is left' in error.message


def test_an_unknown_signature_is_not_found(tmp_path):
    error = refused(tmp_path, saved_models.several_signatures, signatures=("classify",))
    assert error.kind is Kind.NOT_FOUND
    assert '"serving_default"' in error.message


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (saved_models.only_strings, ["nothing is left for the accelerator", "StringUpper"]),
        (saved_models.counts_requests, ["AssignAddVariableOp", "changes a variable"]),
        (saved_models.draws_random_numbers, ['RandomUniform "random_uniform/RandomUniform"', "random numbers"]),
        (saved_models.unsupported_op_in_the_network, ['/the_layer"', "goes on with MatMul", "--device cpu"]),
        (saved_models.strings_in_the_middle, ["AsString", "goes on with"]),
        (saved_models.data_pipeline, ["ReduceDataset", "tf.data pipeline"]),
        (saved_models.ragged_input, ['"rows" is composite_tensor']),
        (saved_models.unknown_rank_at_the_cut, ["number of dimensions", "ParseTensor:0", "tf.ensure_shape"]),
        (saved_models.without_its_variables, ["does not load", "variables"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_converted_is_refused_by_name(tmp_path, build, words):
    error = refused(tmp_path, build)
    assert error.kind is Kind.PRECONDITION
    for word in words:
        assert word in error.message


def test_a_model_that_answers_differently_is_refused_with_the_error(tmp_path):
    error = refused(tmp_path, saved_models.keras_classifier, tolerance=1e-12)
    assert "does not answer as TensorFlow does" in error.message
    assert '"output_0"' in error.message


def test_what_differs_below_zero_alone_is_refused(tmp_path, monkeypatch):
    from accelserve.convert import dense

    monkeypatch.setattr(dense, "ROUNDED_DOWN", {})  # tf2onnx's own translation, which rounds to zero
    error = refused(tmp_path, saved_models.whole_numbers)
    assert "does not answer as TensorFlow does (generated, numbers of both signs)" in error.message
    assert '"third" int32[3]: want -' in error.message


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ScoringError) as error:
        converted(tmp_path, saved_models.mnist_checkpoint)
    assert error.value.kind is Kind.CONFLICT
    assert (tmp_path / "out" / "mine").exists()


def test_the_network_in_fp16_is_measured_and_compared(tmp_path):
    report, folder = converted(tmp_path, saved_models.word_tables, precision="fp16", tolerance=0.02)
    assert 0 < report["fp16_errors"]["0/model.onnx"] < 0.02
    outputs = report["signatures"]["serving_default"]["comparison"]["outputs"]
    assert {o["name"]: o["equal"] for o in outputs} == {"label": True, "scores": True}
    assert sorted(read_cut(folder, "").files) == ["0/host.pb", "0/model.onnx", "0/tail.pb"]


def test_a_sample_that_is_not_there_is_not_found(tmp_path):
    error = refused(tmp_path, saved_models.mnist_checkpoint, samples=(tmp_path / "absent.npz",))
    assert error.kind is Kind.NOT_FOUND


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    from accelserve.convert import conversion

    def full(folder, model):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "write_cut", full)
    error = refused(tmp_path, saved_models.mnist_checkpoint)
    assert error.message.endswith("cannot be written: No space left on device")
