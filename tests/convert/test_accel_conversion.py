"""ONNX models made ready for an FPGA: the parts, the names, the boundary, what is refused."""

import io

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, load
from small_networks import value, write

from accel_models import CLASSES, SIDE, SOFTMAX, accel_request, small_accel, small_resnet
from accelserve.backends.accel_onnx.accel_model import read_accel, read_part
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.convert.accel_conversion import convert_for_fpga, converted, derived_name
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import read_manifest
from accelserve.tensors import BY_NAME, TensorSpec
from model_builders import onnx_external

POOL = "resnet_v1_50/pool5:0"
FLOAT, STRING = BY_NAME["float32"], BY_NAME["string"]


def quiet(*_):
    pass


def converted_to(folder, request):
    folder.mkdir()
    convert_for_fpga(request, folder, quiet)
    return read_accel(folder)


def refused(tmp_path, request) -> str:
    (tmp_path / "refused").mkdir(exist_ok=True)
    with pytest.raises(ScoringError) as error:
        convert_for_fpga(request, tmp_path / "refused", quiet)
    assert error.value.kind is Kind.PRECONDITION
    return error.value.message


@pytest.mark.parametrize(
    ("name", "version", "derived"),
    [
        ("resnet50", 1, "resnet50.1.accelonnx"),
        ("a-name-of-many-letters-and-more", 12, "a-name-of-many-lett.12.accelonnx"),
        ("x" * 40, 1, "x" * 20 + ".1.accelonnx"),
    ],
)
def test_the_derived_name_is_the_originals_in_32_characters(name, version, derived):
    assert derived_name(name, version) == derived
    assert len(derived) <= 32


def test_a_recipe_is_divided_where_it_says_and_called_what_its_clients_call_it(tmp_path):
    model = read_accel(small_accel(tmp_path / "m", tmp_path))
    assert dict(model.signature.inputs) == {"images": TensorSpec("images", STRING, (-1,), "Placeholder:0")}
    scores = TensorSpec("output_alias", FLOAT, (-1, CLASSES), SOFTMAX)
    assert dict(model.signature.outputs) == {"output_alias": scores}
    assert model.signature.batched
    assert model.device.fetches == {POOL: POOL}
    assert model.tail is not None
    assert model.tail.feeds == {POOL: POOL}
    assert model.pictures is not None
    assert (model.pictures.resize, model.pictures.size) == ("azure-accel", (SIDE, SIDE))
    device, tail = (read_part(tmp_path / "m", part).graph for part in model.parts)
    assert {node.op_type for node in device.node} >= {"Conv", "Relu", "GlobalAveragePool"}
    assert [node.op_type for node in tail.node] == ["Flatten", "Gemm", "Softmax"]
    assert tail.input[0].type.tensor_type.shape.dim[3].dim_value == 8 * 4 * 2  # NHWC features: the types are known


def test_the_parts_together_answer_as_the_whole(tmp_path):
    folder = small_accel(tmp_path / "m", tmp_path)
    picture = np.random.default_rng(0).normal(0, 60, (2, SIDE, SIDE, 3)).astype(np.float32)
    values = picture
    for name in ("device.onnx", "tail.onnx"):
        session = onnxruntime.InferenceSession(folder / name)
        (values,) = session.run(None, {session.get_inputs()[0].name: values})
    whole = onnxruntime.InferenceSession(tmp_path / "source" / "1" / "model.onnx")
    np.testing.assert_allclose(values, whole.run(None, {"InputImage:0": picture})[0], rtol=1e-5, atol=1e-7)


def test_the_report_speaks_the_originals_words(tmp_path):
    folder = small_accel(tmp_path / "m", tmp_path, parent="resnet50:1")
    report = read_accel(folder).report
    assert report["name"] == "resnet50.1.accelonnx"
    assert report["parent"] == "resnet50:1"
    assert (report["sourceModelFlavor"], report["targetModelFlavor"]) == ("Onnx", "AccelOnnx")
    assert report["compilationOptions"] == {
        "input_node_names": "Placeholder:0",
        "output_node_names": SOFTMAX,
        "require_fpga_conversion": True,
    }
    assert report["boundary"] == [POOL]
    assert report["device"]["operators"]["Conv"] == 9
    assert report["largest_error"] <= 1e-5


def test_the_same_model_gives_the_same_bytes(tmp_path):
    source = small_resnet(tmp_path / "source")
    for name in ("one", "two"):
        converted_to(tmp_path / name, accel_request(source))
    for file in ("accel.json", "device.onnx", "tail.onnx"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_conversion_is_made_once_for_the_same_bytes_and_options(tmp_path):
    source, cache, told = small_resnet(tmp_path / "source"), FolderArtifactCache(tmp_path / "cache"), io.StringIO()

    def made(**options):
        return converted(accel_request(source, **options), cache, lambda what, done: told.write(what))

    first = made()
    assert told.getvalue()
    told.truncate(told.seek(0))
    assert made() == first
    assert told.getvalue() == ""
    assert made(outputs=(POOL,)) != first
    (source / "accelserve.toml").write_text('[preprocessing]\nresize = "stretch"\n')
    assert made() != first
    (source / "1" / "model.onnx").write_bytes(small_resnet(tmp_path / "other").joinpath("1", "model.onnx").read_bytes())
    assert told.getvalue()


def test_any_tensor_can_be_the_output_and_what_it_does_not_need_is_left_out(tmp_path):
    request = accel_request(small_resnet(tmp_path / "source"), outputs=(POOL,))
    model = converted_to(tmp_path / "m", request)
    assert [spec.tensor_name for spec in model.signature.outputs.values()] == [POOL]
    assert model.signature.outputs["output_alias"].shape == (-1, 1, 1, 64)
    assert model.tail is None


def test_without_preprocessing_the_input_stays_a_tensor(tmp_path):
    source = small_resnet(tmp_path / "source")
    (source / "accelserve.toml").unlink()
    model = converted_to(tmp_path / "m", accel_request(source))
    images = TensorSpec("images", FLOAT, (-1, SIDE, SIDE, 3), "Placeholder:0")
    assert (dict(model.signature.inputs), model.pictures) == ({"images": images}, None)


def test_labels_go_with_the_model(tmp_path):
    source = small_resnet(tmp_path / "source", ("a", "b", "c", "d"))
    converted_to(tmp_path / "m", accel_request(source))
    assert read_manifest(tmp_path / "m" / "accelserve.toml").labels == ("a", "b", "c", "d")


def test_weights_beside_the_file_are_taken_in(tmp_path):
    source = onnx_external(tmp_path / "m.onnx", "weights.bin")
    model = converted_to(tmp_path / "m", accel_request(source))
    whole = (tmp_path / "weights.bin").read_bytes()
    for tensor in read_part(tmp_path / "m", model.device).graph.initializer:
        assert not tensor.external_data
        assert tensor.raw_data in whole
    (tmp_path / "weights.bin").write_bytes(whole[:-1])
    assert "weights.bin cannot be read: want " in refused(tmp_path, accel_request(source))
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in refused(tmp_path, accel_request(source))


# -- what a device does not take ------------------------------------------------------------------------------------


def unusual(path, **told):
    """A convolution, an operator that no FPGA has in the layer "odd", another convolution."""
    kernel = np.random.default_rng(0).normal(0, 0.3, (3, 3, 1, 1)).astype(np.float32)
    return write(
        path,
        [
            helper.make_node("Conv", ["x", "kernel"], ["one"], "first"),
            helper.make_node("Erf", ["one"], ["two"], "odd"),
            helper.make_node("Conv", ["two", "kernel"], ["y"], "second"),
        ],
        [value("x", TensorProto.FLOAT, "batch", 3, 8, 8)],
        [value("y", TensorProto.FLOAT, "batch", 3, 8, 8)],
        kernel=kernel,
    )


def test_an_operator_that_the_device_does_not_take_is_named_with_its_layer(tmp_path):
    message = refused(tmp_path, accel_request(unusual(tmp_path / "m.onnx")))
    assert message.startswith("resnet50: ")
    assert 'Erf "odd"' in message
    assert '"second"' in message
    assert "--device-output" in message
    assert 'Erf "odd"' in refused(tmp_path, accel_request(unusual(tmp_path / "m.onnx"), device_outputs=("y",)))


def test_where_the_device_ends_can_be_said(tmp_path):
    model = converted_to(tmp_path / "m", accel_request(unusual(tmp_path / "m.onnx"), device_outputs=("one",)))
    assert (list(model.device.fetches), model.tail is not None) == (["one"], True)


def test_a_conversion_that_is_not_required_leaves_the_host_what_the_device_does_not_take(tmp_path):
    model = converted_to(tmp_path / "m", accel_request(unusual(tmp_path / "m.onnx"), require=False))
    assert model.report["device"]["operators"] == {"Conv": 1}
    assert model.report["tail"]["operators"] == {"Conv": 1, "Erf": 1}
    assert model.report["compilationOptions"]["require_fpga_conversion"] is False


def test_pictures_for_an_input_that_takes_none_are_refused(tmp_path):
    source = small_resnet(tmp_path / "source", size=(16, 16))
    assert "preprocessing makes" in refused(tmp_path, accel_request(source))


def test_a_file_that_is_no_model_and_one_whose_shapes_contradict_are_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x00\x01nothing")
    refused(tmp_path, accel_request(tmp_path / "m.onnx"))
    wrong = load(unusual(tmp_path / "n.onnx"))
    wrong.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [5, 5]))
    (tmp_path / "n.onnx").write_bytes(wrong.SerializeToString())
    refused(tmp_path, accel_request(tmp_path / "n.onnx"))
