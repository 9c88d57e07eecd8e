"""Keys over both protocols: every spelling, every path, rotation without a restart, and that no key is shown."""

import os
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from plain_http import check_books, check_log
from secure_talk import KEYS, PREDICT, bearer, double
from server_process import run_to_end, serving, wait_until
from talk import Calls, Connection, Scrape, ask, instances, outputs_of, row

from accelserve.client import Client, GrpcClient, ServerError
from accelserve.keys import read_keys, replace_key, write_keys

BODY = instances((1, 2))
HEALTH, REFLECT = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OPEN = ("/healthz", "/readyz", "/readyz/m", "/metrics")
CLOSED = ("/v1/models", "/v1/models/m", "/v1/models/m/metadata", "/docs", "/swagger.json", "/nothing", "/")
# What the accel clients of Azure ML send (each of them), and what anybody may.
GOOD = ("Bearer {}", "bearer {}", "{}", "BEARER  {}")
BAD = ("Bearer ", "Bearer", "Bearer wrong-wrong-wrong-wrong", "wrong-wrong-wrong-wrong", "Basic {}", "Bearer {}x", "")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(path, KEYS)
    return path


@pytest.fixture(scope="module")
def server(keys):
    arguments = (f"--model=m={double(keys.parent)}", "--auth-keys", keys, "--log-level", "debug")
    with serving(*arguments, log=keys.parent / "log") as found:
        yield found
        check_books(found)
        check_log(found)
        log = found.log.read_text()
        assert not any(key in log for key in (KEYS.primary, KEYS.secondary))


def code_of(call) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code().name


def predict(server, *metadata: tuple[str, str]):
    with Calls(server) as calls:
        return outputs_of(calls.start("m", {"x": row(1, 2)}, metadata=metadata).result())["y"].tolist()


@pytest.mark.parametrize("key", [KEYS.primary, KEYS.secondary])
@pytest.mark.parametrize("spelling", GOOD)
def test_each_spelling_of_either_key_is_answered_on_both_protocols(server, key, spelling):
    sent = {"authorization": spelling.format(key)}
    assert ask(server, PREDICT, BODY, sent).json == {"predictions": [[2.0, 4.0]]}
    assert predict(server, *sent.items()) == [[2.0, 4.0]]


@pytest.mark.parametrize("spelling", BAD)
def test_anything_else_is_unauthenticated_on_both_protocols(server, spelling):
    sent = {"authorization": spelling.format(KEYS.primary)}
    before = Scrape(server)
    answer = ask(server, PREDICT, BODY, sent)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert code_of(lambda: predict(server, *sent.items())) == "UNAUTHENTICATED"
    for protocol in ("http", "grpc"):
        labels = {"protocol": protocol, "outcome": "refused", "reason": "unauthenticated"}
        name = "accelserve_requests_total"
        assert Scrape(server).sum(name, **labels) == before.sum(name, **labels) + 1


def test_nothing_sent_is_unauthenticated(server):
    assert ask(server, PREDICT, BODY).status == 401
    assert code_of(lambda: predict(server)) == "UNAUTHENTICATED"
    sent = (("authorization", f"Bearer {KEYS.primary}"), ("authorization", f"Bearer {KEYS.secondary}"))
    assert code_of(lambda: predict(server, *sent)) == "UNAUTHENTICATED"


def test_every_path_but_those_of_probes_wants_a_key(server):
    assert [ask(server, path).status for path in OPEN] == [200] * len(OPEN)
    assert [ask(server, path).status for path in CLOSED] == [401] * len(CLOSED)
    with_key = [ask(server, path, headers=bearer()).status for path in CLOSED]
    assert with_key == [200] * (len(CLOSED) - 2) + [404] * 2


def test_health_over_grpc_wants_none_and_everything_else_does(server):
    with grpc.insecure_channel(server.grpc) as channel:
        health = channel.unary_unary(HEALTH)(b"", timeout=10)
        assert health_pb2.HealthCheckResponse.FromString(health).status == health_pb2.HealthCheckResponse.SERVING
        asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        reflect = channel.stream_stream(REFLECT)
        assert code_of(lambda: list(reflect(iter([asked]), timeout=10))) == "UNAUTHENTICATED"
        metadata = tuple(bearer().items())
        assert list(reflect(iter([asked]), timeout=10, metadata=metadata))
        for path in ("/tensorflow.serving.ModelService/GetModelStatus", "/no.such.Service/Method"):
            assert code_of(lambda path=path: channel.unary_unary(path)(b"", timeout=10)) == "UNAUTHENTICATED"
        unknown = channel.unary_unary("/no.such.Service/Method")
        assert code_of(lambda: unknown(b"", timeout=10, metadata=metadata)) == "UNIMPLEMENTED"


def test_our_clients_show_a_key(server):
    with Client(server.http, key=KEYS.primary) as client, GrpcClient(server.grpc, key=KEYS.secondary) as calls:
        assert client.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[2.0, 4.0]]
        assert calls.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[2.0, 4.0]]
    with Client(server.http) as client, pytest.raises(ServerError, match="401"):
        client.predict({"x": [[1.0, 2.0]]})
    with GrpcClient(server.grpc, key="wrong-wrong-wrong") as calls, pytest.raises(ServerError, match="UNAUTHENTICATED"):
        calls.predict({"x": [[1.0, 2.0]]})


def test_a_large_body_without_a_key_is_refused_before_it_is_sent(server):
    with Connection(server.http_port) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n"
        connection.socket.sendall(head.encode())
        answer = connection.read()
    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_no_key_is_in_the_process_list_or_on_the_metrics_page(server):
    assert KEYS.primary.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    page = ask(server, "/metrics").body.decode()
    assert KEYS.primary not in page
    assert "wrong-wrong" not in page


def test_rotating_one_key_at_a_time_needs_no_restart_and_loses_nobody(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)
    with serving(f"--model=m={double(tmp_path)}", "--auth-keys", path, log=tmp_path / "log") as server:
        with Connection(server.http_port) as first, Connection(server.http_port) as second, Calls(server) as calls:

            def status(connection: Connection, key: str) -> int:
                return connection.ask(PREDICT, BODY, bearer(key)).status

            def over_grpc(key: str) -> str:
                call = calls.start("m", {"x": row(1, 2)}, metadata=tuple(bearer(key).items()))
                return call.code().name

            assert [status(first, KEYS.primary) for _ in range(3)] == [200] * 3
            new = replace_key(path, "primary")
            wait_until(lambda: status(first, KEYS.primary) == 401)
            for connection in (first, second):
                told = [status(connection, key) for key in (new.primary, KEYS.secondary, KEYS.primary)]
                assert told == [200, 200, 401]
            assert [over_grpc(k) for k in (new.primary, KEYS.secondary)] == ["OK", "OK"]
            assert over_grpc(KEYS.primary) == "UNAUTHENTICATED"
            newest = replace_key(path, "secondary")
            wait_until(lambda: status(first, KEYS.secondary) == 401)
            assert status(second, newest.secondary) == status(second, newest.primary) == 200
        check_books(server)


def test_a_key_file_that_is_gone_or_broken_leaves_the_keys_in_force(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)
    with serving(f"--model=m={double(tmp_path)}", "--auth-keys", path, log=tmp_path / "log") as server:
        path.unlink()
        wait_until(lambda: "stays in force" in server.log.read_text())
        assert ask(server, PREDICT, BODY, bearer()).status == 200
        path.write_text('{"primary": "half')
        wait_until(lambda: server.log.read_text().count("stays in force") == 2)
        assert ask(server, PREDICT, BODY, bearer()).status == 200
        assert "half" not in server.log.read_text()
        new = replace_key_in_place(path)
        wait_until(lambda: ask(server, PREDICT, BODY, bearer(new)).status == 200)
        assert ask(server, PREDICT, BODY, bearer()).status == 401


def replace_key_in_place(path) -> str:
    """As an editor does that keeps the file."""
    path.write_text('{"primary": "the-primary-of-another-time", "secondary": "the-secondary-of-another-time"}')
    return "the-primary-of-another-time"


def test_everywhere_asks_probes_too(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)
    arguments = (f"--model=m={double(tmp_path)}", "--auth-keys", path, "--auth-everywhere")
    with serving(*arguments, log=tmp_path / "log") as server:
        assert [ask(server, each).status for each in OPEN] == [401] * len(OPEN)
        assert [ask(server, each, headers=bearer()).status for each in OPEN] == [200] * len(OPEN)
        with grpc.insecure_channel(server.grpc) as channel:
            assert code_of(lambda: channel.unary_unary(HEALTH)(b"", timeout=10)) == "UNAUTHENTICATED"
            assert channel.unary_unary(HEALTH)(b"", timeout=10, metadata=tuple(bearer().items()))


def test_without_keys_the_header_is_ignored(tmp_path):
    with serving(f"--model=m={double(tmp_path)}", log=tmp_path / "log") as server:
        for sent in ("", "Bearer ", "Bearer anything", "nonsense"):
            assert ask(server, PREDICT, BODY, {"authorization": sent}).status == 200
            assert predict(server, ("authorization", sent)) == [[2.0, 4.0]]


def test_keys_off_loopback_without_tls_are_warned_of_loudly(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)
    arguments = (f"--model=m={double(tmp_path)}", "--auth-keys", path, "--host", "0.0.0.0")
    with serving(*arguments, log=tmp_path / "log") as server:
        assert "KEYS TRAVEL IN PLAIN TEXT" in server.log.read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "No such file"), ("{}", "want JSON"), ('{"primary": "x", "secondary": "y"}', "primary: want JSON")],
)
def test_a_key_file_that_cannot_be_used_ends_the_start_with_2(tmp_path, content, told):
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    assert run_to_end([f"--model=m={double(tmp_path)}", "--auth-keys", path], tmp_path / "log") == 2
    assert told in (tmp_path / "log").read_text()


def test_the_documented_line_makes_a_key_file_for_its_owner_alone(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith(("umask", "printf"))]
    subprocess.run(["bash", "-ec", "\n".join(lines)], cwd=tmp_path, timeout=30, check=True)
    keys = read_keys(tmp_path / "keys.json")
    assert keys.primary != keys.secondary
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_curl_is_answered_as_the_documentation_says(server):
    command = ["curl", "-s", "-H", f"Authorization: Bearer {KEYS.primary}", "--data-binary", BODY.decode()]
    done = subprocess.run([*command, f"{server.http}{PREDICT}"], capture_output=True, timeout=30, env=os.environ)
    assert b"predictions" in done.stdout
