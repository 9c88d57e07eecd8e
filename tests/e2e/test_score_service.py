"""`accelserve score SERVICE FILE`: a local service is found by its name, with its key."""

import json

import pytest
from local_services import shop

from accelserve.builtin import digits_path, pictures

DIGITS = pictures()[0][0].parent


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_service_is_found_by_its_name(tmp_path, monkeypatch, capsys, protocol):
    with shop(tmp_path, monkeypatch, capsys) as made:
        made.type(f"register {digits_path()} --name digits")
        made.deploy("digits-service", "--model", "digits")
        flags = "--grpc" if protocol == "grpc" else ""
        said = json.loads(made.type(f"score digits-service {DIGITS} --match *.jpg --json {flags}"))
        assert [file["top"][0]["index"] for file in said["files"]] == list(range(10))
