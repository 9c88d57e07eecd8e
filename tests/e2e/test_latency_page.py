"""docs/latency.md says what is so: its keys are read, its words are those of the server."""

import re
from pathlib import Path

from accelserve.batching.batch_queue import Closed
from accelserve.frontends.exchange import time_spent
from accelserve.messages import Timing
from accelserve.models.manifest import read_manifest

SERVER = Path(__file__).parents[2] / "server" / "accelserve"
PAGE = (Path(__file__).parents[2] / "docs" / "latency.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def first_column(heading: str) -> set[str]:
    """Of the table below a heading row, without the marks."""
    table = PAGE.partition(f"| {heading}")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))


def test_the_pages_settings_are_read(tmp_path):
    (text,) = [text for kind, text in BLOCKS if kind == "toml"]
    file = tmp_path / "accelserve.toml"
    file.write_text(text)
    assert read_manifest(file).batching.latency_slo_ns == 50_000_000


def test_the_page_explains_each_reason_why_a_batch_leaves():
    assert first_column("`closed` | the batch left because | to make it better") == {closed.value for closed in Closed}


def test_the_page_explains_each_field_of_the_timing_header():
    (example,) = [text for kind, text in BLOCKS if not kind]
    told = time_spent(Timing(1_204_000, 20_113_000, 8, None, 3, "full"), 18_000)
    assert example.strip() == f"x-accelserve-timing: {told}"
    assert first_column("field |") == {part.partition("=")[0] for part in told.split(", ")}


def test_the_page_names_each_reason_of_a_refusal():
    code = (SERVER / "batching" / "admission.py").read_text()
    for reason in ("wait_too_long", "deadline_too_short", "slo"):
        assert f'"{reason}"' in code
        assert f"`{reason}`" in PAGE


def test_the_page_names_each_metric():
    code = (SERVER / "models" / "gauges.py").read_text()
    assert set(re.findall(r"accelserve_admission_\w+", PAGE)) == set(re.findall(r"accelserve_admission_\w+", code))


def test_the_pages_request_has_the_servers_headers():
    (command,) = [text for kind, text in BLOCKS if kind == "sh"]
    code = (SERVER / "frontends" / "http_exchange.py").read_text()
    for header in re.findall(r"x-accelserve-[\w-]+", command):
        assert f'"{header}"' in code
