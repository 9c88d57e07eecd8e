"""TLS on both protocols: large bodies, certificates that change under load, clients that misbehave, the end."""

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from plain_http import check_log
from secure_talk import (
    KEYS,
    PREDICT,
    SecureConnection,
    bearer,
    double,
    make_files,
    secure_channel,
    secure_server,
)
from server_process import run_to_end, wait_until
from talk import PATIENCE_S, instances, outputs_of, request_bytes, row

from accelserve.client import Client, ClientTls, GrpcClient
from accelserve.codecs.tfserving_proto import encode_predict_request
from accelserve.keys import replace_key
from accelserve.messages import ModelRef
from certificates import authority, signed

BODY = instances((1, 2))
WIDE = 200_000  # columns: a row is 1.6 MB as JSON
ASKED = encode_predict_request(ModelRef("m"), "", {"x": row(1, 2)})
METHOD = "/tensorflow.serving.PredictionService/Predict"
METADATA = tuple(bearer().items())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    with secure_server(tmp_path_factory.mktemp("server"), files, "--read-timeout", "2") as found:
        yield found
        check_log(found)


def test_both_protocols_speak_tls_and_say_so(server, files):
    assert server.http.startswith("https://")
    assert "(gRPC, TLS)" in server.ready
    with Client(server.http, key=KEYS.primary, tls=files.tls) as client:
        assert client.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[2.0, 4.0]]
    with GrpcClient(server.grpc, key=KEYS.primary, tls=files.tls) as calls:
        assert calls.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[2.0, 4.0]]


def test_who_does_not_trust_the_authority_does_not_speak(server):
    with Client(server.http, key=KEYS.primary) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.score(b"x")


def test_an_answer_over_tls_is_the_same_and_its_connection_is_kept(server, files):
    with SecureConnection(server, files.tls) as connection:
        statuses = [connection.ask(PREDICT, BODY, headers).status for headers in (bearer(), {}, bearer(), bearer())]
        assert statuses == [200, 401, 200, 200]
        assert connection.socket.version() == "TLSv1.3"


def test_large_bodies_and_answers_arrive_whole(files, tmp_path):
    values = np.arange(WIDE, dtype=np.float32) / 8
    body = b'{"instances": [%b]}' % str(values.tolist()).encode()
    with secure_server(tmp_path, files, columns=WIDE) as server, SecureConnection(server, files.tls) as connection:
        for _ in range(3):  # the second and third by a head that is known, received in place
            answer = connection.ask(PREDICT, body, bearer())
            assert answer.status == 200
            assert np.array_equal(np.float32(answer.json["predictions"][0]), values * 2)
        with secure_channel(server, files.tls) as channel:
            asked = encode_predict_request(ModelRef("m"), "", {"x": values[np.newaxis]})
            limits = channel.unary_unary(METHOD)
            answer = outputs_of(limits(asked, timeout=30, metadata=METADATA))["y"][0]
            assert np.array_equal(answer, values * 2)
        check_books_over_tls(server, files)


def check_books_over_tls(server, files) -> None:
    """Every request that was received ended once."""
    wait_until(lambda: _sum(server, files, "received_total") == _sum(server, files, "total"))


def _sum(server, files, what: str) -> float:
    with SecureConnection(server, files.tls) as connection:
        page = connection.ask("/metrics").body.decode()
    return sum(
        float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"accelserve_requests_{what}{{")
    )


def test_plain_http_and_nonsense_at_the_port_hurt_nobody(server, files):
    for sent in (
        request_bytes(PREDICT, BODY),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"\0" * 100,
        b"",
    ):
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            read = b"x"
            while read:
                try:
                    read = client.recv(65536)
                except ConnectionResetError:
                    break
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(METHOD)(ASKED, timeout=5, metadata=METADATA)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    with SecureConnection(server, files.tls) as connection:
        assert connection.ask(PREDICT, BODY, bearer()).status == 200


def test_who_forgets_the_s_of_https_is_told_so(server):
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S) as client:
        client.sendall(request_bytes(PREDICT, BODY))
        told = client.recv(65536)
    assert told.startswith(b"HTTP/1.1 400")
    assert b"this port speaks TLS" in told


def test_handshakes_that_never_end_are_ended_and_nobody_waits_for_them(server, files):
    waiting = [socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S) for _ in range(200)]
    try:
        for number, client in enumerate(waiting):
            client.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
        begun = time.monotonic()
        with SecureConnection(server, files.tls) as connection:
            assert connection.ask(PREDICT, BODY, bearer()).status == 200
        assert time.monotonic() - begun < 2.0
        for client in waiting:
            assert ended(client)
    finally:
        for client in waiting:
            client.close()


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_client_cannot_renegotiate(server, files):
    context = files.tls.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    plain = socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(request_bytes(PREDICT, BODY, bearer()))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert client.version() == "TLSv1.2"


def test_a_certificate_is_replaced_under_load_and_no_request_is_lost(files, tmp_path):
    ca = authority(tmp_path)
    pair, other = signed(ca, tmp_path, "before"), signed(ca, tmp_path, "after", "rsa")
    tls = ClientTls(roots=ca.cert)
    own = type(files)(files.keys, pair, ca)
    stop, faults, names, kept = threading.Event(), [], set(), []

    def run(ask_once) -> None:
        while not stop.is_set():
            try:
                ask_once()
            except Exception as error:
                faults.append(repr(error))
                return

    with secure_server(tmp_path, own) as server:

        def anew() -> None:
            with SecureConnection(server, tls) as connection:
                names.add(connection.server_name)
                assert connection.ask(PREDICT, BODY, bearer()).status == 200

        def anew_over_grpc() -> None:
            with secure_channel(server, tls) as channel:
                assert channel.unary_unary(METHOD)(ASKED, timeout=10, metadata=METADATA)

        connection = SecureConnection(server, tls)

        def on_a_kept_one() -> None:
            assert connection.ask(PREDICT, BODY, bearer()).status == 200
            kept.append(connection.server_name)

        with ThreadPoolExecutor(4) as pool:
            try:
                for work in (anew, anew, anew_over_grpc, on_a_kept_one):
                    pool.submit(run, work)
                wait_until(lambda: names == {"before"} or faults)
                pair.key.write_bytes(other.key.read_bytes())  # one after the other, as tools do
                pair.cert.write_bytes(other.cert.read_bytes())
                wait_until(lambda: "after" in names or faults)
                wait_until(lambda: grpc_name(server, tls) == "after")
            finally:
                stop.set()
        connection.close()
        assert not faults
        assert set(kept) == {"before"}
        check_log(server)


def grpc_name(server, tls: ClientTls) -> str:
    """What the certificate at gRPC's port calls it."""
    host, _, port = server.grpc.rpartition(":")
    context = tls.context()
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        return dict(pair[0] for pair in client.getpeercert()["subject"])["commonName"]


def test_client_certificates_are_asked_for_on_both_protocols(files, tmp_path):
    clients = authority(tmp_path, "clients")
    friend, stranger = (
        signed(clients, tmp_path, "friend"),
        signed(authority(tmp_path, "strangers"), tmp_path, "stranger"),
    )
    with secure_server(tmp_path, files, "--tls-client-ca", clients.cert) as server:
        known = ClientTls(files.ca.cert, friend.cert, friend.key)
        with SecureConnection(server, known) as connection:
            assert connection.ask(PREDICT, BODY, bearer()).status == 200
            assert connection.ask(PREDICT, BODY).status == 401
        with secure_channel(server, known) as channel:
            assert channel.unary_unary(METHOD)(ASKED, timeout=10, metadata=METADATA)
        for unknown in (files.tls, ClientTls(files.ca.cert, stranger.cert, stranger.key)):
            with pytest.raises((ssl.SSLError, ConnectionError)), SecureConnection(server, unknown) as connection:
                connection.ask(PREDICT, BODY, bearer())
            with secure_channel(server, unknown) as channel, pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(METHOD)(ASKED, timeout=5, metadata=METADATA)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_end_comes_soon_though_clients_keep_their_connections(files, tmp_path):
    with secure_server(tmp_path, files) as server:
        kept = [SecureConnection(server, files.tls) for _ in range(5)]
        for connection in kept:
            assert connection.ask(PREDICT, BODY, bearer()).status == 200
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 10.0
        for connection in kept:
            connection.close()
        check_log(server)


def test_sigterm_under_load_loses_no_request(files, tmp_path):
    stop, faults, answers = threading.Event(), [], []

    def run() -> None:
        while not stop.is_set():
            try:
                with SecureConnection(server, files.tls) as connection:
                    ask_until_closed(connection)
            except (ConnectionRefusedError, ssl.SSLError, ConnectionResetError, TimeoutError) as error:
                if begun_to_ask.__dict__.get(threading.get_ident()):
                    faults.append(repr(error))
                return

    begun_to_ask = type("Asking", (), {})()

    def ask_until_closed(connection: SecureConnection) -> None:
        while True:
            begun_to_ask.__dict__[threading.get_ident()] = True
            answer = connection.ask(PREDICT, BODY, bearer())
            begun_to_ask.__dict__[threading.get_ident()] = False
            answers.append(answer.status)
            if answer.headers.get("connection") == "close":
                return

    with secure_server(tmp_path, files, "--grace-period", "1", settings="delay_ms = 5") as server:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(run)
            wait_until(lambda: len(answers) > 100)
            assert server.stop() == 0
            stop.set()
        assert not faults
        assert set(answers) == {200}


def test_a_slow_reader_gets_all_of_its_last_answer(files, tmp_path):
    body = b'{"instances": [%b]}' % str([0.125] * WIDE).encode()
    headers = {**bearer(), "connection": "close"}
    with secure_server(tmp_path, files, columns=WIDE) as server, socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(PATIENCE_S)
        plain.connect(("127.0.0.1", server.http_port))
        with files.tls.context().wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(request_bytes(PREDICT, body, headers))
            data = client.recv(1000)
            until = time.monotonic() + 4.0  # longer than any wait for a goodbye
            while time.monotonic() < until:
                data += client.recv(1000)
                threading.Event().wait(0.02)
            while part := client.recv(65536):
                data += part
    head, _, content = data.partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}".encode() in head


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: ["--tls-cert", f.pair.cert], "--tls-cert without --tls-key"),
        (lambda f: ["--tls-key", f.pair.key], "--tls-key without --tls-cert"),
        (lambda f: ["--tls-client-ca", f.ca.cert], "--tls-client-ca without --tls-cert"),
        (lambda f: ["--auth-everywhere"], "--auth-everywhere without --auth-keys"),
        (lambda f: ["--tls-cert", f.pair.cert, "--tls-key", f.ca.key], "does not belong to"),
        (lambda f: ["--tls-cert", f.pair.cert, "--tls-key", "gone.pem"], "gone.pem: No such file"),
    ],
    ids=range(6),
)
def test_what_is_wrong_at_the_start_is_named_and_ends_with_2(files, tmp_path, change, told):
    assert run_to_end([f"--model=m={double(tmp_path)}", *change(files)], tmp_path / "log") == 2
    assert told in (tmp_path / "log").read_text()


def test_an_expired_certificate_is_served_with_a_warning(tmp_path, files):
    old = signed(authority(tmp_path), tmp_path, days=("20200101000000Z", "20210101000000Z"))
    with secure_server(tmp_path, type(files)(files.keys, old, files.ca)) as server:
        assert "has expired" in server.log.read_text()


def test_a_certificate_that_windows_wrote_serves_both_ports(tmp_path, files):
    pair = signed(files.ca, tmp_path)
    text = pair.cert.read_text().replace("\n", "\r\n")
    pair.cert.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with secure_server(tmp_path, type(files)(files.keys, pair, files.ca)) as server:
        for client in (Client, GrpcClient):
            with client(server.http if client is Client else server.grpc, key=KEYS.primary, tls=files.tls) as asking:
                assert asking.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[2.0, 4.0]]


def test_keys_change_in_the_middle_of_requests_and_each_is_answered_once(files, tmp_path):
    own = make_files(tmp_path)
    with secure_server(tmp_path, own, settings="delay_ms = 2") as server:
        stop, told = threading.Event(), []

        def run() -> None:
            with SecureConnection(server, own.tls) as connection:
                while not stop.is_set():
                    told.append(connection.ask(PREDICT, BODY, bearer()).status)

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(run)
            wait_until(lambda: told.count(200) > 50)
            replace_key(own.keys, "primary")
            wait_until(lambda: told.count(401) > 50)
            stop.set()
        assert set(told) == {200, 401}
        assert told[told.index(401) :].count(200) <= 4  # each had one under way that was let in before
        check_books_over_tls(server, own)
