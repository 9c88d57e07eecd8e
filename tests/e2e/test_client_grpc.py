"""The gRPC client against grpcio's own server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest

from accelserve.client import GrpcClient, ServerError
from accelserve.codecs.tfserving_proto import (
    PredictCall,
    decode_metadata_call,
    decode_predict,
    encode_metadata,
    encode_predict,
)
from accelserve.messages import ModelRef, ScoreResponse
from accelserve.tensors import BY_NAME, Signature, TensorSpec


@dataclass
class FakeServer:
    address: str = ""
    seen: list[tuple[PredictCall, float | None, dict[str, str]]] = field(default_factory=list)
    reply: Callable[[grpc.ServicerContext], ScoreResponse] | None = None
    raw: bytes | None = None  # the answer to everything

    def predict(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        if self.raw is not None:
            return self.raw
        self.seen.append((decode_predict(data), context.time_remaining(), dict(context.invocation_metadata())))
        assert self.reply is not None
        return encode_predict(self.reply(context))

    def get_metadata(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        if self.raw is not None:
            return self.raw
        asked = decode_metadata_call(data)
        if asked.model.name not in SIGNATURES:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {asked.model.name}")
        return encode_metadata(asked.model.name, 1, SIGNATURES[asked.model.name])


def signature(name: str, *inputs: str) -> Signature:
    return Signature(name, {i: TensorSpec(i, BY_NAME["float32"], (-1, 2), i) for i in inputs}, {})


SIGNATURES = {
    "digits": {"serving_default": signature("serving_default", "b", "a"), "other": signature("other", "c")},
    "lone": {"classify": signature("classify", "image")},
    "two": {"one": signature("one", "x"), "two": signature("two", "x")},
}


def response(**outputs: np.ndarray) -> ScoreResponse:
    return ScoreResponse(outputs, "digits", 1, "serving_default", "cpu:0", False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer(reply=lambda context: response(scores=np.float32([[0.25, 0.75]])))
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        handler = grpc.unary_unary_rpc_method_handler
        methods = {"Predict": handler(fake.predict), "GetModelMetadata": handler(fake.get_metadata)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods),)
        )
        fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield fake
        server.stop(None).wait()


@pytest.fixture
def client(server: FakeServer) -> Iterator[GrpcClient]:
    with GrpcClient(server.address, metadata=[("x-accelserve-priority", "high")]) as found:
        yield found


def test_a_jpeg_goes_as_a_string_tensor_and_the_scores_come_back_as_arrays(server, client):
    answer = client.predict({"images": [b"\xff\xd8\0", b"\xff\xd9\0"]})
    ((call, _, metadata),) = server.seen
    assert call.inputs["images"].tolist() == [b"\xff\xd8\0", b"\xff\xd9\0"]
    assert not call.has_model_spec
    assert metadata["x-accelserve-priority"] == "high"
    np.testing.assert_array_equal(answer["scores"], np.float32([[0.25, 0.75]]))


def test_model_signature_filter_and_deadline_reach_the_server(server, client):
    client.predict({"x": np.ones((2, 2))}, model="m", signature="s", output_filter=["scores"], timeout_s=5)
    ((call, remaining_s, _),) = server.seen
    assert (call.model, call.signature, call.output_filter) == (ModelRef("m"), "s", ("scores",))
    assert call.inputs["x"].dtype == np.float64
    assert 4 < remaining_s < 5.5  # gRPC rounds it up on the wire


def test_an_answer_over_four_megabytes_is_taken(server, client):
    server.reply = lambda context: response(y=np.zeros((1, 2_000_000), np.float32))
    assert client.predict({"x": [1.0]})["y"].nbytes == 8_000_000


def test_a_refusal_says_code_message_reason_and_when_to_come_back(server, client):
    def refuse(context: grpc.ServicerContext) -> ScoreResponse:
        context.set_trailing_metadata((("x-accelserve-reason", "queue_full"), ("retry-after", "3")))
        context.abort(grpc.StatusCode.UNAVAILABLE, "too many rows wait")
        raise AssertionError

    server.reply = refuse
    with pytest.raises(ServerError) as caught:
        client.predict({"x": [1.0]})
    error = caught.value
    assert (error.status, error.message, error.reason, error.retry_after_s) == (
        "UNAVAILABLE",
        "too many rows wait",
        "queue_full",
        3,
    )


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"<html>not found</html>"])
def test_an_answer_that_is_none_is_an_error_that_says_so(server, client, raw):
    server.raw = raw
    asked = {"x": [1.0]}
    for ask in (
        lambda: client.predict(asked),
        lambda: client.predict_told(asked),
        lambda: client.input_names("digits"),
    ):
        with pytest.raises(ServerError, match=r"OK: .* cannot be read"):
            ask()


def test_nobody_listening_is_unavailable(server):
    with GrpcClient("127.0.0.1:1") as client, pytest.raises(ServerError) as caught:
        client.predict({"x": [1.0]}, timeout_s=5)
    assert (caught.value.status, caught.value.reason) == ("UNAVAILABLE", "")


def test_the_names_of_a_signatures_inputs_can_be_asked_for(client):
    assert client.input_names("digits") == ("a", "b")
    assert client.input_names("digits", signature="other") == ("c",)
    assert client.input_names("digits", signature="absent") == ()
    with pytest.raises(ServerError, match="NOT_FOUND: no model m"):
        client.input_names("m")


def test_the_only_signature_is_meant_when_none_is_named(client):
    assert client.input_names("lone") == ("image",)
    assert client.input_names("lone", signature="serving_default") == ()
    assert client.input_names("two") == ()
