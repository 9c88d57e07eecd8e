"""GetModelMetadata, GetModelStatus, health and reflection of a running server, by the clients that people use."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_stub import MODEL, PREDICTION, Stub, floats, refusal_of, request, spec, values_of
from server_process import READY, Server, end, line_of, serving, start, wait_until
from small_networks import half_plus_two, sum_and_difference

from accelserve.wire.tensorflow_pb2 import DataType, TensorInfo
from accelserve.wire.tfserving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    ModelSpec,
    ModelVersionStatus,
    SignatureDefMap,
)
from model_builders import saved_model_half_plus_two, saved_model_half_plus_two_tf2, synthetic_model

SLOW_TO_LOAD = 'load_delay_ms = {ms}\n[inputs.x]\ndtype = "float32"\nshape = [-1]\noutput = "y"\n'
SERVICES = {
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
State = ModelVersionStatus.State
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """Two good models, one of them with an older version beside it, and one that does not load."""
    folder = tmp_path_factory.mktemp("services")
    half_plus_two(folder / "default" / "9" / "model.onnx", "batch")
    default = half_plus_two(folder / "default" / "123" / "model.onnx", "batch").parents[1]
    pair = sum_and_difference(folder / "pair.onnx")
    bad = folder / "bad" / "7"
    bad.mkdir(parents=True)
    (bad / "model.onnx").write_bytes(b"not a model")
    models = (f"--model=default={default}", f"--model=pair={pair}", f"--model=bad={bad.parent}")
    with serving(*models, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def stub(server) -> Iterator[Stub]:
    with Stub(server.grpc) as stub:
        yield stub


@contextmanager
def loading(folder: Path, ms: int) -> Iterator[tuple[Stub, threading.Event]]:
    """A server that listens while its model "slow" still loads; the event is set when it says that it is ready."""
    slow = synthetic_model(folder / "slow.synthetic.toml", SLOW_TO_LOAD.format(ms=ms))
    quick = half_plus_two(folder / "quick.onnx", "batch")
    port = free_port()
    process = start([f"--model=slow={slow}", f"--model=quick={quick}", f"--grpc-port={port}"], folder / "log")
    ready = threading.Event()

    def watch_for_the_ready_line() -> None:
        if READY.search(line_of(process)):
            ready.set()

    watcher = threading.Thread(target=watch_for_the_ready_line, daemon=True)
    watcher.start()
    try:
        wait_until(lambda: listens(port))
        with Stub(f"127.0.0.1:{port}") as stub:
            yield stub, ready
    finally:
        watcher.join(30)
        end(process)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    """Asked before there is a channel, which would wait a second after a refused connection."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


# --- GetModelMetadata: G22


def metadata(stub: Stub, model: ModelSpec | None, *fields: str) -> GetModelMetadataResponse:
    asked = GetModelMetadataRequest(model_spec=model, metadata_field=fields or ["signature_def"])
    return stub.metadata(asked, timeout=30)


def signatures(answer: GetModelMetadataResponse) -> SignatureDefMap:
    assert set(answer.metadata) == {"signature_def"}
    packed = answer.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    return SignatureDefMap.FromString(packed.value)


def told(info: TensorInfo) -> tuple[str, str, list[int]]:
    return info.name, DataType.Name(info.dtype), [dim.size for dim in info.tensor_shape.dim]


def test_metadata_tells_the_signature_of_an_onnx_model(stub):
    answer = metadata(stub, spec("pair"))
    assert answer.model_spec == spec("pair", 1), "the signature is left empty"
    (definition,) = signatures(answer).signature_def.values()
    assert definition.method_name == "tensorflow/serving/predict"
    assert {name: told(info) for name, info in definition.inputs.items()} == {
        "a": ("a", "DT_FLOAT", [-1, 2]),
        "b": ("b", "DT_FLOAT", [-1, 2]),
    }
    assert set(definition.outputs) == {"sum", "difference"}


@pytest.mark.tensorflow
def test_metadata_tells_all_signatures_of_a_saved_model_and_no_defaults(tmp_path):
    pytest.importorskip("tensorflow")
    first = saved_model_half_plus_two(tmp_path / "first" / "123").parent
    second = saved_model_half_plus_two_tf2(tmp_path / "second" / "5").parent
    models = (f"--model=first={first}", f"--model=second={second}")
    with serving(*models, log=tmp_path / "log") as server, Stub(server.grpc) as stub:
        answer = metadata(stub, spec("first", 123))
        known = signatures(answer).signature_def
        assert answer.model_spec == spec("first", 123)
        assert {name: definition.method_name for name, definition in known.items()} == {
            "serving_default": "tensorflow/serving/predict",
            "classify_x_to_y": "tensorflow/serving/classify",
            "regress_x_to_y": "tensorflow/serving/regress",
            "regress_x_to_y2": "tensorflow/serving/regress",
            "regress_x2_to_y3": "tensorflow/serving/regress",
        }
        name, dtype, sizes = told(known["serving_default"].inputs["x"])
        assert (name.endswith(":0"), dtype, sizes) == (True, "DT_FLOAT", [-1, 1])
        assert told(known["classify_x_to_y"].inputs["inputs"]) == ("tf_example:0", "DT_STRING", [-1])
        by_tf2 = signatures(metadata(stub, spec("second"))).signature_def
        assert len(by_tf2) == 6, "TF2's initialisation is no signature"
        assert by_tf2["serving_default"].defaults == {}


@pytest.mark.parametrize(
    ("model", "fields", "code", "text"),
    [
        (spec("default"), [], INVALID, "GetModelMetadataRequest must specify at least one metadata_field"),
        (spec("default"), ["foo"], INVALID, "Metadata field foo is not supported"),
        (spec("default"), ["signature_def", "foo"], INVALID, "Metadata field foo is not supported"),
        (spec("nobody"), ["signature_def"], NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        (spec("default", 9), ["signature_def"], NOT_FOUND, "Servable not found for request: Specific(default, 9)"),
        (spec("default", label="l"), ["signature_def"], INVALID, "Unrecognized servable version label: l"),
        (spec("bad"), ["signature_def"], NOT_FOUND, "Servable not found for request: Latest(bad)"),
        (None, ["signature_def"], INVALID, "say one of: default, pair"),
    ],
)
def test_metadata_that_is_not_there_is_refused_in_tf_servings_words(stub, model, fields, code, text):
    asked = GetModelMetadataRequest(model_spec=model, metadata_field=fields)
    refusal = refusal_of(stub.metadata, asked, timeout=30)
    assert refusal.code is code
    assert text in refusal.text


# --- GetModelStatus: G23, G24


def statuses(stub: Stub, model: ModelSpec | None) -> list[tuple[int, int, int, str]]:
    answer = stub.status(GetModelStatusRequest(model_spec=model), timeout=30)
    return [(s.version, s.state, s.status.error_code, s.status.error_message) for s in answer.model_version_status]


@pytest.mark.parametrize("model", [spec("default"), spec("default", 123), spec("default", label="ignored")])
def test_the_status_of_a_model_is_its_newest_versions(stub, model):
    assert statuses(stub, model) == [(123, State.AVAILABLE, 0, "")]


def test_the_status_of_a_model_that_did_not_load_is_end_with_the_reason(stub):
    ((version, state, code, message),) = statuses(stub, spec("bad"))
    assert (version, state) == (7, State.END)
    assert code != 0
    assert "does not load" in message


@pytest.mark.parametrize(
    ("model", "code", "text"),
    [
        (spec("nobody"), NOT_FOUND, "Could not find any versions of model nobody"),
        (spec("default", 9), NOT_FOUND, "Could not find version 9 of model default"),
        (None, INVALID, "say one of: default, pair"),
    ],
)
def test_a_status_that_is_not_there_is_refused_in_tf_servings_words(stub, model, code, text):
    refusal = refusal_of(stub.status, GetModelStatusRequest(model_spec=model), timeout=30)
    assert refusal.code is code
    assert text in refusal.text


def test_a_model_that_did_not_load_says_why_and_the_others_answer(stub):
    refusal = refusal_of(stub.ask, request("bad", x=floats(2.0)))
    assert refusal.code is NOT_FOUND
    assert refusal.text.startswith("Servable not found for request: Latest(bad); it failed to load: ")
    assert refusal.metadata["x-accelserve-reason"] == "load_failed"
    assert values_of(stub.ask(request("default", x=floats(2.0)))) == [3.0]


@pytest.mark.parametrize("method", [f"{PREDICTION}/GetModelMetadata", f"{MODEL}/GetModelStatus"])
def test_bytes_that_are_no_question_are_refused_as_invalid(stub, method):
    refusal = refusal_of(stub.ask_bytes, method, b"\xff" * 20)
    assert refusal.code is INVALID
    assert "Request: " in refusal.text
    assert refusal.metadata["x-request-id"]


# --- health


@pytest.mark.parametrize(
    "service", ["", "default", "pair", "PredictionService", "tensorflow.serving.PredictionService", "ModelService"]
)
def test_what_serves_is_serving(stub, service):
    assert stub.health(service) == SERVING


def test_a_model_that_did_not_load_is_not_serving(stub):
    assert stub.health("bad") == NOT_SERVING


def test_the_health_of_an_unknown_service_is_not_found_and_can_be_watched(stub):
    refusal = refusal_of(stub.health, "nobody")
    assert refusal.code is NOT_FOUND
    assert "nobody" in refusal.text
    call = stub.watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
    assert next(call).status == SERVICE_UNKNOWN
    call.cancel()


def test_while_a_model_loads_all_say_so_and_a_watcher_sees_it_become_ready(tmp_path):
    with loading(tmp_path, ms=2000) as (stub, ready):
        watched = {
            service: stub.watch(health_pb2.HealthCheckRequest(service=service), timeout=30) for service in ("", "slow")
        }
        assert [next(call).status for call in watched.values()] == [NOT_SERVING, NOT_SERVING]
        assert [stub.health(""), stub.health("slow")] == [NOT_SERVING, NOT_SERVING]
        wait_until(lambda: stub.health("quick") == SERVING)
        assert values_of(stub.ask(request("quick", x=floats(2.0)))) == [3.0]
        assert statuses(stub, spec("slow")) == [(1, State.LOADING, 0, "")]
        refusal = refusal_of(stub.ask, request("slow", x=floats(2.0)))
        assert not ready.is_set(), "the model was there before it was asked for"
        assert (refusal.code, refusal.metadata["x-accelserve-reason"]) == (UNAVAILABLE, "loading")
        assert "LOADING" in refusal.text
        assert int(refusal.metadata["retry-after"]) >= 1
        assert [next(call).status for call in watched.values()] == [SERVING, SERVING]
        assert statuses(stub, spec("slow")) == [(1, State.AVAILABLE, 0, "")]
        assert values_of(stub.ask(request("slow", x=floats(2.0)))) == [2.0]
        assert ready.wait(10)
        for call in watched.values():
            call.cancel()


def test_after_sigterm_a_watcher_sees_it_while_requests_are_answered_for_the_grace_period(tmp_path):
    path = half_plus_two(tmp_path / "m.onnx", "batch")
    with (
        serving(f"--model=m={path}", "--grace-period=2", log=tmp_path / "log") as server,
        Stub(server.grpc) as stub,
    ):
        watched = [stub.watch(health_pb2.HealthCheckRequest(service=service), timeout=30) for service in ("", "m")]
        assert [next(call).status for call in watched] == [SERVING, SERVING]
        server.process.terminate()
        assert [next(call).status for call in watched] == [NOT_SERVING, NOT_SERVING]
        assert [stub.health(""), stub.health("m")] == [NOT_SERVING, NOT_SERVING]
        assert values_of(stub.ask(request("m", x=floats(2.0)))) == [3.0]
        assert server.process.wait(20) == 0


def test_many_watchers_that_hang_up_leave_the_server_well(stub):
    for _ in range(50):
        call = stub.watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(call).status == SERVING
        call.cancel()
    assert stub.health() == SERVING


# --- reflection


@pytest.fixture(scope="module")
def reflected(stub) -> ProtoReflectionDescriptorDatabase:
    return ProtoReflectionDescriptorDatabase(stub.channel)


def test_reflection_lists_the_services_under_upstreams_names(reflected):
    assert set(reflected.get_services()) == SERVICES


def test_reflection_finds_the_file_of_a_service(reflected):
    file = reflected.FindFileContainingSymbol("tensorflow.serving.PredictionService")
    assert file.package == "tensorflow.serving"
    services = {service.name: {method.name for method in service.method} for service in file.service}
    assert "Predict" in services["PredictionService"]
    assert "GetModelStatus" in services["ModelService"]


def test_a_request_built_from_reflected_descriptors_is_answered(reflected, stub):
    pool = descriptor_pool.DescriptorPool(reflected)
    method = pool.FindServiceByName("tensorflow.serving.PredictionService").methods_by_name["Predict"]
    request_type = message_factory.GetMessageClass(method.input_type)
    answer_type = message_factory.GetMessageClass(method.output_type)
    asked = request_type()
    asked.model_spec.name = "default"
    asked.inputs["x"].dtype = 1
    asked.inputs["x"].tensor_shape.dim.add(size=2)
    asked.inputs["x"].float_val.extend([2.0, 4.0])
    answer = answer_type.FromString(
        stub.ask_bytes(f"/{method.containing_service.full_name}/{method.name}", asked.SerializeToString())
    )
    assert list(answer.outputs["y"].float_val) == [3.0, 4.0]
    assert answer.model_spec.version.value == 123


def test_reflected_metadata_unpacks_its_any(reflected, stub):
    pool = descriptor_pool.DescriptorPool(reflected)
    packed = metadata(stub, spec("default")).metadata["signature_def"]
    described = pool.FindMessageTypeByName(packed.type_url.rpartition("/")[2])
    found = message_factory.GetMessageClass(described).FromString(packed.value)
    assert list(found.signature_def) == ["serving_default"]


def test_a_symbol_that_is_not_there_is_not_found(reflected):
    with pytest.raises(KeyError):
        reflected.FindFileContainingSymbol("tensorflow.serving.Nope")
