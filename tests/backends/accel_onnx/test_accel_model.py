import json
from dataclasses import replace

import numpy as np
import pytest

from accelserve.backends.accel_onnx.accel_model import (
    AccelModel,
    Part,
    decoded_input,
    read_accel,
    read_part,
    write_accel,
)
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, TensorSpec
from accelserve.wire import onnx_pb2

FLOAT, STRING = BY_NAME["float32"], BY_NAME["string"]
SIGNATURE = Signature(
    "serving_default",
    {"images": TensorSpec("images", STRING, (-1,), "Placeholder:0")},
    {"output_alias": TensorSpec("output_alias", FLOAT, (-1, 3), "classifier/Softmax:0")},
)
PICTURES = Preprocessing((8, 6), mean=(123.68, 116.779, 103.939), scale=(1.0,))
MODEL = AccelModel(
    SIGNATURE,
    {"images": "pixels"},
    {"output_alias": "scores"},
    Part("device.onnx", {"in": "pixels"}, {"out": "features"}),
    Part("tail.onnx", {"features": "features"}, {"y": "scores"}),
    PICTURES,
    report={"parent": "resnet50:1"},
)


def graph_of(inputs, outputs) -> bytes:
    model = onnx_pb2.ModelProto(ir_version=8)
    for name in inputs:
        model.graph.input.add(name=name)
    for name in outputs:
        model.graph.output.add(name=name)
    return model.SerializeToString()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "device.onnx").write_bytes(graph_of(["in"], ["out"]))
    (tmp_path / "tail.onnx").write_bytes(graph_of(["features"], ["y"]))
    write_accel(tmp_path, MODEL)
    return tmp_path


def refused(folder) -> str:
    with pytest.raises(ScoringError) as error:
        read_accel(folder)
    assert error.value.kind is Kind.PRECONDITION
    assert str(folder) in error.value.message
    assert error.value.message.endswith("make it again with `accelserve convert --to accelonnx`")
    return error.value.message


def changed(folder, change) -> None:
    content = json.loads((folder / "accel.json").read_text())
    change(content)
    (folder / "accel.json").write_text(json.dumps(content))


def test_what_was_written_is_read_back(folder):
    model = read_accel(folder)
    assert replace(model, files={}) == MODEL
    assert model.files["device.onnx"].size_bytes == (folder / "device.onnx").stat().st_size
    assert len(model.files["tail.onnx"].sha256) == 64


def test_the_same_model_gives_the_same_bytes(folder):
    before = (folder / "accel.json").read_bytes()
    write_accel(folder, read_accel(folder))
    assert (folder / "accel.json").read_bytes() == before


def test_a_model_may_lack_tail_and_pictures(folder):
    inputs = {"images": TensorSpec("images", FLOAT, (-1, 8, 6, 3), "Placeholder:0")}
    plain = replace(
        MODEL,
        signature=replace(SIGNATURE, inputs=inputs),
        outputs={"output_alias": "features"},
        tail=None,
        pictures=None,
    )
    write_accel(folder, plain)
    assert replace(read_accel(folder), files={}) == plain


def test_decoded_pictures_come_under_the_same_names(folder):
    decoded = decoded_input(read_accel(folder))
    assert decoded.signature.name != "serving_default"
    assert decoded.signature.inputs["images"] == TensorSpec("images", FLOAT, (-1, 8, 6, 3), "Placeholder:0")
    assert decoded.signature.outputs == SIGNATURE.outputs
    assert decoded.signature.batched
    assert decoded.preprocessing == PICTURES
    planes = decoded_input(replace(MODEL, pictures=replace(PICTURES, layout="NCHW")))
    assert planes.signature.inputs["images"].shape == (-1, 3, 8, 6)


def test_a_model_of_tensors_decodes_nothing(folder):
    with pytest.raises(ScoringError) as error:
        decoded_input(replace(MODEL, pictures=None))
    assert error.value.kind is Kind.UNSUPPORTED


def test_a_folder_without_the_description_is_refused(tmp_path):
    assert "accel.json" in refused(tmp_path)


def test_a_description_that_is_no_json_is_refused(folder):
    (folder / "accel.json").write_bytes(b"\x00\xff")
    assert "accel.json is no JSON" in refused(folder)
    (folder / "accel.json").write_text((folder / "accel.json").name)
    assert "accel.json is no JSON" in refused(folder)
    (folder / "accel.json").write_text("[]")
    refused(folder)
    (folder / "accel.json").write_text("[" * 100_000)
    refused(folder)


def test_another_releases_layout_is_refused(folder):
    changed(folder, lambda content: content.update(layout=2))
    assert "its layout is 2, this release reads 1" in refused(folder)


@pytest.mark.parametrize("key", ["layout", "signature", "pictures", "device", "tail", "files", "report"])
def test_a_description_that_lacks_something_is_refused(folder, key):
    changed(folder, lambda content: content.pop(key))
    assert f"accel.json lacks '{key}'" in refused(folder)


def test_a_missing_part_is_refused(folder):
    (folder / "tail.onnx").unlink()
    assert "tail.onnx is missing" in refused(folder)


def test_a_truncated_part_is_refused(folder):
    whole = (folder / "device.onnx").read_bytes()
    (folder / "device.onnx").write_bytes(whole[:-1])
    assert f"device.onnx has {len(whole) - 1} bytes, want {len(whole)}" in refused(folder)


def test_a_changed_part_of_the_same_size_is_refused(folder):
    whole = bytearray((folder / "device.onnx").read_bytes())
    whole[-1] ^= 1
    (folder / "device.onnx").write_bytes(bytes(whole))
    assert "device.onnx is not what was written" in refused(folder)


def test_a_part_outside_of_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "device.onnx"
    (folder / "device.onnx").rename(outside)
    changed(folder, lambda content: content["device"].update(file=str(outside)))
    assert "outside" in refused(folder)


def test_ports_that_do_not_fit_are_refused(folder):
    changed(folder, lambda content: content["tail"].update(feeds={"features": "other"}))
    assert "tail.onnx is fed other, which nothing makes" in refused(folder)
    changed(folder, lambda content: content["tail"].update(feeds={"features": "features"}, fetches={"y": "z"}))
    assert "output scores is made by no part" in refused(folder)


def test_strings_without_a_decoder_and_a_decoder_without_strings_are_refused(folder):
    changed(folder, lambda content: content.update(pictures=None))
    assert "nothing decodes them" in refused(folder)
    write_accel(folder, MODEL)
    changed(folder, lambda content: content["signature"]["inputs"]["images"].update(dtype="uint8"))
    assert "has not one input of strings" in refused(folder)


def test_preprocessing_of_another_release_is_refused(folder):
    changed(folder, lambda content: content["pictures"].update(resize="seam-carving"))
    assert "seam-carving" in refused(folder)
    changed(folder, lambda content: content["pictures"].update(resize="stretch", sharpen=1))
    assert "sharpen" in refused(folder)


def test_a_part_is_read_with_the_ports_that_are_told_of_it(folder):
    model = read_accel(folder)
    assert [port.name for port in read_part(folder, model.device).graph.input] == ["in"]
    with pytest.raises(ScoringError, match=r"want output \['features'\] as accel.json says, got \['out'\]") as error:
        read_part(folder, replace(model.device, fetches={"features": "features"}))
    assert error.value.kind is Kind.PRECONDITION
    (folder / "device.onnx").write_bytes(b"no model")
    with pytest.raises(ScoringError, match="is no ONNX model"):
        read_part(folder, model.device)


def test_weights_that_are_inputs_too_are_no_ports(folder):
    graph = onnx_pb2.ModelProto()
    graph.ParseFromString((folder / "device.onnx").read_bytes())
    graph.graph.input.add(name="w")
    graph.graph.initializer.add(name="w", data_type=1, dims=[1], raw_data=np.ones(1, np.float32).tobytes())
    (folder / "device.onnx").write_bytes(graph.SerializeToString())
    assert read_part(folder, MODEL.device).graph.initializer[0].name == "w"
