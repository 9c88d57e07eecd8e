"""Attacks on the HTTP port. After each one a good request is answered at once, and the books of /metrics hold."""

import contextlib
import gzip
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image
from plain_http import (
    Answer,
    check_books,
    check_log,
    connect,
    ended,
    exchange,
    head_of,
    parse_answers,
    post,
    read_all,
)
from server_process import Server, serving, wait_until
from small_networks import identity
from talk import Scrape

import model_builders
from accelserve.builtin import digits_path, pictures

MAX_BODY_BYTES = 16 * 2**20
READ_TIMEOUT_S = 1
AT_ONCE_S = 2.0  # on an idle machine some milliseconds
SEVEN = pictures()[7][0].read_bytes()
SLOW = """
behaviour = "echo"
delay_ms = 300
[inputs.x]
dtype = "float32"
shape = [-1, 2]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bad")
    models = {
        "digits": digits_path(),
        "wide": identity(folder / "wide.onnx", TensorProto.FLOAT, "batch", "n"),
        "slow": model_builders.synthetic_model(folder / "slow.synthetic.toml", SLOW),
        "photo": model_builders.onnx_image(folder / "photo.onnx"),
    }
    arguments = [part for name, path in models.items() for part in ("--model", f"{name}={path}")]
    limits = ["--read-timeout", READ_TIMEOUT_S, "--max-body-bytes", MAX_BODY_BYTES, "--default-model", "digits"]
    with serving(*arguments, *limits, log=folder / "log") as running:
        yield running
        check_log(running)
        assert running.stop() == 0


@pytest.fixture(autouse=True)
def unharmed(server) -> Iterator[None]:
    yield
    started = time.monotonic()
    (best,) = post(server, "/score?top=1", SEVEN).json
    assert time.monotonic() - started < AT_ONCE_S
    assert best["label"] == "seven"
    check_books(server)


def only_answer(data: bytes) -> Answer:
    (answer,) = parse_answers(data)
    return answer


def seven(*lines: str) -> bytes:
    return head_of("POST", "/score?top=1", f"Content-Length: {len(SEVEN)}", *lines) + SEVEN


# --- pictures


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 10, 20, 100, 200, 400, 600, 0.5, 0.9, -1, -2])
def test_a_cut_jpeg_is_refused_with_a_reason(server, kept):
    cut = SEVEN[: int(len(SEVEN) * kept)] if isinstance(kept, float) else SEVEN[:kept]
    answer = post(server, "/score", cut)
    assert answer.status == (415 if kept == 1 else 422), (kept, answer.body)
    assert answer.error


def a_jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(model_builders.jpeg())
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def a_png_of(width: int, height: int, pixels: bytes = b"\0" * 100, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header claims a size and whose pixels are others."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bomb", [a_png_of(30000, 30000), a_png_of(2**31 - 1, 2**31 - 1), a_jpeg_of(65535, 65535)])
def test_a_picture_that_claims_too_many_pixels_is_413_before_it_is_decoded(server, bomb):
    started = time.monotonic()
    answer = post(server, "/score", bomb)
    assert answer.status == 413
    assert "the limit is" in answer.error
    assert time.monotonic() - started < AT_ONCE_S


@pytest.mark.parametrize(
    "broken",
    [
        a_png_of(0, 10),
        a_png_of(100, 100),
        a_png_of(10, 10, colour=77),
        a_png_of(10, 10, bits=77),
        a_png_of(10, 10)[:-12],
        a_png_of(10, 10)[:8],
        a_png_of(10, 10)[:40] + b"\xff" + a_png_of(10, 10)[41:],
        SEVEN[:300] + bytes(200) + SEVEN[500:],
        SEVEN[:20] + b"\xff\xd8" * 100,
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8" + b"\xff" * 10000,
    ],
)
def test_a_damaged_picture_is_422(server, broken):
    answer = post(server, "/score", broken)
    assert answer.status == 422, answer.body
    assert "cannot be decoded" in answer.error


@pytest.mark.parametrize("seed", range(20))
def test_a_jpeg_with_wrong_bytes_is_scored_or_refused_but_never_an_inner_error(server, seed):
    data = bytearray(SEVEN)
    rng = np.random.default_rng(seed)
    for at in rng.integers(2, len(data), 5):
        data[at] = rng.integers(256)
    answer = post(server, "/score", bytes(data))
    assert answer.status in (200, 413, 422), answer.body
    assert answer.status == 200 or answer.error


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM"])
def test_pictures_of_other_kinds_are_415(server, form):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, form)
    answer = post(server, "/score", buffer.getvalue())
    assert answer.status == 415
    assert "JPEG or PNG" in answer.error


# --- bodies that are too large


def test_a_hundred_megabytes_are_413_at_the_header(server):
    with connect(server) as client:
        client.sendall(head_of("POST", "/score", f"Content-Length: {100 * 2**20}"))
        answer = only_answer(read_all(client))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert answer.error == f"request body of more than {MAX_BODY_BYTES} bytes"


def test_a_client_that_waits_for_100_continue_gets_413_instead(server):
    head = head_of("POST", "/score", f"Content-Length: {100 * 2**20}", "Expect: 100-continue")
    assert only_answer(exchange(server, head)).status == 413


def test_a_client_that_sends_its_hundred_megabytes_anyway_still_reads_413(server):
    with connect(server) as client:
        client.sendall(head_of("POST", "/score", f"Content-Length: {100 * 2**20}"))
        for _ in range(100):
            client.sendall(bytes(2**20))
        assert only_answer(read_all(client)).status == 413


def test_chunks_that_grow_over_the_limit_are_413(server):
    with connect(server) as client:
        client.sendall(head_of("POST", "/score", "Transfer-Encoding: chunked"))
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        for _ in range(20):
            client.sendall(chunk)
        answer = only_answer(read_all(client))
    assert answer.status == 413
    assert answer.error


@pytest.mark.parametrize("path", ["/score", "/v1/models/digits:predict"])
def test_a_gzip_bomb_is_413(server, path):
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    assert len(bomb) < 100_000
    answer = post(server, path, bomb, content_encoding="gzip")
    assert answer.status == 413
    assert "unpacks to more than" in answer.error


def test_gzip_within_gzip_is_unpacked_once(server):
    twice = gzip.compress(gzip.compress(SEVEN))
    assert post(server, "/score", twice, content_encoding="gzip").status == 415


def test_many_empty_gzip_members_are_400(server):
    assert "members" in post(server, "/score", gzip.compress(b"") * 5000, content_encoding="gzip").error


def test_an_npy_file_that_claims_more_than_it_has_is_refused(server):
    for shape, status in ((2**40, 413), (10**6, 400)):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}, 1), }}\n".encode()
        body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        answer = post(server, "/score?model=wide", body)
        assert answer.status == status
        assert answer.error


# --- heads


def test_an_endless_header_is_431(server):
    with connect(server) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nx-y: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                client.sendall(b"z" * 10_000)
        answer = only_answer(read_all(client))
    assert answer.status == 431
    assert answer.error


@pytest.mark.parametrize(("count", "size"), [(101, 10), (5000, 10), (90, 1000)])
def test_a_flood_of_headers_is_431(server, count, size):
    answer = only_answer(exchange(server, head_of("GET", "/healthz", *(f"h{i}: {'v' * size}" for i in range(count)))))
    assert answer.status == 431
    assert answer.error


@pytest.mark.parametrize("path", ["/" + "a" * 9000, "/score?model=" + "m" * 9000, "/" + "%00" * 5000])
def test_a_long_request_line_is_414(server, path):
    answer = only_answer(exchange(server, head_of("POST", path, "Content-Length: 0")))
    assert answer.status == 414
    assert answer.error


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\0y\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 0x10\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_clients_mistake(server, data):
    answers = parse_answers(exchange(server, data))
    assert all(400 <= answer.status < 500 or answer.status in (200, 501) for answer in answers), answers
    assert all(answer.error for answer in answers if answer.status != 200)


def test_another_transfer_encoding_is_501(server):
    answer = only_answer(exchange(server, head_of("POST", "/score", "Transfer-Encoding: gzip, chunked")))
    assert answer.status == 501
    assert answer.error


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/service/../../../etc/passwd/score",
        "/api/v1/service/..%2F..%2Fetc%2Fpasswd/score",
        "/api/v1/service/%2e%2e/score",
        "/score?model=../../etc/passwd",
        "/score?model=%2Fetc%2Fpasswd",
        "/score?model=%00",
        "/score?model=digits%00",
        "/score?model=digits%0d%0aX-Evil:%201",
        "/score?model=%ff%fe",
        "/v1/models/..%2f..%2fetc%2fpasswd:predict",
        "/v1/models/digits%00:predict",
        "/v1/models/%c3%28:predict",
        "/v1/models/%ff:predict",
        "/v1/models/digits%0d%0aX-Evil:%201:predict",
        "/v1/models/digits/versions/%D9%A1:predict",
        "/v1/models/digits/labels/%00:predict",
        "/readyz/..%2f..",
        "/readyz/%00",
        "//score",
        "/score;x=1",
        "/%",
        "/%zz",
        "*",
    ],
)
def test_a_path_that_means_to_escape_finds_nothing(server, path):
    body = b'{"instances": [[1]]}'
    head = head_of("POST", path, f"Content-Length: {len(body)}", "Connection: close")
    answer = only_answer(exchange(server, head + body))
    assert answer.status in (400, 404, 405), answer
    assert "root:" not in answer.error
    assert "x-evil" not in answer.headers


# --- JSON


@pytest.mark.parametrize("path", ["/score", "/v1/models/digits:predict"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 1000 + b"]" * 1000,
        b'{"instances": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}",
        b'{"instances": ' + b"[" * 100_000 + b"NaN" + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"instances": [' + b'{"image":' * 5000 + b"1" + b"}" * 5000 + b"]}",
        b'{"instances": [{"b64": ' + b"[" * 100 + b"]" * 100 + b"}]}",
        b'{"instances": [1e400]}',
        b'{"instances": [-1e400, ' + b"9" * 10_000 + b"]}",
        b'{"instances": [NaN, ' + b"9" * 10_000 + b"]}",
        b'{"instances": ["\xff\xfe"]}',
        b'{"instances": ["\\ud800"]}',
        b'{"instances": [NaN, "\\ud800"]}',
        b'{"instances": ["\\u0000"]}',
        b'{"instances": [[]]}',
        b'{"instances": [{}]}',
        b'{"instances": null}',
        b'{"inputs": null}',
        b'{"inputs": {}}',
        b'{"instances": [1], "signature_name": "\\u0000\\ud83d\\ude00"}',
        b"null",
        b"\xff\xfe[\x00]\x00",
        b'{"instances"\0: 1}',
        b'{"instances": [[1,2],[3]]}' + b"\0" * 1000,
    ],
)
def test_odd_json_is_a_clients_mistake(server, path, body):
    answer = post(server, path, body)
    assert answer.status in ((400, 415) if path == "/score" else (400,)), answer.body
    assert len(answer.error) < 2000


def test_of_two_equal_keys_one_counts_and_nothing_breaks(server):
    body = b'{"instances": [[1.0, 2.0]], "instances": [[3.0, 4.0]]}'
    answer = post(server, "/v1/models/wide:predict", body)
    assert answer.json in ({"predictions": [[3.0, 4.0]]}, {"predictions": [[1.0, 2.0]]})


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"instances": [' + b"1," * 5_000_000 + b"x]}",
        b'{"instances": "' + b"\\" * 10_000_000,
        b'{"instances": [' + b'"' * 10_000_000,
        b"{" * 10_000_000,
        b'{"' + b"a" * 10_000_000 + b'": 1}',
        b" " * 10_000_000,
    ],
    ids=["numbers", "backslashes", "quotes", "braces", "key", "space"],
)
def test_ten_megabytes_of_garbage_are_400(server, garbage):
    answer = post(server, "/v1/models/digits:predict", garbage)
    assert answer.status == 400
    assert len(answer.error) < 2000


# --- tensors that do not fit


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"instances": [[1.0]]}, '"image"'),
        ({"inputs": {"picture": [[1.0]]}}, "Missing named input: image"),
        ({"instances": [{"picture": 1}]}, "does not have named input: picture"),
        ({"inputs": {"image": [["x"]]}}, "not of expected type"),
        ({"inputs": {"image": []}}, '"image"'),
        ({"instances": [[[[1.0, 2.0]]]]}, '"image"'),
    ],
)
@pytest.mark.parametrize("path", ["/score?model=photo", "/v1/models/photo:predict"])
def test_a_tensor_that_does_not_fit_is_400_and_named(server, path, document, words):
    body = json.loads(json.dumps(document).replace("1.0", "1").replace("2.0", "2"))
    answer = post(server, path, body)
    assert answer.status == 400, answer.body
    assert words in answer.error


def test_a_byte_too_few_or_too_many_is_400(server):
    for size in (1, 8 * 8 * 3 - 1, 8 * 8 * 3 + 1):
        answer = post(server, "/score?model=photo", bytes(size), content_type="application/octet-stream")
        assert answer.status == 400
        assert f"want a multiple of 192 bytes (uint8[-1,8,8,3]), got {size}" in answer.error


def test_no_rows_give_no_rows(server):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((0, 8, 8, 3), np.uint8))
    answer = post(server, "/score?model=photo", buffer.getvalue())
    assert (answer.status, answer.json) == (200, [])


# --- clients that are slow, silent or gone


@pytest.mark.parametrize(
    "begun",
    [
        head_of("POST", "/score", "Content-Length: 1000") + b"half",
        head_of("POST", "/score", "Content-Length: 1000"),
        head_of("POST", "/score", "Transfer-Encoding: chunked") + b"10\r\nhalf",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Le",
        b"P",
    ],
)
def test_half_a_request_and_silence_is_408(server, begun):
    started = time.monotonic()
    before = ended(server, protocol="http", code="408")
    answer = only_answer(exchange(server, begun))
    assert answer.status == 408
    assert answer.error
    assert time.monotonic() - started < READ_TIMEOUT_S + AT_ONCE_S
    assert ended(server, protocol="http", code="408") == before + 1


def test_a_header_that_comes_byte_by_byte_is_408_in_the_time_of_one_silence(server):
    started = time.monotonic()
    with connect(server) as client:
        client.settimeout(0.05)
        got = b""
        client.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        while not got:
            assert time.monotonic() - started < READ_TIMEOUT_S + AT_ONCE_S
            with contextlib.suppress(TimeoutError):
                client.sendall(b"y")
                got = client.recv(2**16)
    assert got.startswith(b"HTTP/1.1 408 ")


def test_three_hundred_silent_connections_harm_nobody_and_are_closed(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(300)]
        for client in clients[::2]:
            client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx")
        for _ in range(20):
            started = time.monotonic()
            assert post(server, "/score", SEVEN).status == 200
            assert time.monotonic() - started < AT_ONCE_S
        for index, client in enumerate(clients):
            answer = read_all(client)
            assert answer.startswith(b"HTTP/1.1 408 ") if index % 2 == 0 else answer == b""


def test_a_client_that_leaves_within_its_body_leaves_nothing_behind(server):
    for how in (socket.SHUT_RDWR, socket.SHUT_WR, None):
        with connect(server) as client:
            client.sendall(head_of("POST", "/score", "Content-Length: 100000") + bytes(50_000))
            if how is None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                client.shutdown(how)


def test_a_client_that_leaves_while_its_model_runs_is_counted_as_cancelled(server):
    before = ended(server, protocol="http", outcome="cancelled")
    body = b'{"instances": [[1.0, 2.0]]}'
    for _ in range(3):
        with connect(server) as client:
            client.sendall(head_of("POST", "/v1/models/slow:predict", f"Content-Length: {len(body)}") + body)
            wait_until(lambda: Scrape(server).sum("accelserve_requests_in_flight") > 0)
    wait_until(lambda: ended(server, protocol="http", outcome="cancelled") == before + 3)


def test_a_client_that_leaves_within_a_large_answer_leaves_nothing_behind(server):
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32))
    head = head_of("POST", "/score?model=wide", f"Content-Length: {len(buffer.getvalue())}")
    with connect(server) as client:
        client.sendall(head + buffer.getvalue())
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_client_that_never_reads_its_answer_is_dropped(server):
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32))
    head = head_of("POST", "/score?model=wide", f"Content-Length: {len(buffer.getvalue())}")
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(head + buffer.getvalue())

        def is_dropped() -> bool:
            try:
                client.send(b"x")
            except ConnectionError:
                return True
            return False

        wait_until(is_dropped)


# --- good and bad together


def test_good_and_bad_requests_on_one_connection_are_answered_in_order(server):
    wrong = head_of("POST", "/score", "Content-Length: 4") + b"\xff\xd8\xff\xd9"
    nowhere = head_of("GET", "/nowhere")
    answers = parse_answers(
        exchange(server, seven() + wrong + nowhere + seven() + b"NOT HTTP AT ALL\r\n\r\n" + seven())
    )
    assert [answer.status for answer in answers] == [200, 422, 404, 200, 400]
    assert answers[0].body == answers[3].body
    assert all(answer.error for answer in answers if answer.status != 200)


def test_a_body_cannot_smuggle_a_request(server):
    inner = head_of("GET", "/nowhere")
    outer = head_of("POST", "/score", f"Content-Length: {len(inner)}", "Connection: close") + inner
    assert [answer.status for answer in parse_answers(exchange(server, outer))] == [415]


def test_good_requests_beside_attackers_all_get_their_answers(server):
    stop = threading.Event()
    attacks = [
        head_of("POST", "/score", "Content-Length: 3") + b"\xff\xd8\xff",
        head_of("POST", "/score", f"Content-Length: {10**12}"),
        b"\0\0\0",
        head_of("POST", "/v1/models/digits:predict", "Content-Length: 9") + b'{"inputs"',
        head_of("DELETE", "/score"),
    ]

    def attack(data: bytes) -> None:
        while not stop.is_set():
            with contextlib.suppress(ConnectionError), connect(server) as client:
                client.sendall(data)

    threads = [threading.Thread(target=attack, args=(data,)) for data in attacks]
    for thread in threads:
        thread.start()
    try:
        for path, digit in pictures() * 3:
            (best,) = post(server, "/score?top=1", path.read_bytes()).json
            assert best["index"] == digit
    finally:
        stop.set()
        for thread in threads:
            thread.join()
