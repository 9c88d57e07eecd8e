"""Keys and TLS as a configuration asks for them, and files that change while the server runs."""

import asyncio
import logging
from dataclasses import replace

import pytest

from accelserve.config import ServerConfig
from accelserve.config_sources import ConfigError
from accelserve.frontends.security import is_loopback, open_security
from accelserve.keys import Keys, replace_key, write_keys, write_new_keys
from certificates import authority, signed

KEYS = Keys("primary-primary-primary", "secondary-secondary-secondary")


@pytest.fixture
def config(tmp_path) -> ServerConfig:
    write_keys(tmp_path / "keys.json", KEYS)
    return ServerConfig(auth_keys=str(tmp_path / "keys.json"))


def lets_in(security, key: str, path: str = "/score") -> bool:
    return security.http_guard.refusal(path, f"Bearer {key}") is None


def look(security) -> None:
    async def main():
        for followed in security.followed:
            await followed.look()

    asyncio.run(main())


def test_nothing_asked_for_is_nothing_to_follow():
    security = open_security(ServerConfig())
    assert (security.http_guard, security.grpc_guard, security.tls) == (None, None, None)
    asyncio.run(asyncio.wait_for(security.follow(), 1))


def test_a_replaced_key_is_in_force_on_both_protocols_after_the_next_look(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    security = open_security(config)
    after = replace_key(tmp_path / "keys.json", "primary")
    assert lets_in(security, KEYS.primary)
    look(security)
    assert [lets_in(security, key) for key in (KEYS.primary, after.primary, KEYS.secondary)] == [False, True, True]
    assert security.grpc_guard.refusal("/x/Y", f"Bearer {after.primary}") is None
    assert security.grpc_guard.refusal("/x/Y", f"Bearer {KEYS.primary}") is not None
    assert "have changed" in caplog.text
    assert not any(key in caplog.text for key in (*vars_of(KEYS), *vars_of(after)))


def vars_of(keys: Keys) -> tuple[str, str]:
    return keys.primary, keys.secondary


@pytest.mark.parametrize("content", [None, "{", "", '{"primary": "short", "secondary": "short"}'])
def test_a_file_that_goes_wrong_leaves_the_old_keys_in_force_and_is_told_once(config, tmp_path, caplog, content):
    security = open_security(config)
    path = tmp_path / "keys.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    look(security)
    assert not caplog.records  # it may be in the middle of being replaced
    for _ in range(5):
        look(security)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "stays in force" in caplog.text
    assert "short" not in caplog.text
    assert [(gauge.labels, gauge.value) for gauge in security.gauges()] == [({"option": "--auth-keys"}, 1)]
    assert lets_in(security, KEYS.primary)
    write_new_keys(path)
    look(security)
    assert "can be read again" in caplog.text
    assert [gauge.value for gauge in security.gauges()] == [0]
    assert not lets_in(security, KEYS.primary)


def test_a_fault_of_ours_does_not_end_the_looking(config, tmp_path, caplog, monkeypatch):
    security = open_security(config)
    with monkeypatch.context() as patched:
        patched.setattr("accelserve.frontends.security.read_keys", lambda path: 1 / 0)
        look(security)
    assert "could not be looked at" in caplog.text
    write_new_keys(tmp_path / "keys.json")
    look(security)
    assert not lets_in(security, KEYS.primary)


def test_the_same_content_written_again_is_no_change(config, tmp_path):
    security = open_security(config)
    before = security.http_guard.version
    write_keys(tmp_path / "keys.json", KEYS)
    look(security)
    assert security.http_guard.version == before


def test_the_servers_own_key_is_accepted_whatever_becomes_of_the_file(config, tmp_path):
    security = open_security(config, internal_key="internal-internal-internal")
    write_new_keys(tmp_path / "keys.json")
    look(security)
    assert lets_in(security, "internal-internal-internal")


def test_everywhere_closes_the_paths_of_probes(config):
    assert open_security(config).http_guard.refusal("/healthz", None) is None
    security = open_security(replace(config, auth_everywhere=True))
    assert security.http_guard.refusal("/healthz", None) is not None
    assert security.grpc_guard.refusal("/grpc.health.v1.Health/Check", None) is not None


def test_every_problem_is_told_at_once(tmp_path):
    wrong = ServerConfig(
        auth_keys=str(tmp_path / "gone.json"), tls_cert=str(tmp_path / "gone.pem"), tls_key=str(tmp_path / "gone.key")
    )
    with pytest.raises(ConfigError) as raised:
        open_security(wrong)
    assert len(raised.value.problems) == 2


def test_a_key_file_for_all_to_read_is_warned_of_and_strict_refuses_it(config, tmp_path, caplog):
    (tmp_path / "keys.json").chmod(0o644)
    open_security(config)
    assert f"chmod 600 {tmp_path / 'keys.json'}" in caplog.text
    with pytest.raises(ConfigError, match="can be read by every user"):
        open_security(replace(config, strict=True))


def test_a_new_key_file_for_all_to_read_is_warned_of_too(config, tmp_path, caplog):
    security = open_security(config)
    write_new_keys(tmp_path / "keys.json")
    (tmp_path / "keys.json").chmod(0o644)
    look(security)
    assert f"chmod 600 {tmp_path / 'keys.json'}" in caplog.text


@pytest.mark.parametrize(
    ("host", "loud"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True), ("10.0.0.1", True)],
)
def test_keys_in_plain_text_beyond_this_machine_are_warned_of(config, caplog, host, loud):
    open_security(replace(config, host=host, strict=True))
    assert ("KEYS TRAVEL IN PLAIN TEXT" in caplog.text) is loud
    assert is_loopback(host) is not loud


def test_a_new_certificate_is_in_force_after_the_next_look_and_half_of_it_is_not(tmp_path, caplog):
    ca = authority(tmp_path)
    pair, other = signed(ca, tmp_path), signed(ca, tmp_path, "other")
    config = ServerConfig(host="0.0.0.0", tls_cert=str(pair.cert), tls_key=str(pair.key))
    security = open_security(config)
    first = security.tls.identity
    look(security)
    assert security.tls.identity is first
    pair.cert.write_bytes(other.cert.read_bytes())
    look(security)
    assert security.tls.identity is first
    pair.key.write_bytes(other.key.read_bytes())
    look(security)
    assert security.tls.identity.cert == other.cert.read_bytes()
    assert not caplog.records


def test_an_expired_certificate_is_a_warning_and_its_date_a_metric(tmp_path, caplog):
    pair = signed(authority(tmp_path), tmp_path, days=("20200101000000Z", "20210101000000Z"))
    security = open_security(ServerConfig(tls_cert=str(pair.cert), tls_key=str(pair.key)))
    assert "has expired" in caplog.text
    told = {gauge.name: gauge.value for gauge in security.gauges()}
    assert told["accelserve_tls_certificate_not_after_seconds"] == 1609459200


def test_a_key_that_clients_of_grpc_refuse_is_a_warning(tmp_path, caplog):
    pair = signed(authority(tmp_path), tmp_path, kind="ed25519")
    open_security(ServerConfig(tls_cert=str(pair.cert), tls_key=str(pair.key)))
    assert "has a Ed25519 key" in caplog.text


def test_whoever_follows_the_key_file_keeps_no_key(config):
    (followed,) = open_security(config).followed
    kept = repr(vars(followed)) + repr(followed._last)
    assert not any(key in kept for key in vars_of(KEYS))
    assert not any(isinstance(value, Keys) for value in vars(followed).values())
