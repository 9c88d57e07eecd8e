import json
from dataclasses import replace

import numpy as np
import pytest

from accelserve.backends.saved_model_onnx.cut_model import (
    CutModel,
    CutSignature,
    Part,
    Pictures,
    read_cut,
    why_not_decoded,
    write_cut,
)
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, TensorSpec

FLOAT, STRING = BY_NAME["float32"], BY_NAME["string"]
SIGNATURE = Signature(
    "serving_default",
    {"images": TensorSpec("images", STRING, (-1,), "Placeholder:0"), "scale": TensorSpec("scale", FLOAT, None, "s:0")},
    {"scores": TensorSpec("scores", FLOAT, (-1, 3), "scores:0")},
    "tensorflow/serving/predict",
    {"images": np.array([b"\xff\x00", b""], object), "scale": np.array(0.1, np.float32)},
)
PARTS = {
    "host": Part("0/host.pb", {"feed:0": "Placeholder:0"}, {"decoded:0": "decoded:0"}, ("fill",), 3),
    "dense": Part("0/model.onnx", {"decoded": "decoded:0", "scale": "s:0"}, {"scores": "scores:0"}, (), 5),
}
CUT = CutSignature(SIGNATURE, {"images": "Placeholder:0", "scale": "s:0"}, {"scores": "scores:0"}, PARTS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "host.pb").write_bytes(b"host")
    (tmp_path / "0" / "model.onnx").write_bytes(b"dense part")
    write_cut(tmp_path, CutModel({"serving_default": CUT}, report={"seconds": 1.5}))
    return tmp_path


def refused(folder) -> str:
    with pytest.raises(ScoringError) as error:
        read_cut(folder, "convert it again")
    assert error.value.kind is Kind.PRECONDITION
    assert str(folder) in error.value.message
    assert error.value.message.endswith("; convert it again")
    return error.value.message


def test_what_was_written_is_read_back(folder):
    model = read_cut(folder, "")
    cut = model.signatures["serving_default"]
    assert (cut.inputs, cut.outputs, cut.parts) == (CUT.inputs, CUT.outputs, PARTS)
    assert dict(cut.signature.inputs) == dict(SIGNATURE.inputs)
    assert cut.signature.defaults["images"].tolist() == [b"\xff\x00", b""]
    assert cut.signature.defaults["scale"] == np.float32(0.1)
    assert cut.signature.defaults["scale"].dtype == np.float32
    assert model.report == {"seconds": 1.5}
    assert model.files == {"0/host.pb": 4, "0/model.onnx": 10}


def test_how_pictures_are_decoded_is_read_back_and_may_lack_in_older_folders(folder):
    found = Pictures((8, 6), 3, (1.0, 2.0, 3.0), (0.5,), "float32", "legacy", True, 0.5, 1e-3)
    (folder / "cut.json").unlink()
    write_cut(folder, CutModel({"serving_default": replace(CUT, pictures=found, no_pictures="")}))
    assert read_cut(folder, "").signatures["serving_default"].pictures == found
    content = json.loads((folder / "cut.json").read_text())
    for key in ("pictures", "no_pictures"):
        del content["signatures"]["serving_default"][key]
    (folder / "cut.json").write_text(json.dumps(content))
    cut = read_cut(folder, "").signatures["serving_default"]
    assert cut.pictures is None
    assert why_not_decoded(cut).endswith("convert it again")


def test_a_folder_without_the_description_is_refused(tmp_path):
    assert "cut.json" in refused(tmp_path)


def test_a_description_that_was_cut_short_is_refused(folder):
    (folder / "cut.json").write_text((folder / "cut.json").read_text()[:100])
    refused(folder)


def test_a_file_that_was_cut_short_is_refused_with_both_sizes(folder):
    (folder / "0" / "model.onnx").write_bytes(b"dense")
    assert "0/model.onnx has 5 bytes, want 10" in refused(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "0" / "host.pb").unlink()
    assert "0/host.pb is missing" in refused(folder)


def test_another_releases_layout_is_refused(folder):
    content = json.loads((folder / "cut.json").read_text())
    (folder / "cut.json").write_text(json.dumps({**content, "layout": 99}))
    assert "its layout is 99" in refused(folder)


def test_a_file_outside_of_the_folder_is_refused(folder):
    content = (folder / "cut.json").read_text()
    (folder / "cut.json").write_text(content.replace("0/host.pb", "../host.pb"))
    assert "lies outside of it" in refused(folder)
