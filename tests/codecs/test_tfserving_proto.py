import re

import numpy as np
import pytest

from accelserve.codecs.tfserving_proto import (
    SIGNATURE_DEF_TYPE_URL,
    decode_metadata_call,
    decode_predict,
    decode_predict_response,
    decode_status_call,
    encode_metadata,
    encode_predict,
    encode_predict_request,
    encode_status,
)
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, ScoreResponse, VersionStatus
from accelserve.tensors import BY_NAME, Signature, TensorSpec
from accelserve.wire.tensorflow_pb2 import TensorProto, TensorShapeProto
from accelserve.wire.tfserving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)

X = np.array([[1.5], [2.5]], np.float32)


def refusal(decode, data):
    with pytest.raises(ScoringError) as caught:
        decode(data)
    assert caught.value.kind is Kind.INVALID
    return caught.value.message


def response(outputs):
    return ScoreResponse(outputs, "resnet50", 3, "serving_default", device="cpu:0", emulated=False)


@pytest.mark.parametrize(
    "ref",
    [
        ModelRef("resnet50"),
        ModelRef("resnet50", version=3),
        ModelRef("resnet50", version=0),
        ModelRef("resnet50", label="stable"),
        ModelRef("", version=3),
    ],
)
def test_a_predict_request_says_which_model_it_means(ref):
    call = decode_predict(encode_predict_request(ref, "classify", {"x": X}, ["scores", "classes"]))

    assert (call.model, call.signature, call.has_model_spec) == (ref, "classify", True)
    assert call.output_filter == ("scores", "classes")
    assert call.inputs.keys() == {"x"}
    np.testing.assert_array_equal(call.inputs["x"], X, strict=True)


def test_a_request_of_a_bare_client_has_no_model_spec():
    call = decode_predict(encode_predict_request(ModelRef(), "", {"Placeholder:0": X}))

    assert (call.model, call.signature, call.has_model_spec) == (ModelRef(), "", False)
    assert list(call.inputs) == ["Placeholder:0"]


def test_an_empty_model_spec_is_not_an_absent_one():
    assert decode_predict(PredictRequest(model_spec=ModelSpec()).SerializeToString()).has_model_spec


def test_the_signature_is_passed_on_as_sent():
    data = PredictRequest(model_spec=ModelSpec(name="m")).SerializeToString()

    assert decode_predict(data).signature == ""


def test_empty_bytes_are_a_request_without_inputs():
    call = decode_predict(b"")

    assert (call.inputs, call.output_filter, call.has_model_spec) == ({}, (), False)


@pytest.mark.parametrize("data", [b"\x0a\xff", b"not protobuf", b"\x0a\x04\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_the_clients_mistake(data):
    assert refusal(decode_predict, data).startswith("not a PredictRequest: ")
    assert refusal(decode_metadata_call, data).startswith("not a GetModelMetadataRequest: ")
    assert refusal(decode_status_call, data).startswith("not a GetModelStatusRequest: ")
    assert refusal(decode_predict_response, data).startswith("not a PredictResponse: ")


def test_an_undecodable_tensor_is_named():
    broken = TensorProto(dtype=1, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=-2)]))
    data = PredictRequest(inputs={"images": broken}).SerializeToString()

    assert refusal(decode_predict, data) == "tensor parsing error: images: a size is negative in float32[-2]"


def test_more_values_than_elements_are_refused():
    data = PredictRequest(inputs={"x": TensorProto(dtype=1, float_val=[1, 2])}).SerializeToString()

    assert refusal(decode_predict, data).startswith("tensor parsing error: x: ")


def test_many_inputs_cannot_claim_what_one_may_not():
    dims = [TensorShapeProto.Dim(size=9 * 2**20)]
    claim = TensorProto(dtype=1, tensor_shape=TensorShapeProto(dim=dims), float_val=[1])
    data = PredictRequest(inputs={"a": claim, "b": claim}).SerializeToString()

    assert re.fullmatch(
        r"tensor parsing error: [ab]: float32\[9437184\] with 1 values is too large to fill up",
        refusal(decode_predict, data),
    )


def test_an_output_asked_for_twice_is_refused():
    data = PredictRequest(output_filter=["y", "z", "y"]).SerializeToString()

    assert refusal(decode_predict, data) == "duplicate output tensor alias: y"


def test_fields_that_we_do_not_know_are_skipped():
    client_id, streamed_options = b"\x32\x02ab", b"\x2a\x02\x08\x01"

    assert decode_predict(client_id + streamed_options + b"\x1a\x01y").output_filter == ("y",)


def test_a_predict_response_is_what_protobuf_would_write():
    scores = np.array([[0.25, 0.75]], np.float32)
    message = PredictResponse.FromString(encode_predict(response({"scores": scores})))

    spec = message.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("resnet50", 3, "serving_default")
    assert spec.WhichOneof("version_choice") == "version"
    assert list(message.outputs["scores"].float_val) == [0.25, 0.75]
    assert [dim.size for dim in message.outputs["scores"].tensor_shape.dim] == [1, 2]
    assert message.outputs["scores"].tensor_content == b""
    assert message.SerializeToString() == encode_predict(response({"scores": scores}))


def test_a_predict_response_as_content_is_for_those_who_ask():
    message = PredictResponse.FromString(encode_predict(response({"y": X}), as_content=True))

    assert message.outputs["y"].tensor_content == X.tobytes()
    assert not message.outputs["y"].float_val


def test_a_client_reads_back_all_outputs():
    outputs = {
        "scores": np.linspace(0, 1, 1000, dtype=np.float32).reshape(1, 1000),
        "classes": np.array([[b"cat", b""]], object),
        "ids": np.array([[-1, 2**40]], np.int64),
        "none": np.zeros((0, 4), np.float64),
        "größe": np.array(7, np.uint8),
    }
    answer = decode_predict_response(encode_predict(response(outputs)))

    assert (answer.model, answer.version, answer.signature) == ("resnet50", 3, "serving_default")
    assert answer.outputs.keys() == outputs.keys()
    for name, want in outputs.items():
        np.testing.assert_array_equal(answer.outputs[name], want, strict=True)


def test_a_response_of_no_version_reads_as_none():
    assert decode_predict_response(b"").version is None


def test_a_metadata_call_wants_signature_def():
    data = GetModelMetadataRequest(model_spec=ModelSpec(name="m"), metadata_field=["signature_def"]).SerializeToString()

    call = decode_metadata_call(data)

    assert (call.model, call.fields) == (ModelRef("m"), ("signature_def",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["foo"], "Metadata field foo is not supported"),
        (["signature_def", "foo"], "Metadata field foo is not supported"),
    ],
)
def test_any_other_metadata_call_is_refused(fields, message):
    assert refusal(decode_metadata_call, GetModelMetadataRequest(metadata_field=fields).SerializeToString()) == message


def test_metadata_holds_the_signatures_by_tensor_name():
    x = TensorSpec("x", BY_NAME["float32"], (-1, 3), "Placeholder:0")
    y = TensorSpec("y", BY_NAME["string"], None, "scores:0")
    signature = Signature("serving_default", {"x": x}, {"y": y}, defaults={"x": X})

    message = GetModelMetadataResponse.FromString(encode_metadata("resnet50", 3, {"serving_default": signature}))

    assert (message.model_spec.name, message.model_spec.version.value) == ("resnet50", 3)
    assert message.model_spec.signature_name == ""
    assert list(message.metadata) == ["signature_def"]
    assert message.metadata["signature_def"].type_url == SIGNATURE_DEF_TYPE_URL
    found = SignatureDefMap.FromString(message.metadata["signature_def"].value).signature_def["serving_default"]
    assert found.method_name == "tensorflow/serving/predict"
    assert (found.inputs["x"].name, found.inputs["x"].dtype) == ("Placeholder:0", 1)
    assert [dim.size for dim in found.inputs["x"].tensor_shape.dim] == [-1, 3]
    assert (found.outputs["y"].name, found.outputs["y"].dtype) == ("scores:0", 7)
    assert found.outputs["y"].tensor_shape.unknown_rank
    assert not found.defaults


def test_every_dtype_of_the_table_has_a_name_in_the_metadata():
    specs = {name: TensorSpec(name, dtype, (), name) for name, dtype in BY_NAME.items()}

    message = GetModelMetadataResponse.FromString(encode_metadata("m", 1, {"s": Signature("s", specs, {})}))

    inputs = SignatureDefMap.FromString(message.metadata["signature_def"].value).signature_def["s"].inputs
    assert {name: info.dtype for name, info in inputs.items()} == {name: dtype.tf for name, dtype in BY_NAME.items()}


def test_a_status_call_names_a_model():
    data = GetModelStatusRequest(model_spec=ModelSpec(name="m", version_label="stable")).SerializeToString()

    assert decode_status_call(data) == ModelRef("m", None, "stable")


def test_the_status_lists_the_newest_version_first():
    data = encode_status([VersionStatus(1, "END", 13, "does not load"), VersionStatus(3, "AVAILABLE")])

    found = [
        (v.version, v.state, v.status.error_code, v.status.error_message, v.HasField("status"))
        for v in GetModelStatusResponse.FromString(data).model_version_status
    ]
    assert found == [(3, 30, 0, "", True), (1, 50, 13, "does not load", True)]


@pytest.mark.parametrize(
    ("state", "number"), [("START", 10), ("LOADING", 20), ("AVAILABLE", 30), ("UNLOADING", 40), ("END", 50)]
)
def test_every_state_has_its_number(state, number):
    data = encode_status([VersionStatus(1, state)])

    assert GetModelStatusResponse.FromString(data).model_version_status[0].state == number
