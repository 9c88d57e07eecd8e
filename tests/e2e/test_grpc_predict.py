"""Predict over gRPC against a running server: the cases of specs/tfserving.md 7.3, on ONNX models and SavedModels."""

import random
import re
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from grpc_stub import (
    PREDICTION,
    Stub,
    content,
    floats,
    refusal_of,
    request,
    shape,
    sizes_of,
    spec,
    strings,
    tensor,
    values_of,
)
from onnx import TensorProto as Onnx
from server_process import Server, serving, wait_until
from small_networks import half_plus_two, identity, sum_and_difference, twice
from talk import Scrape

from accelserve.wire.tensorflow_pb2 import DataType, TensorProto
from accelserve.wire.tfserving_pb2 import GetModelMetadataRequest, PredictRequest, SignatureDefMap
from model_builders import (
    jpeg,
    onnx_image,
    saved_model_counter,
    saved_model_half_plus_three,
    saved_model_half_plus_two,
    saved_model_half_plus_two_tf2,
    saved_model_jpeg,
    saved_model_matrix_half_plus_two,
    synthetic_model,
)

ECHO = 'behaviour = "echo"\ndelay_ms = {delay_ms}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 1]\noutput = "y"\n'
ONE_BY_ONE = "[batching]\nmax_batch_size = 1\n"
FLOATS_OF_20_MB = 5_000_000
BROKEN_JPEG = jpeg()[:40] + bytes(400)
CAP_BYTES = 2**20

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED
CLIENTS_FAULT = {INVALID, NOT_FOUND, PRECONDITION}


@pytest.fixture(scope="module")
def onnx_server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("onnx")
    splits = half_plus_two(folder / "splits" / "1" / "model.onnx", "batch").parents[1]
    (splits / "accelserve.toml").write_text("[batching]\nmax_batch_size = 4\nallowed_batch_sizes = [1, 4]\n")
    half_plus_two(folder / "versions" / "123" / "model.onnx", "batch")
    for model, delay_ms in (("slow", 1000.0), ("quick", 2.0)):
        synthetic_model(folder / f"{model}.synthetic.toml", ECHO.format(delay_ms=delay_ms))
    (folder / "slow.accelserve.toml").write_text(ONE_BY_ONE)
    models = {
        "default": half_plus_two(folder / "default" / "123" / "model.onnx", "batch").parents[1],
        "versions": half_plus_two(folder / "versions" / "124" / "model.onnx", "batch").parents[1],
        "splits": splits,
        "pair": sum_and_difference(folder / "pair.onnx"),
        "wide": identity(folder / "wide.onnx", Onnx.FLOAT, "batch", "columns"),
        "scalar": half_plus_two(folder / "scalar.onnx"),
        "names": identity(folder / "names.onnx", Onnx.STRING, "batch"),
        "bytes": twice(folder / "bytes.onnx", Onnx.INT64, "batch"),
        "image": onnx_image(folder / "image.onnx"),
        "slow": folder / "slow.synthetic.toml",
        "quick": folder / "quick.synthetic.toml",
    }
    with serving(*(f"--model={name}={path}" for name, path in models.items()), log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def onnx(onnx_server) -> Iterator[Stub]:
    with Stub(onnx_server.grpc) as stub:
        yield stub


@pytest.fixture(scope="module")
def lone_server(tmp_path_factory) -> Iterator[Server]:
    """One model, and a cap on messages."""
    folder = tmp_path_factory.mktemp("lone")
    path = identity(folder / "lone.onnx", Onnx.FLOAT, "batch", "columns")
    with serving(f"--model=lone={path}", f"--grpc-max-message-bytes={CAP_BYTES}", log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def lone(lone_server) -> Iterator[Stub]:
    with Stub(lone_server.grpc) as stub:
        yield stub


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory) -> Iterator[Stub]:
    """TF Serving's own test models as SavedModels, and one that decodes JPEGs in its graph."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("saved_models")
    builders = {
        "default": saved_model_half_plus_two,
        "tf2": saved_model_half_plus_two_tf2,
        "half_plus_three": saved_model_half_plus_three,
        "counter": saved_model_counter,
        "matrix": saved_model_matrix_half_plus_two,
        "jpeg": saved_model_jpeg,
    }
    models = [f"--model={name}={build(folder / name / '123').parent}" for name, build in builders.items()]
    with serving(*models, log=folder / "log") as server, Stub(server.grpc) as stub:
        yield stub


@pytest.fixture
def stub(request) -> Stub:
    """The server that a test is parametrized with, by the name of its fixture."""
    return request.getfixturevalue(request.param)


SAVED_MODELS = pytest.param("saved_models", id="saved_model", marks=pytest.mark.tensorflow)
BOTH = pytest.mark.parametrize("stub", [pytest.param("onnx", id="onnx"), SAVED_MODELS], indirect=True)


# --- half_plus_two: G1 to G4


@BOTH
def test_half_plus_two_answers_in_float_val_and_says_who_answered(stub):
    answer = stub.ask(request(spec("default", signature="serving_default"), ["y"], x=floats(2.0)))
    assert values_of(answer) == [3.0]
    assert sizes_of(answer.outputs["y"]) == (1,)
    assert answer.model_spec == spec("default", 123, signature="serving_default")


@BOTH
def test_without_signature_and_filter_the_default_signature_answers_and_is_named(stub):
    answer = stub.ask(request("default", x=floats(2.0)))
    assert values_of(answer) == [3.0]
    assert answer.model_spec.signature_name == "serving_default"


@BOTH
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (content(np.float32([2, 4])), [3.0, 4.0]),
        (floats(2.0, sizes=[3]), [3.0, 3.0, 3.0]),
        (floats(2.0, 4.0, sizes=[4]), [3.0, 4.0, 4.0, 4.0]),
        (tensor("FLOAT", 2), [2.0, 2.0]),
        (tensor("FLOAT", 2, int_val=[8, 8]), [2.0, 2.0]),
        (tensor("FLOAT", 1, float_val=[9.0], tensor_content=np.float32([2]).tobytes()), [3.0]),
        (floats(np.nan, np.inf, -np.inf), [np.nan, np.inf, -np.inf]),
    ],
    ids=["content", "one for all", "last repeats", "none are zeros", "wrong field", "content wins", "not finite"],
)
def test_values_come_in_every_form_that_tensorflow_reads(stub, x, y):
    answer = stub.ask(request("default", x=x))
    np.testing.assert_array_equal(values_of(answer), y)
    assert sizes_of(answer.outputs["y"]) == (len(y),)


@BOTH
def test_no_rows_give_no_rows(stub):
    answer = stub.ask(request("default", x=floats(sizes=[0])))
    assert values_of(answer) == []
    assert sizes_of(answer.outputs["y"]) == (0,)


@BOTH
def test_a_version_may_be_named(stub):
    answer = stub.ask(request(spec("default", 123), x=floats(2.0)))
    assert answer.model_spec.version.value == 123


# --- who is not there, and what is wrong: G5 to G13, with the texts of 1.5


@BOTH
@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (
            request("intentionally_missing_model"),
            NOT_FOUND,
            "Servable not found for request: Latest(intentionally_missing_model)",
        ),
        (request(spec("default", 99)), NOT_FOUND, "Servable not found for request: Specific(default, 99)"),
        (request(spec("nobody", 7)), NOT_FOUND, "Servable not found for request: Specific(nobody, 7)"),
        (request(spec("default", label="nope")), INVALID, "Unrecognized servable version label: nope"),
        (request(spec("default", signature="nope")), PRECONDITION, 'Serving signature key "nope" not found.'),
        (
            request("default"),
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            request("default", x=floats(1), z=floats(1)),
            INVALID,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
        ),
        (
            request("default", x=floats(1), outputs=["nope"]),
            INVALID,
            "output tensor alias not found in signature: nope",
        ),
        (request("default", x=floats(1), outputs=["y", "nope"]), INVALID, "expected to be in the set {y}."),
        (request("default", x=floats(1), outputs=["y", "y"]), INVALID, "duplicate output tensor alias: y"),
        (request("default", x=floats(1), outputs=["y", "y:0"]), INVALID, "duplicate output tensor alias: y:0"),
        (request("default", x=tensor("FLOAT", 1, tensor_content=b"abc")), INVALID, "tensor parsing error: x"),
        (request("default", x=TensorProto(tensor_shape=shape(1))), INVALID, "tensor parsing error: x"),
        (request("default", x=TensorProto(dtype=77)), INVALID, "tensor parsing error: x"),
        (request("default", x=tensor("RESOURCE", 1)), INVALID, "tensor parsing error: x"),
        (request("default", x=tensor("QINT8", 1)), INVALID, "tensor parsing error: x"),
        (request("default", x=floats(1, sizes=[-1])), INVALID, "tensor parsing error: x"),
        (request("default", x=floats(1, 2, 3, sizes=[2])), INVALID, "tensor parsing error: x"),
        (request("default", x=floats(1, sizes=[2**40])), INVALID, "tensor parsing error: x"),
        (request("default", x=floats(1, sizes=[2**40, 2**40])), INVALID, "tensor parsing error: x"),
        (request("default", x=floats(1, sizes=[1] * 65)), INVALID, "tensor parsing error: x"),
        (request("default", x=tensor("DOUBLE", 1, double_val=[2.0])), INVALID, 'default:123 "x": want float32'),
        (request("default", x=tensor("INT32", 1, int_val=[2])), INVALID, "got int32[1]"),
        (request("default", x=strings(b"two")), INVALID, "got string[1]"),
    ],
    ids=[
        "model",
        "version",
        "version of no model",
        "label",
        "signature",
        "no inputs",
        "one too many",
        "output",
        "one output of two",
        "output twice",
        "output twice by two names",
        "content length",
        "no dtype",
        "unknown dtype",
        "resource",
        "quantized",
        "negative size",
        "too many values",
        "too large",
        "overflows",
        "65 dimensions",
        "double",
        "int",
        "string",
    ],
)
def test_what_is_wrong_is_said_in_tf_servings_code_and_words(stub, asked, code, text):
    refusal = refusal_of(stub.ask, asked)
    assert refusal.code is code
    assert text in refusal.text


@pytest.mark.parametrize(
    ("stub", "model", "feed"),
    [
        pytest.param("onnx", "default", "x", id="onnx"),
        pytest.param("saved_models", "default", "[^)]*:0", id="saved_model", marks=pytest.mark.tensorflow),
    ],
    indirect=["stub"],
)
def test_one_wrong_name_in_the_place_of_a_right_one_is_said_with_the_feed_that_is_missing(stub, model, feed):
    refusal = refusal_of(stub.ask, request(model, z=floats(1)))
    assert refusal.code is INVALID
    assert re.fullmatch(
        rf"Signature input alias: x\(feed name: {feed}\) not found in request and no default value provided. "
        r"Inputs expected to be in the request {z}, or default input alias set: {}",
        refusal.text,
    )


@BOTH
def test_the_same_input_under_both_of_its_names_is_refused(stub):
    refusal = refusal_of(stub.ask, request("default", **{"x": floats(1), "x:0": floats(2)}))
    assert refusal.code is INVALID
    assert "2!=1" in refusal.text


@BOTH
def test_bytes_that_are_no_message_are_refused_as_invalid(stub):
    refusal = refusal_of(stub.ask_bytes, f"{PREDICTION}/Predict", b"\xff" * 100)
    assert refusal.code is INVALID
    assert "not a PredictRequest" in refusal.text


@BOTH
def test_a_broken_request_is_never_an_internal_error(stub):
    """1,000 requests with a few bytes changed: those that still parse are asked, and nothing is the server's fault."""
    rng = random.Random(1)
    whole = request(spec("default", 123, signature="serving_default"), ["y"], x=content(np.ones(3))).SerializeToString()
    calls = []
    predict = stub.channel.unary_unary(f"{PREDICTION}/Predict")
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        calls.append(predict.future(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]), timeout=30))
    codes = {call.code() for call in calls}
    assert codes <= {OK, *CLIENTS_FAULT}, codes
    assert {OK, INVALID} <= codes
    assert values_of(stub.ask(request("default", x=floats(2.0)))) == [3.0]


@BOTH
@pytest.mark.parametrize("name", ["z" * 5000, "日" * 5000, "a\nb\0c\x7f\r\n"], ids=["long", "wide", "control"])
def test_a_clients_own_words_come_back_cut_and_harmless(stub, name):
    for asked in (
        request(name),
        request("default", x=floats(1), outputs=[name]),
        request("default", **{name: floats(1)}),
    ):
        refusal = refusal_of(stub.ask, asked)
        assert refusal.code in CLIENTS_FAULT, refusal.text
        assert name[:100] in refusal.text
        assert len(refusal.text.encode()) <= 1024 + len("...TRUNCATED")  # thrice that on the wire; clients read 8 KiB
        assert refusal.text.endswith("...TRUNCATED") is (len(name) > 1024)


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Nope",
        "/tensorflow.serving.SessionService/SessionRun",
        "/tensorflow.serving.predictionservice/Predict",
        "/Predict",
    ],
)
def test_an_unknown_method_is_unimplemented(onnx, method):
    assert refusal_of(onnx.ask_bytes, method, b"").code is grpc.StatusCode.UNIMPLEMENTED


# --- who is meant when nobody is named: G10


def test_without_a_model_spec_the_only_model_answers(lone):
    for model in (None, spec(), spec(signature="serving_default")):
        answer = lone.ask(request(model, x=floats(2.0, sizes=[1, 1])))
        assert list(answer.outputs["y"].float_val) == [2.0]
        assert answer.model_spec == spec("lone", 1, signature="serving_default")


def test_without_a_model_spec_the_default_model_answers_before_others(tmp_path):
    paths = {name: half_plus_two(tmp_path / f"{name}.onnx", "batch") for name in ("a", "b")}
    models = [f"--model={name}={path}" for name, path in paths.items()]
    with serving(*models, "--default-model=b", log=tmp_path / "log") as server, Stub(server.grpc) as stub:
        assert stub.ask(request(None, x=floats(2.0))).model_spec.name == "b"
        assert stub.ask(request("", x=floats(2.0))).model_spec.name == "b"
        assert stub.ask(request("a", x=floats(2.0))).model_spec.name == "a"


@pytest.mark.parametrize("model", [None, spec(), spec(version=123)], ids=["no spec", "empty spec", "only a version"])
def test_without_a_model_spec_and_several_models_the_refusal_names_them(onnx, model):
    refusal = refusal_of(onnx.ask, request(model, x=floats(2.0)))
    assert refusal.code is INVALID
    assert "bytes, default, image" in refusal.text
    assert refusal.metadata["x-accelserve-reason"] == "model_not_named"


@pytest.mark.parametrize("model", [None, spec()], ids=["no spec", "empty spec"])
def test_the_accel_clients_route_header_names_the_model(onnx, model):
    route = [("x-ms-aml-grpc-service-route", "/api/v1/service/default"), ("authorization", "Bearer ")]
    answer = onnx.ask(request(model, x=floats(2.0)), route)
    assert (values_of(answer), answer.model_spec.name) == ([3.0], "default")


def test_a_model_spec_goes_before_the_route_header(onnx):
    route = [("x-ms-aml-grpc-service-route", "/api/v1/service/pair")]
    assert onnx.ask(request("default", x=floats(2.0)), route).model_spec.name == "default"


def test_a_route_header_to_nobody_is_not_found(onnx):
    route = [("x-ms-aml-grpc-service-route", "/api/v1/service/nobody")]
    refusal = refusal_of(onnx.ask, request(None, x=floats(2.0)), route)
    assert (refusal.code, refusal.text) == (NOT_FOUND, "Servable not found for request: Latest(nobody)")


def test_a_route_header_without_a_name_leaves_the_only_model(lone):
    route = [("x-ms-aml-grpc-service-route", "/api/v1/service/")]
    assert lone.ask(request(None, x=floats(2.0, sizes=[1, 1])), route).model_spec.name == "lone"


# --- names of outputs, and of tensors


def test_only_the_outputs_in_the_filter_come_back(onnx):
    a, b = floats(1, 2, sizes=[1, 2]), floats(10, 20, sizes=[1, 2])
    both = onnx.ask(request("pair", a=a, b=b))
    assert set(both.outputs) == {"sum", "difference"}
    assert values_of(onnx.ask(request("pair", ["difference"], a=a, b=b)), "difference") == [-9.0, -18.0]


@BOTH
def test_a_tensor_name_in_is_a_tensor_name_out(stub):
    assert values_of(stub.ask(request("default", **{"x:0": floats(2.0)})), _tensor_name(stub, "y")) == [3.0]


@BOTH
def test_a_tensor_name_is_also_an_output_name(stub):
    name = _tensor_name(stub, "y")
    assert values_of(stub.ask(request("default", [name], x=floats(2.0))), name) == [3.0]
    assert values_of(stub.ask(request("default", ["y"], **{"x:0": floats(2.0)}))) == [3.0]


def _tensor_name(stub: Stub, output: str) -> str:
    """As the model's metadata gives it: a SavedModel's tensors end in ":0", an ONNX model's have one name only."""
    asked = GetModelMetadataRequest(model_spec=spec("default"), metadata_field=["signature_def"])
    packed = stub.metadata(asked, timeout=30).metadata["signature_def"]
    return SignatureDefMap.FromString(packed.value).signature_def["serving_default"].outputs[output].name


# --- SavedModels: G18, G19, G25, G26


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("x", "sizes"),
    [(floats(2.0, sizes=[]), ()), (floats(2.0, sizes=[1, 1]), (1, 1)), (floats(2.0, sizes=[2, 3]), (2, 3))],
    ids=["scalar", "column", "wrong rank"],
)
def test_a_saved_models_graph_decides_which_shapes_it_takes(saved_models, x, sizes):
    answer = saved_models.ask(request("default", x=x))
    assert sizes_of(answer.outputs["y"]) == sizes
    assert values_of(answer) == [3.0] * int(np.prod(sizes))


@pytest.mark.tensorflow
def test_a_shape_that_the_graph_cannot_compute_with_is_the_clients_fault(saved_models):
    refusal = refusal_of(saved_models.ask, request(spec("jpeg"), images=strings(b"x", sizes=[1, 1])))
    assert refusal.code is INVALID


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "sizes", [(), (0,), (3,), (2, 3), (1, 3, 3, 1), (0, 0), (1,) * 64], ids=lambda sizes: f"rank {len(sizes)}"
)
@pytest.mark.parametrize("model", ["default", "tf2", "half_plus_three", "matrix"])
def test_whatever_shape_is_sent_a_saved_model_is_never_at_fault(saved_models, model, sizes):
    asked = saved_models.start(request(model, x=floats(2.0, sizes=sizes) if np.prod(sizes) else floats(sizes=sizes)))
    assert asked.code() in {OK, INVALID}, asked.details()
    if asked.code() is OK:
        assert sizes_of(asked.result().outputs["y"]) == sizes


@pytest.mark.tensorflow
def test_a_model_made_by_tf2_answers_and_fills_in_its_default(saved_models):
    assert values_of(saved_models.ask(request("tf2", x=floats(2.0)))) == [3.0]
    answer = saved_models.ask(request("tf2"))
    assert values_of(answer) == [2.0]
    assert sizes_of(answer.outputs["y"]) == (1,)


@pytest.mark.tensorflow
def test_a_wrong_name_beside_a_default_is_named(saved_models):
    for inputs in ({"z": floats(1)}, {"z": floats(1), "x": floats(1)}):
        refusal = refusal_of(saved_models.ask, request("tf2", **inputs))
        assert refusal.code is INVALID
        assert "Inputs contains invalid name." in refusal.text
        assert "z" in refusal.text


@pytest.mark.tensorflow
def test_any_signature_can_be_predicted_whatever_its_method(saved_models):
    example = b"\x0a\x0f\x0a\x0d\x0a\x01x\x12\x08\x12\x06\x0a\x04\x00\x00\x00\x40"  # Example {x: [2.0]}
    for signature, output, y in (("regress_x_to_y", "outputs", 3.0), ("classify_x_to_y", "scores", 3.0)):
        for model in ("default", "tf2"):
            answer = saved_models.ask(request(spec(model, signature=signature), inputs=strings(example)))
            assert values_of(answer, output) == [y]
            assert answer.model_spec.signature_name == signature


@pytest.mark.tensorflow
def test_an_example_without_the_feature_is_the_clients_fault(saved_models):
    for broken in (b"", b"\xff\xff"):
        refusal = refusal_of(
            saved_models.ask, request(spec("default", signature="regress_x_to_y"), inputs=strings(broken))
        )
        assert refusal.code is INVALID
        assert "x" in refusal.text


@pytest.mark.tensorflow
@pytest.mark.parametrize("sizes", [[3], [3, 1], [1, 3], [1, 1, 3]])
def test_half_plus_three_takes_any_shape(saved_models, sizes):
    answer = saved_models.ask(request("half_plus_three", x=floats(1, 2, 5, sizes=sizes)))
    assert values_of(answer) == [3.5, 4.0, 5.5]
    assert sizes_of(answer.outputs["y"]) == tuple(sizes)


@pytest.mark.tensorflow
def test_a_model_with_state_and_without_inputs_counts(saved_models):
    def ask(signature: str, **inputs: TensorProto) -> float:
        answer = saved_models.ask(request(spec("counter", signature=signature), **inputs))
        (value,) = values_of(answer, "output")
        return value

    assert ask("reset_counter") == 0.0
    assert [ask("incr_counter"), ask("incr_counter"), ask("get_counter")] == [1.0, 2.0, 2.0]
    assert ask("incr_counter_by", delta=floats(3.0, sizes=[])) == 5.0
    assert ask("get_counter") == 5.0


@pytest.mark.tensorflow
def test_a_model_without_the_default_signature_says_which_it_has(saved_models):
    refusal = refusal_of(saved_models.ask, request("counter"))
    assert refusal.code is PRECONDITION
    assert refusal.text.startswith('Serving signature key "serving_default" not found.')
    assert "incr_counter_by" in refusal.text


@pytest.mark.tensorflow
@pytest.mark.parametrize("sizes", [(1, 3, 3), (2, 3, 3), (1, 2, 3), (0, 3, 3)])
def test_the_matrix_model_takes_what_its_graph_takes(saved_models, sizes):
    x = np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes)
    answer = saved_models.ask(request("matrix", x=content(x)))
    assert sizes_of(answer.outputs["y"]) == sizes
    np.testing.assert_array_equal(np.reshape(values_of(answer), sizes), x / 2 + 2)


# --- ONNX models: shapes are checked


@pytest.mark.parametrize("x", [floats(2.0, sizes=[]), floats(2.0, sizes=[1, 1])], ids=["scalar", "wrong rank"])
def test_an_onnx_model_refuses_a_shape_that_does_not_fit_and_says_what_it_wants(onnx, x):
    refusal = refusal_of(onnx.ask, request("default", x=x))
    assert refusal.code is INVALID
    assert 'default:123 "x": want float32[-1], got float32[' in refusal.text
    assert refusal.metadata["x-accelserve-reason"] == "wrong_shape"


def test_a_scalar_model_takes_a_scalar(onnx):
    answer = onnx.ask(request("scalar", x=floats(2.0, sizes=[])))
    assert values_of(answer) == [3.0]
    assert sizes_of(answer.outputs["y"]) == ()


def test_the_newest_of_two_versions_answers_and_the_older_one_is_not_there(onnx):
    assert onnx.ask(request("versions", x=floats(2.0))).model_spec.version.value == 124
    refusal = refusal_of(onnx.ask, request(spec("versions", 123), x=floats(2.0)))
    assert (refusal.code, refusal.text) == (NOT_FOUND, "Servable not found for request: Specific(versions, 123)")


def test_strings_and_integers_go_through_in_their_own_fields(onnx):
    words = onnx.ask(request("names", x=strings(b"", "日".encode(), b"a b"))).outputs["y"]
    assert (words.dtype, list(words.string_val)) == (DataType.DT_STRING, [b"", "日".encode(), b"a b"])
    numbers = onnx.ask(request("bytes", x=tensor("INT64", 3, int64_val=[1, -2, 2**40]))).outputs["y"]
    assert (numbers.dtype, list(numbers.int64_val)) == (DataType.DT_INT64, [2, -4, 2**41])
    assert numbers.tensor_content == b""


def test_a_request_over_max_batch_size_is_split_and_padded_to_an_allowed_size(onnx, onnx_server):
    before = Scrape(onnx_server).sum("accelserve_padding_rows_total", model="splits")
    assert values_of(onnx.ask(request("splits", x=floats(0, 2, 4)))) == [2.0, 3.0, 4.0]
    assert Scrape(onnx_server).sum("accelserve_padding_rows_total", model="splits") - before == 1
    assert values_of(onnx.ask(request("splits", x=floats(0, 2, 4, 6, 8)))) == [2.0, 3.0, 4.0, 5.0, 6.0]


# --- size, and the wire


def test_20_mb_go_in_and_come_out_as_float_val(onnx):
    x = np.arange(FLOATS_OF_20_MB, dtype=np.float32).reshape(1, -1)
    answer = onnx.ask(request("wide", x=content(x)))
    proto = answer.outputs["y"]
    assert sizes_of(proto) == x.shape
    assert proto.tensor_content == b""
    np.testing.assert_array_equal(np.array(proto.float_val, np.float32), x[0])
    typed = tensor("FLOAT", *x.shape)
    typed.float_val.MergeFrom(proto.float_val)
    again = onnx.ask(request("wide", x=typed))
    np.testing.assert_array_equal(np.array(again.outputs["y"].float_val, np.float32), x[0])


def test_a_message_over_the_cap_is_refused_and_the_connection_lives_on(lone):
    over = content(np.zeros((1, CAP_BYTES // 4), np.float32))
    refusal = refusal_of(lone.ask, request("lone", x=over))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    under = content(np.zeros((1, CAP_BYTES // 4 - 100), np.float32))
    assert sizes_of(lone.ask(request("lone", x=under)).outputs["y"]) == (1, CAP_BYTES // 4 - 100)


def test_compressed_messages_are_read(onnx):
    x = np.zeros((1, 100_000), np.float32)
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        answer = onnx.predict(request("wide", x=content(x)), timeout=30, compression=compression)
        assert sizes_of(answer.outputs["y"]) == x.shape


def test_a_small_message_that_unpacks_to_more_than_the_cap_is_refused(lone):
    bomb = request("lone", x=content(np.zeros((1, CAP_BYTES), np.float32)))
    refusal = refusal_of(lone.predict, bomb, timeout=30, compression=grpc.Compression.Gzip)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- pictures as strings


def colours(*pictures: tuple[int, int, int]) -> np.ndarray:
    return np.float32(pictures) / 255


PICTURES = ((200, 100, 50), (10, 20, 250), (0, 255, 0))
PICTURE_MODELS = pytest.mark.parametrize(
    ("stub", "model", "name"),
    [
        pytest.param("onnx", "image", "image", id="dense"),
        pytest.param("saved_models", "jpeg", "images", id="string", marks=pytest.mark.tensorflow),
    ],
    indirect=["stub"],
)


@PICTURE_MODELS
@pytest.mark.parametrize("count", [1, 3])
def test_jpegs_as_a_string_tensor_are_scored_row_by_row(stub, model, name, count):
    encoded = [jpeg(colour) for colour in PICTURES[:count]]
    answer = stub.ask(request(model, **{name: strings(*encoded)}))
    assert sizes_of(answer.outputs["scores"]) == (count, 3)
    np.testing.assert_allclose(
        np.reshape(values_of(answer, "scores"), (count, 3)), colours(*PICTURES[:count]), atol=0.02
    )


@PICTURE_MODELS
@pytest.mark.parametrize("broken", [BROKEN_JPEG, b"", b"no picture"], ids=["truncated", "empty", "text"])
def test_one_broken_picture_among_three_is_invalid_and_the_next_request_is_not_hurt(stub, model, name, broken):
    refusal = refusal_of(stub.ask, request(model, **{name: strings(jpeg(), broken, jpeg())}))
    assert refusal.code is INVALID
    assert sizes_of(stub.ask(request(model, **{name: strings(jpeg())})).outputs["scores"]) == (1, 3)


def test_pictures_in_another_shape_than_a_vector_are_refused(onnx):
    for broken in (strings(jpeg(), sizes=[1, 1]), strings(sizes=[0])):
        refusal = refusal_of(onnx.ask, request("image", image=broken))
        assert (refusal.code, "string[n]" in refusal.text) == (INVALID, True)


def test_a_dense_picture_is_still_a_tensor(onnx):
    pixels = tensor("UINT8", 1, 8, 8, 3, int_val=[255])
    assert values_of(onnx.ask(request("image", image=pixels)), "scores") == [1.0, 1.0, 1.0]


# --- deadlines and cancellation


def ended(server: Server) -> dict[str, float]:
    """gRPC calls to "slow" so far, by code."""
    page = Scrape(server)
    codes = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED", "OK")
    return {code: page.sum("accelserve_requests_total", code=code, model="slow", protocol="grpc") for code in codes}


def ended_since(server: Server, before: dict[str, float], count: int) -> dict[str, float]:
    """Once `count` more have ended."""
    wait_until(lambda: sum(ended(server).values()) - sum(before.values()) == count)
    return {code: number - before[code] for code, number in ended(server).items()}


def test_a_deadline_shorter_than_the_model_is_exceeded_on_time_and_counted(onnx, onnx_server):
    before = ended(onnx_server)
    head = onnx.start(request("slow", x=floats(1, sizes=[1, 1])))
    wait_until(lambda: Scrape(onnx_server).sum("accelserve_batches_running", model="slow") == 1)
    late = [onnx.start(request("slow", x=floats(2, sizes=[1, 1])), timeout_s=0.08) for _ in range(5)]
    # Who has learned that a run takes longer says so at once.
    assert {refusal_of(call).code for call in late} <= {DEADLINE, grpc.StatusCode.UNAVAILABLE}
    assert not head.done(), "answered only when the model was done"
    assert values_of(head.result()) == [1.0]
    since = ended_since(onnx_server, before, 6)
    assert since.pop("OK") == 1  # of the others the client, who hangs up, may have been first


def test_the_server_itself_ends_a_call_at_its_deadline_in_the_queue_and_in_the_model(onnx, onnx_server):
    before = ended(onnx_server)
    header = [("grpc-timeout", "80m")]  # by hand: the client's library then does not watch the clock
    late = [onnx.start(request("slow", x=floats(2, sizes=[1, 1])), None, header) for _ in range(5)]
    first, *queued = [refusal_of(call).code for call in late]
    assert first == DEADLINE
    assert set(queued) <= {DEADLINE, grpc.StatusCode.UNAVAILABLE}  # refused at once by who knows how long a run takes
    assert Scrape(onnx_server).sum("accelserve_batches_running", model="slow") == 1, "the model was waited for"
    since = ended_since(onnx_server, before, 5)
    assert (since["CANCELLED"], since["OK"]) == (0, 0)
    wait_until(lambda: Scrape(onnx_server).sum("accelserve_batches_running", model="slow") == 0)


def test_a_call_cancelled_while_it_runs_or_waits_leaves_its_neighbours_alone(onnx, onnx_server):
    def scraped(name: str, **labels: str) -> float:
        return Scrape(onnx_server).sum(name, **labels)

    before = scraped("accelserve_requests_total", outcome="cancelled", protocol="grpc")
    running = onnx.start(request("slow", x=floats(1, sizes=[1, 1])))
    wait_until(lambda: scraped("accelserve_batches_running", model="slow") == 1)
    queued = [onnx.start(request("slow", x=floats(i, sizes=[1, 1]))) for i in range(3)]
    wait_until(lambda: scraped("accelserve_queue_rows", model="slow") == 3)
    running.cancel()
    queued[1].cancel()
    wait_until(lambda: scraped("accelserve_requests_total", outcome="cancelled", protocol="grpc") - before == 2)
    assert [values_of(queued[i].result()) for i in (0, 2)] == [[0.0], [2.0]]
    wait_until(lambda: scraped("accelserve_requests_in_flight", protocol="grpc") == 0)


def test_a_priority_that_does_not_exist_is_refused(onnx):
    refusal = refusal_of(onnx.ask, request("default", x=floats(2.0)), [("x-accelserve-priority", "urgent")])
    assert refusal.code is INVALID
    assert "high, normal or low" in refusal.text


# --- what trails an answer


@BOTH
def test_an_answer_says_who_computed_it_and_where_the_time_went(stub):
    asking = [("x-accelserve-timing", "1")]
    _, call = stub.predict.with_call(request("default", x=floats(2, 4)), timeout=30, metadata=asking)
    trailing = dict(call.trailing_metadata())
    assert trailing["x-accelserve-device"] == "cpu:0"
    assert re.fullmatch(
        r"queue=\d+us, decode=\d+us, compute=\d+us, batch=2, position=[01], closed=\w+", trailing["x-accelserve-timing"]
    ), trailing
    _, call = stub.predict.with_call(request("default", x=floats(2, 4)), timeout=30)
    ours = {key: value for key, value in call.trailing_metadata() if key.startswith("x-")}
    assert ours == {"x-accelserve-device": "cpu:0"}  # the rest is for those who ask


def test_a_request_id_of_the_clients_comes_back_with_answers_and_refusals(onnx):
    mine = [("x-request-id", "my-id.42")]
    _, call = onnx.predict.with_call(request("default", x=floats(2.0)), timeout=30, metadata=mine)
    assert dict(call.trailing_metadata())["x-request-id"] == "my-id.42"
    refusal = refusal_of(onnx.ask, request("nobody"), mine)
    assert refusal.metadata["x-request-id"] == "my-id.42"
    assert refusal.metadata["x-accelserve-reason"] == "not_found"


def test_binary_metadata_and_odd_ids_do_no_harm(onnx):
    odd = [("x-blob-bin", b"\x00\xff"), ("x-request-id", "a b;c" * 100), ("x-request-id", "second")]
    _, call = onnx.predict.with_call(request("default", x=floats(2.0)), timeout=30, metadata=odd)
    assert re.fullmatch(r"[\w.-]{1,128}", dict(call.trailing_metadata())["x-request-id"])


# --- everybody gets the own answer: G34


@BOTH
def test_200_concurrent_calls_each_get_their_own_answer(stub):
    calls = [stub.start(request("default", x=floats(i, sizes=[1]))) for i in range(200)]
    assert [values_of(call.result()) for call in calls] == [[i / 2 + 2] for i in range(200)]


def test_rows_of_200_concurrent_calls_ride_together_and_find_their_way_back(onnx, onnx_server):
    before = Scrape(onnx_server).sum("accelserve_batch_rows_count", model="quick")
    calls = [onnx.start(request("quick", x=floats(*range(i, i + 1 + i % 3), sizes=[1 + i % 3, 1]))) for i in range(200)]
    got = [values_of(call.result()) for call in calls]
    assert got == [[float(n) for n in range(i, i + 1 + i % 3)] for i in range(200)]
    assert Scrape(onnx_server).sum("accelserve_batch_rows_count", model="quick") - before < 100


def test_nothing_is_left_in_flight(onnx, onnx_server):
    assert PredictRequest().ByteSize() == 0  # a message without a word is a question too
    assert refusal_of(onnx.ask_bytes, f"{PREDICTION}/Predict", b"").code is INVALID
    wait_until(lambda: Scrape(onnx_server).sum("accelserve_requests_in_flight", protocol="grpc") == 0)
    page = Scrape(onnx_server)
    received = page.sum("accelserve_requests_received_total", protocol="grpc")
    assert page.sum("accelserve_requests_total", protocol="grpc") == received
