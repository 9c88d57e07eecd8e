"""No request holds the event loop for long: while the worst are handled, a neighbour is answered at once."""

import gzip
import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import grpc
import numpy as np
import pytest
from onnx import TensorProto
from plain_http import Answer, check_books, check_log, post
from server_process import Server, serving
from small_networks import identity, sum_and_difference
from talk import PATIENCE_S, Connection

from accelserve.codecs.tfserving_proto import encode_predict_request
from accelserve.messages import ModelRef
from accelserve.wire.tfserving_pb2 import PredictRequest

MB = 10**6
AT_ONCE_S = 1.0  # on an idle machine 0.02 s, and 0.3 s while ten megabytes of JSON are parsed in one piece
PAUSE_S = 0.005
BATCHING = """
[batching]
max_batch_size = 65536
max_queue_rows = 100_000_000
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fairness")
    models = {
        "wide": identity(folder / "wide.onnx", TensorProto.FLOAT, "batch", "n"),
        "text": identity(folder / "text.onnx", TensorProto.STRING, "batch"),
        "two": sum_and_difference(folder / "two.onnx"),
    }
    for name in models:
        (folder / f"{name}.accelserve.toml").write_text(BATCHING)
    arguments = [part for name, path in models.items() for part in ("--model", f"{name}={path}")]
    with serving(*arguments, log=folder / "log") as running:
        yield running
        check_log(running)
        assert running.stop() == 0


@dataclass
class Neighbour:
    """Asks /healthz again and again. waits: how long each answer took, in seconds."""

    server: Server
    waits: list[float] = field(default_factory=list)
    _left: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with Connection(self.server.http_port) as connection:
            while not self._left.wait(PAUSE_S):
                started = time.monotonic()
                assert connection.ask("/healthz").status == 200
                self.waits.append(time.monotonic() - started)

    def leave(self) -> None:
        self._left.set()

    def wait_at_99(self) -> float:
        """The longest of all, where there are fewer than a hundred."""
        return sorted(self.waits)[math.ceil(0.99 * len(self.waits)) - 1]


@contextmanager
def neighbour_of(server: Server) -> Iterator[Neighbour]:
    neighbour = Neighbour(server)
    thread = threading.Thread(target=neighbour.ask)
    thread.start()
    try:
        yield neighbour
    finally:
        neighbour.leave()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def rows(*last: bytes) -> bytes:
    """Ten megabytes of rows of two numbers."""
    return b'{"instances":[' + b",".join([b"[1.5,2.25]"] * (10 * MB // 11) + list(last)) + b"]}"


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def objects(*last: bytes) -> bytes:
    """Eight megabytes of rows of two named inputs."""
    row = b'{"a":[1,2],"b":[3,4]}'
    return b'{"instances":[' + b",".join([row] * (8 * MB // len(row)) + list(last)) + b"]}"


def strings(item: bytes, *last: bytes) -> bytes:
    """Eight megabytes."""
    return b'{"instances":[' + b",".join([item] * (8 * MB // (len(item) + 1)) + list(last)) + b"]}"


WIDE, TEXT, TWO = ("/score?model=wide", "/score?model=text", "/score?model=two")
PREDICT = "/v1/models/wide:predict"
FORM = {"content_type": "multipart/form-data; boundary=aaaaaaaaaaaa"}
GZIP = {"content_encoding": "gzip"}
CASES: dict[str, tuple[str, Callable[[], bytes], dict[str, str], int]] = {
    "strings after a NaN": (PREDICT, lambda: b'{"instances": [NaN, ' + b'"' * 10 * MB, {}, 400),
    "strings after an Inf": (PREDICT, lambda: b'{"instances": [Inf, ' + b'"",' * (10 * MB // 3) + b"1]}", {}, 400),
    "backslashes": (PREDICT, lambda: b'{"instances": [NaN, "' + b"\\\\" * 5 * MB + b'"]}', {}, 400),
    "pairs of surrogates": (PREDICT, lambda: b'[NaN, "' + b"\\ud83d\\ude00" * (10 * MB // 12) + b'"]', {}, 400),
    "numbers with a NaN": (PREDICT, lambda: rows(b"[NaN,1]"), {}, 200),
    "base64": (TEXT, lambda: strings(b'{"b64":"AAAA"}'), {}, 200),
    "base64 without padding": (TEXT, lambda: strings(b'{"b64":"AAA"}'), {}, 200),
    "base64 and a number": (TEXT, lambda: strings(b'{"b64":"AAAA"}', b"1"), {}, 400),
    "short strings": (TEXT, lambda: strings(b'"a"'), {}, 200),
    "two inputs": (TWO, objects, {}, 200),
    "two inputs, the last wrong": (TWO, lambda: objects(b'{"a":[1,2],"b":[3,"x"]}'), {}, 400),
    "good numbers": (PREDICT, rows, {}, 200),
    "a ragged last row": (PREDICT, lambda: rows(b"[1]"), {}, 400),
    "a last number that is none": (PREDICT, lambda: rows(b'[1,"x"]'), {}, 400),
    "a ragged column": (PREDICT, lambda: rows(b"[1]").replace(b"instances", b"inputs"), {}, 400),
    "empty lists": (PREDICT, lambda: b'{"instances":[' + b"[]," * (10 * MB // 3) + b"[]]}", {}, 200),
    "an error that shows the document": (PREDICT, lambda: rows()[:-1] + b',"inputs":1}', {}, 400),
    "a top of all": (WIDE + "&top=999999", lambda: npy(np.random.default_rng(0).random((1000, 1000), "f4")), {}, 200),
    "a top of many rows": (WIDE + "&top=1", lambda: npy(np.zeros((500_000, 2), "f4")), {}, 200),
    "a long answer": (WIDE, lambda: npy(np.random.default_rng(0).random((1000, 3750), "f4")), {}, 200),
    "a long answer of NaN": (WIDE, lambda: npy(np.full((1000, 3750), np.nan, "f4")), {}, 200),
    "columns first": (WIDE + "&top=1", lambda: npy(np.zeros((2000, 3750), "f4", order="F")), {}, 200),
    "spaces": (PREDICT, lambda: b" " * 60 * MB + b"x", {}, 400),
    "spaces for /score": (WIDE, lambda: b" " * 60 * MB + b"x", {}, 400),
    "packed spaces": (PREDICT, lambda: gzip.compress(b" " * 60 * MB, 1), GZIP, 400),
    "packed zeros": (WIDE, lambda: gzip.compress(bytes(60 * MB), 1), GZIP, 400),
    "a form of boundaries": (WIDE, lambda: b"--aaaaaaaaaaaa\r\n\r\n" + b"\r\n--aaaaaaaaaaa" * 4 * MB, FORM, 400),
    "a form of noise": (WIDE, lambda: b"\r\n--" * 15 * MB, FORM, 400),
}


@pytest.mark.parametrize("case", CASES)
def test_a_neighbour_is_answered_at_once_while_a_large_request_is_handled(server, case):
    path, body, headers, status = CASES[case]
    data = body()
    with neighbour_of(server) as neighbour:
        answer = post(server, path, data, **headers)
    assert answer.status == status, answer.body[:500]
    assert neighbour.waits, "the request was over before the neighbour could ask"
    assert neighbour.wait_at_99() < AT_ONCE_S
    check_books(server)


def many_inputs() -> bytes:
    request = PredictRequest()
    for index in range(100_000):
        request.inputs[str(index)].dtype = 1
    return request.SerializeToString()


@cache
def many_strings() -> bytes:
    tensor = np.full(2 * MB, b"a", object)
    return encode_predict_request(ModelRef("text"), "", {"x": tensor})


@pytest.mark.parametrize(("message", "code"), [(many_inputs, "INVALID_ARGUMENT"), (many_strings, "OK")])
def test_a_neighbour_is_answered_at_once_while_a_large_message_is_handled(server, message, code):
    data = message()
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with neighbour_of(server) as neighbour:
            call = predict.future(data, timeout=PATIENCE_S)
            assert call.code().name == code, call.details()
    assert neighbour.wait_at_99() < AT_ONCE_S


def test_many_large_requests_at_once_are_all_answered(server):
    """They wait for one another, and not the neighbour for them."""
    body, answers = rows(), list[Answer]()
    threads = [threading.Thread(target=lambda: answers.append(post(server, PREDICT, body))) for _ in range(6)]
    with neighbour_of(server) as neighbour:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert [answer.status for answer in answers] == [200] * len(threads)
    assert neighbour.wait_at_99() < AT_ONCE_S
    check_books(server)
