"""What the other accel clients of Azure ML send and read, byte for byte as far as it is known, with and without keys.

aml-real-time-ai's Python client sends no model_spec and no authorization; the C# clients send a model_spec that is
empty, `bearer KEY` (the newer) or `KEY` alone (the older), and read nothing of an answer but float_val and its dims.
"""

from collections.abc import Callable
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from accel_dialect import SOFTMAX, dense_accel, float_accel
from secure_talk import KEYS, make_files, secure_channel
from server_process import serving

from accelserve.wire.tensorflow_pb2 import DT_FLOAT, DT_STRING
from accelserve.wire.tfserving_pb2 import ModelSpec, PredictRequest, PredictResponse
from model_builders import jpeg

METHOD = "/tensorflow.serving.PredictionService/Predict"
ROUTE = ("x-ms-aml-grpc-service-route", "/api/v1/service/{}")
COLOUR = (200, 100, 50)
# What the C# clients repeat ten times, at once.
REPEATED = {"DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED", "INTERNAL"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accel")
    return folder, make_files(folder), (dense_accel(folder / "dense.onnx"), float_accel(folder / "numbers.onnx"))


@pytest.fixture(scope="module")
def secured(place):
    folder, files, (dense, numbers) = place
    arguments = ("--auth-keys", files.keys, "--tls-cert", files.pair.cert, "--tls-key", files.pair.key)
    models = (f"--model=dense={dense}", f"--model=numbers={numbers}", "--default-model=dense")
    with ExitStack() as stack:
        server = stack.enter_context(serving(*models, *arguments, log=folder / "secured.log"))
        yield stack.enter_context(secure_channel(server, files.tls))


@pytest.fixture(scope="module")
def open_to_all(place):
    folder, _, (dense, numbers) = place
    models = (f"--model=dense={dense}", f"--model=numbers={numbers}", "--default-model=dense")
    with serving(*models, log=folder / "open.log") as server, grpc.insecure_channel(server.grpc) as channel:
        yield channel


def images(*, spec: bool, count: int = 2) -> PredictRequest:
    """C#'s ImageRequest: strings [N]; aml-real-time-ai's score_image: one."""
    request = PredictRequest(model_spec=ModelSpec()) if spec else PredictRequest()
    tensor = request.inputs["Placeholder:0"]
    tensor.dtype = DT_STRING
    tensor.tensor_shape.dim.add(size=count)
    tensor.string_val.extend([jpeg(COLOUR)] * count)
    return request


def floats(spec: bool = True) -> PredictRequest:
    """C#'s FloatRequest: float_val."""
    request = PredictRequest(model_spec=ModelSpec()) if spec else PredictRequest()
    tensor = request.inputs["Placeholder:0"]
    tensor.dtype = DT_FLOAT
    for size in (1, 2, 2, 3):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend([0.5] * 12)
    return request


def content() -> PredictRequest:
    """aml-real-time-ai's score_numpy_array: tensor_content."""
    request = floats(spec=False)
    tensor = request.inputs["Placeholder:0"]
    tensor.tensor_content = np.asarray(tensor.float_val, "<f4").tobytes()
    del tensor.float_val[:]
    return request


def read_as_csharp(data: bytes) -> np.ndarray:
    """It looks up one output, copies float_val, and wants as many numbers as the dims say."""
    tensor = PredictResponse.FromString(data).outputs[f"{SOFTMAX}:0"]
    assert not tensor.tensor_content
    dims = [dim.size for dim in tensor.tensor_shape.dim]
    assert len(tensor.float_val) == np.prod(dims)
    return np.float32(tensor.float_val).reshape(dims)


def ask(channel: grpc.Channel, request: PredictRequest, *metadata: tuple[str, str]) -> bytes:
    data: bytes = channel.unary_unary(METHOD)(request.SerializeToString(), timeout=10, metadata=metadata)
    return data


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return str(refused.value.code().name)


@pytest.mark.parametrize("key", [KEYS.primary, KEYS.secondary])
@pytest.mark.parametrize("spelling", ["bearer {}", "{}", "Bearer {}"], ids=["newer C#", "older C#", "Python"])
def test_the_csharp_clients_score_pictures_and_numbers_with_either_key(secured, spelling, key):
    authorization = ("authorization", spelling.format(key))
    found = read_as_csharp(ask(secured, images(spec=True), authorization))
    np.testing.assert_allclose(found, [np.array(COLOUR) / 255] * 2, atol=0.02)
    route = (ROUTE[0], ROUTE[1].format("numbers"))
    np.testing.assert_array_equal(read_as_csharp(ask(secured, floats(), authorization, route)), [[0.5] * 3])


@pytest.mark.parametrize("sent", ["bearer wrong-wrong-wrong-wrong", "wrong-wrong-wrong-wrong", "Bearer ", ""])
def test_a_wrong_key_is_said_in_a_word_that_they_do_not_repeat_at_once(secured, sent):
    code = code_of(lambda: ask(secured, images(spec=True), ("authorization", sent)))
    assert code == "UNAUTHENTICATED"
    assert code not in REPEATED


def test_a_client_that_shows_no_key_at_all_is_turned_away_where_keys_are_asked_for(secured):
    assert code_of(lambda: ask(secured, images(spec=False, count=1))) == "UNAUTHENTICATED"


def test_aml_real_time_ai_scores_where_none_are_asked_for(open_to_all):
    found = read_as_csharp(ask(open_to_all, images(spec=False, count=1)))
    np.testing.assert_allclose(found, [np.array(COLOUR) / 255], atol=0.02)
    route = (ROUTE[0], ROUTE[1].format("numbers"))
    np.testing.assert_array_equal(read_as_csharp(ask(open_to_all, content(), route)), [[0.5] * 3])


@pytest.mark.parametrize("sent", ["Bearer ", "bearer x", "x", ""])
def test_a_header_is_ignored_where_no_keys_are_asked_for(open_to_all, sent):
    assert read_as_csharp(ask(open_to_all, images(spec=True), ("authorization", sent))).shape == (2, 3)


def test_a_bad_request_with_a_good_key_is_not_repeated(secured):
    broken = images(spec=True)
    broken.inputs["Placeholder:0"].string_val[1] = b"no picture"
    code = code_of(lambda: ask(secured, broken, ("authorization", f"bearer {KEYS.primary}")))
    assert code == "INVALID_ARGUMENT"
