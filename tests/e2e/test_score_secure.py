"""`accelserve score` with keys and TLS, on both protocols."""

import json

import numpy as np
import pytest
from secure_talk import KEYS, make_files, secure_server

from accelserve.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    with secure_server(tmp_path_factory.mktemp("server"), files) as found:
        yield found


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "row.json").write_text(json.dumps({"instances": [[1.5, 2.5]]}))
    np.save(tmp_path / "row.npy", np.float32([[1.5, 2.5]]))
    return tmp_path


def arguments(server, protocol: str, asked) -> list[str]:
    if protocol == "http":
        return ["score", "--url", server.http.replace("127.0.0.1", "localhost"), str(asked / "row.json")]
    return ["score", "--url", f"grpcs://{server.grpc}", str(asked / "row.npy")]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_with_roots_and_a_key_it_is_answered(server, files, asked, protocol, capsys):
    trust = ["--tls-roots", str(files.ca.cert), "--key-file", str(files.keys), "--top", "0", "--json"]
    assert main([*arguments(server, protocol, asked), *trust]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert np.ravel(file["answer"]).tolist() == [3.0, 5.0]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_wrong_key_ends_with_2_and_is_not_told(server, files, asked, protocol, capsys, monkeypatch):
    wrong = KEYS.primary[:-1] + "x"
    monkeypatch.setenv("ACCELSERVE_KEY", wrong)
    assert main([*arguments(server, protocol, asked), "--tls-roots", str(files.ca.cert)]) == 2
    said = capsys.readouterr()
    assert "--key-file" in said.err
    assert wrong not in said.out + said.err


def test_a_certificate_that_nobody_trusts_ends_with_2_and_the_remedy(server, files, asked, capsys):
    assert main([*arguments(server, "http", asked), "--key-file", str(files.keys)]) == 2
    assert "--tls-roots" in capsys.readouterr().err


def test_over_grpc_a_certificate_that_nobody_trusts_is_no_connection(server, files, asked, capsys):
    assert main([*arguments(server, "grpc", asked), "--key-file", str(files.keys)]) == 4
    assert "NO CONNECTION" in capsys.readouterr().err


def test_roots_for_an_address_without_tls_are_a_mistake(server, files, asked, capsys):
    plain = ["score", "--url", "http://127.0.0.1:1", "--tls-roots", str(files.ca.cert), str(asked / "row.json")]
    assert main(plain) == 2
    assert "https://" in capsys.readouterr().err
