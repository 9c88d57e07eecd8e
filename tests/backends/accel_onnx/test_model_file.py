"""An ONNX file's signature, and its batch axis made fixed; without any library but ours."""

import os

import pytest

import model_builders
from accelserve.backends.accel_onnx.model_file import inputs_of, read_model, read_whole, signature_of, with_batch
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME
from accelserve.wire.onnx_pb2 import ModelProto


def shapes(values) -> list[list[int | str]]:
    return [[size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim] for value in values]


def test_a_signature_has_the_graphs_names_types_and_open_axes(tmp_path):
    signature = signature_of("m:1", read_model("m:1", onnx_classifier(tmp_path / "m.onnx")))
    (image,) = signature.inputs.values()
    assert (image.name, image.dtype, image.shape) == ("images", BY_NAME["float32"], (-1, 16))
    assert signature.outputs["scores"].shape == (-1, 4)
    assert signature.batched


def test_an_initializer_that_is_listed_as_an_input_is_none(tmp_path):
    model = read_model("m:1", onnx_classifier(tmp_path / "m.onnx"))
    model.graph.input.add(name="w1")
    assert [value.name for value in inputs_of(model.graph)] == ["images"]


def test_a_type_that_nobody_knows_is_refused_by_name(tmp_path):
    model = read_model("m:1", onnx_classifier(tmp_path / "m.onnx"))
    model.graph.output[0].type.tensor_type.elem_type = 99
    with pytest.raises(ScoringError, match=r'm:1 "scores": want a tensor of a known type, got ONNX type 99') as refusal:
        signature_of("m:1", model)
    assert refusal.value.kind is Kind.PRECONDITION


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b""])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ScoringError, match="m:1") as refusal:
        read_model("m:1", tmp_path / "m.onnx")
    assert refusal.value.kind is Kind.PRECONDITION


def test_weights_beside_the_file_are_taken_in(tmp_path):
    path = model_builders.onnx_external(tmp_path / "m.onnx", "weights.bin")
    whole = read_whole("m:1", path)
    assert any(tensor.data_location for tensor in read_model("m:1", path).graph.initializer)
    assert not any(tensor.data_location or tensor.external_data for tensor in whole.graph.initializer)
    assert any(tensor.raw_data in (tmp_path / "weights.bin").read_bytes() for tensor in whole.graph.initializer)


@pytest.mark.parametrize(
    ("size", "why"), [(3, "want [0-9]+ bytes, got"), (2**31, "over 2 GiB"), (None, "No such file")]
)
def test_weights_that_end_early_are_too_many_or_missing_are_refused_by_file(tmp_path, size, why):
    path = model_builders.onnx_external(tmp_path / "m.onnx", "weights.bin")
    if size is None:
        (tmp_path / "weights.bin").unlink()
    else:
        model = read_model("m:1", path)
        for tensor in model.graph.initializer:
            kept = [entry for entry in tensor.external_data if entry.key != "length" or size == 3]
            del tensor.external_data[:]
            tensor.external_data.extend(kept)
        path.write_bytes(model.SerializeToString())
        os.truncate(tmp_path / "weights.bin", size)  # of 2 GiB of holes nothing is read
    with pytest.raises(ScoringError, match=rf"^m:1: weights .*weights\.bin cannot be read: .*{why}") as refusal:
        read_whole("m:1", path)
    assert refusal.value.kind is Kind.PRECONDITION


def test_the_batch_axis_is_fixed_in_a_copy(tmp_path):
    model = read_model("m:1", onnx_classifier(tmp_path / "m.onnx"))
    fixed = with_batch("m:1", model, 4)
    assert shapes((*fixed.graph.input, *fixed.graph.output)) == [[4, 16], [4, 4]]
    assert shapes(model.graph.input) == [["batch", 16]]


def test_a_batch_axis_that_the_file_fixes_stays(tmp_path):
    path = model_builders.onnx_identity(tmp_path / "m.onnx", 1, (3, 2))
    assert shapes(with_batch("m:1", read_model("m:1", path), 4).graph.input) == [[3, 2]]


@pytest.mark.parametrize("shape", [("batch", "width"), ("batch", 3, "height", "width")])
def test_another_open_axis_is_refused_by_name(tmp_path, shape):
    path = model_builders.onnx_identity(tmp_path / "m.onnx", 1, shape)
    with pytest.raises(ScoringError, match=r'm:1 "x": want a fixed shape for an FPGA') as refusal:
        with_batch("m:1", read_model("m:1", path), 1)
    assert refusal.value.kind is Kind.PRECONDITION


def test_an_input_of_unknown_rank_is_refused():
    model = ModelProto()
    model.graph.input.add(name="x").type.tensor_type.elem_type = 1
    with pytest.raises(ScoringError, match=r"got float32\[\.\.\.\]"):
        with_batch("m:1", model, 1)
