"""The two keys of a deployed service: either is accepted, one at a time is replaced, and nobody else sees them."""

import io
import json
import ssl
import sys
from http.client import HTTPSConnection
from pathlib import Path

import grpc
import pytest
from local_services import Service, shop
from server_process import wait_until
from talk import Calls, ask, instances, row

from certificates import authority, signed

PREDICT = "/v1/models/m:predict"


@pytest.fixture
def opened(tmp_path, monkeypatch, capsys):
    with shop(tmp_path, monkeypatch, capsys) as made:
        yield made


@pytest.fixture
def service(opened):
    opened.register()
    opened.type("deploy numbers --model m --replicas 2 --wait --timeout 60")
    return Service(opened, "numbers")


def keys_of(service: Service) -> dict[str, str]:
    return json.loads(service.shop.type("services keys numbers --json"))


def status_with(service: Service, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return ask(service.address, PREDICT, instances((1, 3)), headers).status


def settles_at(service: Service, key: str, status: int) -> None:
    """Both replicas have seen it: many connections in a row agree."""
    wait_until(lambda: {status_with(service, key) for _ in range(8)} == {status})


def test_each_key_is_accepted_one_is_replaced_without_a_restart_and_a_third_is_refused(service):
    before, pids = keys_of(service), service.replicas
    for key in before.values():
        assert status_with(service, key) == 200
    assert status_with(service, "") == 401
    assert status_with(service, "x" * 43) == 401
    said = service.shop.type("services keys numbers --regenerate primary")
    after = keys_of(service)
    assert said == f"primary        {after['primary']}\nsecondary      {after['secondary']}\n"
    assert after["secondary"] == before["secondary"]
    assert after["primary"] != before["primary"]
    settles_at(service, before["primary"], 401)
    settles_at(service, after["primary"], 200)
    assert status_with(service, after["secondary"]) == 200
    assert service.replicas == pids
    with Calls(service.address) as calls:
        for key, code in ((after["primary"], None), (before["primary"], grpc.StatusCode.UNAUTHENTICATED)):
            metadata = (("authorization", f"Bearer {key}"),)
            call = calls.start("m", {"x": row(1, 3)}, metadata=metadata)
            assert (call.exception().code() if call.exception() else None) is code


def test_a_key_of_ones_own_comes_from_a_file_or_standard_input_and_is_checked(service, tmp_path, monkeypatch):
    own = "my-own-key-of-some-length"
    (tmp_path / "key").write_text(f"{own}\n")
    service.shop.type(f"services keys numbers --regenerate secondary --from {tmp_path}/key")
    assert keys_of(service)["secondary"] == own
    settles_at(service, own, 200)
    monkeypatch.setattr(sys, "stdin", io.StringIO("another-key-of-some-length\nand more\n"))
    service.shop.type("services keys numbers --regenerate primary --from -")
    assert keys_of(service)["primary"] == "another-key-of-some-length"
    for wrong in ("short", "", "with a blank in the middle"):
        (tmp_path / "key").write_text(wrong)
        said = service.shop.type(f"services keys numbers --regenerate secondary --from {tmp_path}/key", code=2)
        assert "a key is 16 to 512 visible ASCII characters" in said
        assert wrong == "" or wrong not in said
    assert keys_of(service)["secondary"] == own
    assert "--regenerate" in service.shop.type(f"services keys numbers --from {tmp_path}/key", code=2)
    assert "No such file" in service.shop.type("services keys numbers --regenerate primary --from nowhere", code=2)


def test_no_key_is_in_a_log_a_process_list_or_a_file_of_others(service):
    keys = keys_of(service).values()
    status_with(service, "x" * 43)
    assert (service.folder / "keys.json").stat().st_mode & 0o777 == 0o600
    assert service.folder.stat().st_mode & 0o777 == 0o700
    seen = [path.read_bytes() for path in service.folder.rglob("*") if path.is_file() and path.name != "keys.json"]
    for pid in (*service.replicas, service.status["supervisor"]):
        seen += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    seen.append(service.shop.type("services status numbers --json").encode())
    assert not any(key.encode() in content for key in keys for content in seen)


def test_keys_survive_an_update_and_may_be_done_without(service):
    before = keys_of(service)
    service.shop.type("deploy numbers --model m --overwrite --wait --timeout 60")
    assert keys_of(service) == before
    assert status_with(service, before["primary"]) == 200
    service.shop.type("services update numbers --auth none --wait --timeout 60")
    settles_at(service, "", 200)
    assert "asks for no keys" in service.shop.type("services keys numbers --regenerate primary", code=4)
    assert "none are asked for" in service.shop.type("services status numbers")


def test_a_damaged_key_file_is_told_of_without_what_is_in_it(service):
    path = service.folder / "keys.json"
    path.write_text('{"primary": "secret-secret-secret"}')
    said = service.shop.type("services keys numbers", code=5)
    assert str(path) in said
    assert "secret-secret" not in said
    assert "services update numbers --auth key makes two new keys" in said
    path.unlink()
    service.shop.type("services update numbers --auth key --wait --timeout 60")
    settles_at(service, keys_of(service)["secondary"], 200)


def test_a_service_with_a_certificate_is_reached_by_tls_and_one_without_a_usable_one_fails_with_2(opened, tmp_path):
    opened.register()
    ca = authority(tmp_path)
    pair = signed(ca, tmp_path)
    opened.type(f"deploy numbers --model m --tls-cert {pair.cert} --tls-key {pair.key} --wait --timeout 60")
    service = Service(opened, "numbers")
    assert service.status["scoring_uri"].startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(ca.cert))
    connection = HTTPSConnection("127.0.0.1", service.address.http_port, timeout=30, context=context)
    headers = {"authorization": f"Bearer {keys_of(service)['secondary']}"}
    connection.request("POST", "/api/v1/service/numbers/score", instances((1, 3)), headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, [[1, 3]])
    connection.close()
    (tmp_path / "no.pem").write_text("no certificate")
    said = opened.type(
        f"deploy others --model m --tls-cert {tmp_path}/no.pem --tls-key {pair.key} --wait --timeout 60", code=2
    )
    assert "no.pem" in said
    assert not (service.folder.parent / "others").exists()
    other = signed(ca, tmp_path, "other")
    said = opened.type(f"deploy others --model m --tls-cert {pair.cert} --tls-key {other.key}", code=2)
    assert str(other.key) in said
    pair.key.chmod(0o644)
    said = opened.type(f"deploy others --model m --tls-cert {pair.cert} --tls-key {pair.key}", code=2)
    assert "can be read by every user of this machine" in said
