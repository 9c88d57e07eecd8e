"""The HTTP client against a server made of the standard library."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from accelserve.client import Client, ClientTls, ServerError, as_tensor, http_client
from certificates import authority, signed

METADATA = {
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": {},
                    "outputs": {
                        "scores": {"dtype": "DT_FLOAT", "name": "scores:0"},
                        "tags": {"dtype": "DT_STRING", "name": "tags:0"},
                    },
                },
                "one": {"inputs": {}, "outputs": {"y": {"dtype": "DT_HALF", "name": "y_out:0"}}},
            }
        }
    }
}


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: tuple[str, int]


@dataclass
class Reply:
    """close: end the connection after the answer without saying so, as a server does with idle ones."""

    body: bytes = b"[]"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False
    claimed_bytes: int | None = None


@dataclass
class FakeServer:
    url: str
    seen: list[Seen]
    reply: Callable[[Seen], Reply]


def handler_of(server: list[FakeServer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.command, self.path, headers, body, self.client_address)
            server[0].seen.append(seen)
            reply = server[0].reply(seen)
            with suppress(ConnectionError):  # a client that gave up
                self.write(reply)
            self.close_connection = reply.close

        do_GET = do_POST

        def write(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(reply.claimed_bytes or len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[FakeServer]:
    """context: given, it speaks TLS."""
    found: list[FakeServer] = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(found))
    if context is not None:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    found.append(FakeServer(f"http://127.0.0.1:{http.server_port}", [], lambda seen: Reply()))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found[0]
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as found:
        yield found


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


def model_server(**outputs: object) -> Callable[[Seen], Reply]:
    """Answers the list, the metadata and :predict as TF Serving and we do."""
    documents = {
        "/v1/models": {"models": [{"name": "digits", "model_version_status": []}]},
        "/v1/models/digits/metadata": METADATA,
        "/v1/models/digits:predict": outputs,
    }
    return lambda seen: Reply(json.dumps(documents[seen.path]).encode())


def test_bytes_are_posted_as_they_are_and_the_json_comes_back(server, client):
    server.reply = lambda seen: Reply(b"[0.25, 0.75]")
    assert client.score(b"\xff\xd8\xff\0") == [0.25, 0.75]
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/score", b"\xff\xd8\xff\0")
    assert "content-type" not in seen.headers


def test_a_file_is_read_by_its_path(server, client, tmp_path):
    (tmp_path / "seven.jpg").write_bytes(b"a picture")
    client.score(tmp_path / "seven.jpg")
    client.score(str(tmp_path / "seven.jpg"))
    assert [seen.body for seen in server.seen] == [b"a picture", b"a picture"]


def test_the_model_and_the_number_of_best_scores_are_in_the_query(server, client):
    client.score(b"x", top=3, model="a b&c")
    assert server.seen[0].path == "/score?model=a+b%26c&top=3"


def test_the_timeout_is_the_servers_deadline_too(server, client):
    client.score(b"x", timeout_s=1.5)
    client.score(b"x", timeout_s=None)
    assert [seen.headers.get("x-accelserve-timeout-ms") for seen in server.seen] == ["1500", None]


def test_headers_and_a_path_before_the_routes_are_kept(server):
    with Client(server.url + "/proxy/", headers={"authorization": "Bearer k"}) as client:
        client.score(b"x")
    assert server.seen[0].path == "/proxy/score"
    assert server.seen[0].headers["authorization"] == "Bearer k"


def test_requests_share_one_connection(server, client):
    for _ in range(3):
        client.score(b"x")
    assert len({seen.client for seen in server.seen}) == 1


def test_a_connection_that_the_server_closed_in_between_is_opened_anew(server, client):
    server.reply = lambda seen: Reply(b"[1]", close=True)
    assert [client.score(b"x") for _ in range(3)] == [[1], [1], [1]]
    assert len({seen.client for seen in server.seen}) == 3


def test_a_refusal_says_status_message_reason_and_when_to_come_back(server, client):
    headers = {"x-accelserve-reason": "queue_full", "retry-after": "2"}
    server.reply = lambda seen: Reply(b'{"error": "digits:1 has 4096 rows waiting"}', 503, headers)
    with pytest.raises(ServerError) as caught:
        client.score(b"x")
    error = caught.value
    assert (error.status, error.message, error.reason, error.retry_after_s) == (
        503,
        "digits:1 has 4096 rows waiting",
        "queue_full",
        2,
    )
    server.reply = lambda seen: Reply(b"[1]")
    assert client.score(b"x") == [1]


def test_a_refusal_that_comes_while_the_body_is_still_being_sent_is_read(server, client, monkeypatch):
    send = HTTPConnection.request

    def breaks_off(*arguments: object) -> None:
        send(*arguments)
        raise BrokenPipeError

    monkeypatch.setattr(HTTPConnection, "request", breaks_off)
    server.reply = lambda seen: Reply(b'{"error": "at most 64 MiB"}', 413, close=True)
    with pytest.raises(ServerError, match="413: at most 64 MiB"):
        client.score(b"x")


def test_an_error_page_of_a_proxy_is_told_as_it_is(server, client):
    server.reply = lambda seen: Reply(b"<h1>bad gateway</h1>", 502, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})
    with pytest.raises(ServerError, match="502: <h1>bad gateway</h1>") as caught:
        client.score(b"x")
    assert (caught.value.reason, caught.value.retry_after_s) == ("", None)


def test_an_answer_that_is_not_json_is_an_error(server, client):
    server.reply = lambda seen: Reply(b"<html>")
    with pytest.raises(ServerError, match="not JSON"):
        client.score(b"x")


def test_a_redirection_is_told_and_not_followed(server, client):
    server.reply = lambda seen: Reply(b"<html>", 308, {"location": "https://example.org/score"})
    with pytest.raises(ServerError, match=r"308: a redirection, .* leads to https://example\.org/score"):
        client.score(b"x")
    assert len(server.seen) == 1


def test_a_length_that_an_answer_only_claims_takes_no_memory(server, client):
    server.reply = lambda seen: Reply(b"[1]", claimed_bytes=10**18, close=True)
    with pytest.raises(ConnectionError, match="not whole"):
        client.score(b"x")


def test_an_answer_that_trickles_is_not_waited_for_beyond_the_timeout(monkeypatch):
    monkeypatch.setattr(http_client, "GRACE_S", 0.0)
    for answer in (b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + b"1" * 9999, b"HTTP/1.1 200 " + b"O" * 9999):
        with trickling(answer) as url, Client(url) as client, pytest.raises(TimeoutError):
            client.score(b"x", timeout_s=0.3)


@contextmanager
def trickling(answer: bytes) -> Iterator[str]:
    """A server that says a byte every 20 ms, to one client."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            for byte in answer:
                if over.wait(0.02):
                    return
                connection.sendall(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def test_a_kept_connection_over_tls_that_the_server_closed_is_opened_anew(tmp_path):
    ca = authority(tmp_path)
    pair = signed(ca, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with running(context) as server:
        server.reply = lambda seen: Reply(b"[1]", close=True)
        with Client(server.url.replace("http:", "https:"), tls=ClientTls(roots=ca.cert)) as client:
            assert [client.score(b"x" * size) for size in (1, 1, 1_000_000, 1)] == [[1]] * 4
        assert len({seen.client for seen in server.seen}) == 4


def test_an_answer_that_is_cut_is_a_connection_error_and_the_client_goes_on(server, client):
    server.reply = lambda seen: Reply(b"[1,", claimed_bytes=100, close=True)
    with pytest.raises(ConnectionError, match="not whole"):
        client.score(b"x")
    server.reply = lambda seen: Reply(b"[1]")
    assert client.score(b"x") == [1]


def test_a_server_that_never_answers_is_given_up_and_the_late_answer_is_not_taken_for_the_next(server, client):
    released = threading.Event()

    def late(seen: Seen) -> Reply:
        released.wait(20)
        return Reply(b'"late"')

    server.reply = late
    with pytest.raises(TimeoutError):
        client.score(b"x", timeout_s=-0.95)  # with the second of grace: 50 ms
    released.set()
    server.reply = lambda seen: Reply(b'"next"')
    assert client.score(b"x") == "next"


def test_nobody_listening_is_an_os_error():
    with running() as server:
        url = server.url
    with Client(url) as client, pytest.raises(ConnectionRefusedError):
        client.score(b"x")


@pytest.mark.parametrize("url", ["127.0.0.1:8501", "ftp://host/", "http://", "http://host/?key=x"])
def test_an_address_without_scheme_or_host_is_refused_at_once(url):
    with pytest.raises(ValueError, match="want an address"):
        Client(url)


def test_a_key_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="say key=") as refused:
        Client("http://me:word@host")
    assert "word" not in str(refused.value)


@pytest.mark.parametrize("tls", [ClientTls(roots=Path("none.pem")), ClientTls(cert=Path("none.pem"), key=Path("x"))])
def test_files_of_tls_that_are_not_there_are_named(tls):
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        Client("https://host", tls=tls)


def test_predict_sends_columns_and_gives_arrays_of_the_models_dtypes(server, client):
    server.reply = model_server(outputs={"scores": [[0.1, 0.9]], "tags": ["a", {"b64": "/w=="}]})
    answer = client.predict({"x": np.array([[1, 2]], np.uint8), "image": b"\xff\0"}, model="digits")
    assert json.loads(server.seen[-1].body) == {"inputs": {"x": [[1, 2]], "image": [{"b64": "/wA="}]}}
    assert server.seen[-1].path == "/v1/models/digits:predict"
    assert answer["scores"].dtype == np.float32
    np.testing.assert_array_equal(answer["scores"], np.float32([[0.1, 0.9]]))
    assert answer["tags"].tolist() == [b"a", b"\xff"]


def test_predict_names_the_only_output_and_names_the_signature(server, client):
    server.reply = model_server(outputs=[1.5])
    answer = client.predict({"x": [1.0]}, model="digits", signature="one")
    assert {name: (value.dtype, value.tolist()) for name, value in answer.items()} == {"y": (np.float16, [1.5])}
    assert json.loads(server.seen[-1].body) == {"inputs": {"x": [1.0]}, "signature_name": "one"}


def test_predict_for_one_output_by_its_tensor_name_answers_under_that_name(server, client):
    server.reply = model_server(outputs=[[0.5]])
    answer = client.predict({"x": [1.0]}, model="digits", output_filter=["scores:0"])
    assert list(answer) == ["scores:0"]
    assert answer["scores:0"].dtype == np.float32
    assert json.loads(server.seen[-1].body)["output_filter"] == ["scores:0"]


def test_predict_asks_for_the_metadata_once(server, client):
    server.reply = model_server(outputs=[1.5])
    for _ in range(3):
        client.predict({"x": [1.0]}, model="digits", signature="one")
    assert [seen.path for seen in server.seen].count("/v1/models/digits/metadata") == 1


def test_predict_without_a_model_takes_the_only_one(server, client):
    server.reply = model_server(outputs=[1.5])
    assert client.predict({"x": [1.0]}, signature="one")["y"].tolist() == [1.5]
    server.reply = lambda seen: Reply(b'{"models": [{"name": "a"}, {"name": "b"}]}')
    with pytest.raises(ValueError, match="a, b"):
        client.predict({"x": [1.0]})


def signatures(**outputs_of: dict[str, object]) -> dict[str, object]:
    """A model's metadata with these signatures."""
    described = {name: {"inputs": {}, "outputs": outputs} for name, outputs in outputs_of.items()}
    return {"metadata": {"signature_def": {"signature_def": described}}}


def documents(metadata: object, outputs: object) -> Callable[[Seen], Reply]:
    return lambda seen: Reply(json.dumps({"outputs": outputs} if seen.method == "POST" else metadata).encode())


def test_a_model_whose_only_signature_has_another_name_is_asked_without_one(server, client):
    metadata = signatures(classify={"y": {"dtype": "DT_HALF", "name": "y_out:0"}})
    server.reply = documents(metadata, [1.5])
    answer = client.predict({"x": [1.0]}, model="m")
    assert (list(answer), answer["y"].dtype) == (["y"], np.float16)
    assert json.loads(server.seen[-1].body) == {"inputs": {"x": [1.0]}}


@pytest.mark.parametrize("outputs", [[[1.5]], {"z": [1.5]}, 1.5])
def test_an_answer_that_does_not_fit_the_metadata_is_an_error(server, client, outputs):
    y = {"dtype": "DT_FLOAT", "name": "y:0"}
    server.reply = documents(signatures(one={"y": y}, two={"y": y}), outputs)
    with pytest.raises(ServerError, match="metadata"):
        client.predict({"x": [1.0]}, model="m")


def test_non_finite_scores_survive(server, client):
    server.reply = model_server(outputs=[float("nan"), float("inf")])
    np.testing.assert_array_equal(client.predict({"x": [1.0]}, model="digits", signature="one")["y"], [np.nan, np.inf])


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (b"\xff\0", "object", (1,)),
        ("text", "object", (1,)),
        ([b"a\0", b"bcd"], "object", (2,)),
        ([["a"], ["b"]], "object", (2, 1)),
        ([1.5], "float32", (1,)),
        (2, "int32", ()),
        ([2**40], "int64", (1,)),
        ([-(2**63)], "int64", (1,)),
        ([2**31 - 1, -(2**31)], "int32", (2,)),
        ([2**31], "int64", (1,)),
        ([-(2**31) - 1], "int64", (1,)),
        ([True], "bool", (1,)),
        (np.zeros((2, 3)), "float64", (2, 3)),
        (np.float64(1), "float64", ()),
        (np.array([b"a", b"bc"]), "object", (2,)),
    ],
)
def test_what_a_caller_has_becomes_a_tensor(value, dtype, shape):
    tensor = as_tensor(value)
    assert (tensor.dtype, tensor.shape) == (np.dtype(dtype), shape)
    assert all(isinstance(item, bytes) for item in tensor.ravel().tolist() if dtype == "object")


@pytest.mark.parametrize("number", [-(2**63), -(2**31), 2**31 - 1, 2**31, 2**63 - 1])
def test_a_number_stays_what_it_is(number):
    assert as_tensor([number]).tolist() == [number]


def test_zero_bytes_at_the_end_of_strings_are_kept():
    assert as_tensor([b"a\0", b"\0"]).tolist() == [b"a\0", b"\0"]
    assert as_tensor([[b"a\0"], [b"b\0\0"]]).tolist() == [[b"a\0"], [b"b\0\0"]]


@pytest.mark.parametrize("value", [None, [None], object()])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(ValueError, match="want an array"):
        as_tensor(value)
