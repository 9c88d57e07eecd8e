"""Entry scripts behind keys and TLS: in `serve`, where a script asks the server's models, and as azmlinfsrv."""

from contextlib import ExitStack

import pytest
from azml_process import azml_serving, start_azml
from plain_http import check_log
from secure_talk import KEYS, SecureConnection, bearer, make_files, secure_server
from server_process import end, wait_until
from talk import Connection, ask, request_bytes

from accelserve.keys import replace_key

ASKS_A_MODEL = """
import json
import accelserve

def init():
    pass

def run(raw_data):
    return accelserve.score("m", {"x": json.loads(raw_data)})["y"].tolist()
"""
TELLS_HEADERS = """
def init():
    print("started")

def run(raw_data, request_headers):
    return request_headers.get("Authorization")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


def test_a_script_asks_the_servers_models_whatever_keys_are_in_force(tmp_path):
    files, script = make_files(tmp_path), tmp_path / "score.py"
    script.write_text(ASKS_A_MODEL)
    with secure_server(tmp_path, files, "--entry-script", script) as server:
        with SecureConnection(server, files.tls) as connection:
            assert connection.ask("/score", b"[[1.0, 2.0]]", bearer()).json == [[2.0, 4.0]]
            assert connection.ask("/score", b"[[1.0, 2.0]]").status == 401
            new = replace_key(files.keys, "primary")
            wait_until(lambda: connection.ask("/score", b"[[1.0, 2.0]]", bearer()).status == 401)
            assert connection.ask("/score", b"[[3.0, 4.0]]", bearer(new.primary)).json == [[6.0, 8.0]]
        check_log(server)
        assert not any(key in server.log.read_text() for key in (KEYS.primary, KEYS.secondary, new.primary))


def test_azmlinfsrv_asks_for_keys_and_answers_its_health_without_one(files, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(TELLS_HEADERS)
    with azml_serving(script, "--auth-keys", files.keys, log=tmp_path / "log") as server:
        assert ask(server, "/").body == b"Healthy"
        assert [ask(server, path).status for path in ("/score", "/swagger.json", "/nothing")] == [401] * 3
        answer = ask(server, "/score", b"{}")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert ask(server, "/score", b"{}", bearer()).json == f"Bearer {KEYS.primary}"
        assert ask(server, "/swagger.json", headers=bearer(KEYS.secondary)).status == 200
    with azml_serving(script, "--auth-keys", files.keys, "--auth-everywhere", log=tmp_path / "log") as server:
        assert ask(server, "/").status == 401
        assert ask(server, "/", headers=bearer()).body == b"Healthy"


def test_a_browser_may_ask_whether_a_page_may_send_a_key(files, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(TELLS_HEADERS)
    preflight = {"origin": "http://page", "access-control-request-method": "POST"}
    for strict in ((), ("--strict-compat",)):
        cors = ("--access_control_allow_origins", "http://page")
        with azml_serving(script, "--auth-keys", files.keys, *cors, *strict, log=tmp_path / "log") as server:
            with Connection(server.http_port) as connection:
                connection.socket.sendall(request_bytes("/score", None, preflight, "OPTIONS"))
                answer = connection.read()
            if strict:  # the script may get it
                assert answer.status == 401
            else:
                assert answer.status < 300
                assert answer.headers["access-control-allow-origin"] == "http://page"
            assert ask(server, "/score", b"{}").status == 401


def test_azmlinfsrv_speaks_tls(files, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(TELLS_HEADERS)
    secured = ("--auth-keys", files.keys, "--tls-cert", files.pair.cert, "--tls-key", files.pair.key)
    with azml_serving(script, *secured, log=tmp_path / "log") as server:
        assert server.http.startswith("https://")
        with SecureConnection(server, files.tls) as connection:
            assert [connection.ask("/score", b"{}", bearer()).status for _ in range(3)] == [200] * 3
            assert connection.ask("/score", b"{}").status == 401


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key", "--auth-keys"])
def test_azmlinfsrv_names_what_is_wrong_with_them_and_ends_with_2(files, tmp_path, option):
    (tmp_path / "score.py").write_text(TELLS_HEADERS)
    process = start_azml(["--entry_script", tmp_path / "score.py", option, tmp_path / "gone"], tmp_path / "log")
    try:
        assert process.wait(60) == 2
    finally:
        end(process)
    assert option in (tmp_path / "log").read_text()


def test_the_models_of_a_server_with_a_script_want_a_key_too(files, tmp_path):
    (tmp_path / "score.py").write_text(TELLS_HEADERS)
    with ExitStack() as stack:
        server = stack.enter_context(secure_server(tmp_path, files, "--entry-script", tmp_path / "score.py"))
        connection = stack.enter_context(SecureConnection(server, files.tls))
        told = [connection.ask("/v1/models/m:predict", b'{"instances": [[1, 2]]}', h) for h in ({}, bearer())]
        assert [answer.status for answer in told] == [401, 200]
