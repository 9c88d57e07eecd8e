"""`accelserve score SERVICE FILE`: a local service is found by its name, with its key."""

import json

from local_services import shop

from accelserve.builtin import digits_path, pictures

DIGITS = pictures()[0][0].parent


def test_a_service_is_found_by_its_name(tmp_path, monkeypatch, capsys):
    with shop(tmp_path, monkeypatch, capsys) as made:
        made.type(f"register {digits_path()} --name digits")
        made.type("deploy digits-service --model digits --wait --timeout 60")  # with keys
        for flags in ("", "--grpc"):
            said = json.loads(made.type(f"score digits-service {DIGITS} --match *.jpg --json {flags}"))
            assert [file["top"][0]["index"] for file in said["files"]] == list(range(10))
        wrong = made.folder / "key"
        wrong.write_text("not-the-key-of-it")
        made.type(f"score digits-service {DIGITS} --key-file {wrong}", code=2)
