"""Addresses and keys, as they are typed."""

import json

import pytest

from accelserve.config_sources import ConfigError
from accelserve.score_files.target import Target, checked_tls, parse_address, read_key

KEY = "Very0Secret0Key0"


@pytest.mark.parametrize(
    ("url", "grpc", "address"),
    [
        ("http://127.0.0.1:8501", False, ("http://127.0.0.1:8501", False, False)),
        ("http://127.0.0.1:8501/", False, ("http://127.0.0.1:8501", False, False)),
        ("http://h/score", False, ("http://h", False, False)),
        ("https://h/api/v1/service/rn/score", False, ("https://h/api/v1/service/rn", False, True)),
        ("127.0.0.1:8500", True, ("127.0.0.1:8500", True, False)),
        ("grpc://h:8500", False, ("h:8500", True, False)),
        ("grpcs://h:8500", False, ("h:8500", True, True)),
        ("[::1]:8500", True, ("[::1]:8500", True, False)),
    ],
)
def test_an_address_is_the_servers_or_the_services(url, grpc, address):
    assert parse_address(url, grpc) == address


@pytest.mark.parametrize(
    ("url", "grpc"),
    [
        ("", False),
        ("127.0.0.1:8501", False),
        ("ftp://h", False),
        ("http://", False),
        ("http://h:port", False),
        ("http://h:99999", False),
        ("http://user:key@h", False),
        ("http://h/score?top=1", False),
        ("h", True),
        ("http://h:80", True),
        ("h:8500/path", True),
    ],
)
def test_what_is_no_address_is_refused(url, grpc):
    with pytest.raises(ValueError, match=r"want|port|key"):
        parse_address(url, grpc)


def test_a_key_is_read_from_its_file_else_from_the_environment(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key(file, {"ACCELSERVE_KEY": "other"}) == KEY
    assert read_key(None, {"ACCELSERVE_KEY": KEY}) == KEY
    assert read_key(None, {}) == ""


def test_of_a_services_keys_the_primary_is_taken(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"primary": KEY, "secondary": "b"}))
    assert read_key(file, {}) == KEY


@pytest.mark.parametrize("content", ["", "two words", f"{KEY}\n{KEY}", "{}", "{", '{"primary": 5}', "ключ", "x" * 5000])
def test_what_is_no_key_is_refused_without_being_told(tmp_path, content):
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        read_key(file, {})
    assert KEY not in str(refused.value.problems)
    assert "xxx" not in str(refused.value.problems)


def test_a_key_that_is_typed_instead_of_a_file_is_not_repeated(tmp_path):
    with pytest.raises(ConfigError) as refused:
        read_key(tmp_path / KEY, {})
    assert KEY not in str(refused.value.problems)


def test_no_repr_shows_the_key():
    assert KEY not in repr(Target("http://h", key=KEY))


def test_files_of_tls_that_cannot_be_used_are_errors_of_usage(tmp_path):
    (tmp_path / "bad.pem").write_text("no certificate")
    for files in ((tmp_path / "none", None, None), (tmp_path / "bad.pem", None, None), (None, tmp_path / "none", None)):
        with pytest.raises(ConfigError, match="--tls"):
            checked_tls(*files)
