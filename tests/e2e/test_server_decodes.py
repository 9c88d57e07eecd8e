"""A SavedModel that decodes JPEGs in its graph, served without TensorFlow: the server decodes and answers as that does.

The digits model's own graph shrinks by the mean over the area and rounds, which the server's decoder does bit for bit.
"""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_stub import Stub, refusal_of, request, strings, values_of
from plain_http import check_books, check_log, get, post
from server_process import Server, run_to_end, serving

from accelserve.builtin import pictures
from accelserve.cli import main

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "train.py"
BATCHES = "[batching]\nmax_batch_size = 8\n"
HANDED_OVER = 'runtime = "saved_model_onnx"\n[preprocessing]\ndecode = "server"\n'
TOLERANCE = 0.02  # what decode_tolerance is when nothing is said


@dataclass(frozen=True)
class Site:
    """ours: the server decodes. theirs: TensorFlow does, in the whole SavedModel."""

    ours: Server
    theirs: Server


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """The example's SavedModel, as version 1."""
    place = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, EXAMPLE, "--saved-model", place], check=True, capture_output=True, timeout=120)
    return place / "digits"


def with_settings(digits: Path, folder: Path, settings: str) -> Path:
    """A copy with an `accelserve.toml` of its own."""
    shutil.copytree(digits, folder)
    (folder / "accelserve.toml").write_text(settings)
    return folder


@pytest.fixture(scope="module")
def site(digits, tmp_path_factory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("decoding")
    cache = {"XDG_CACHE_HOME": str(place / "cache")}
    ours = with_settings(digits, place / "ours", HANDED_OVER + BATCHES)
    theirs = with_settings(digits, place / "theirs", BATCHES)
    with (
        serving(f"--model=m={ours}", "--device=cpu", log=place / "ours.log", environ=cache) as one,
        serving(f"--model=m={theirs}", "--device=cpu", log=place / "theirs.log", environ=cache) as other,
    ):
        yield Site(one, other)
        for server in (one, other):
            check_books(server)
            check_log(server)


def shown() -> list[tuple[bytes, int]]:
    """The ten pictures that the package brings, and what they show."""
    return [(path.read_bytes(), label) for path, label in pictures()]


def alike(found, wanted) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.max(wanted))
    assert np.argmax(found) == np.argmax(wanted)


def test_it_answers_as_tensorflow_does_over_http(site):
    for data, label in shown():
        ours, theirs = (json.loads(post(server, "/score", data).body) for server in (site.ours, site.theirs))
        alike(ours, theirs)
        assert np.argmax(ours) == label


def test_and_over_grpc_many_at_a_time(site):
    asked = request("m", images=strings(*(data for data, _ in shown())))
    answers = []
    for server in (site.ours, site.theirs):
        with Stub(server.grpc) as stub:
            answers.append(np.reshape(values_of(stub.ask(asked), "scores"), (-1, 10)))
    for ours, theirs in zip(*answers, strict=True):
        alike(ours, theirs)


def test_and_as_base64_in_json_and_in_a_form(site):
    data, label = shown()[3]
    rows = json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}] * 2}).encode()
    for path in ("/v1/models/m:predict", "/score"):
        answers = [json.loads(post(server, path, rows).body) for server in (site.ours, site.theirs)]
        ours, theirs = (answer if isinstance(answer, list) else answer["predictions"] for answer in answers)
        assert len(ours) == len(theirs) == 2
        alike(ours[1], theirs[1])
    form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="d.jpg"\r\n\r\n' + data + b"\r\n--x--\r\n"
    answer = post(site.ours, "/score", form, **{"content-type": "multipart/form-data; boundary=x"})
    assert np.argmax(json.loads(answer.body)) == label


def test_a_broken_jpeg_among_good_ones_fails_alone(site):
    good, label = shown()[5]
    sent = [good, good[: len(good) // 2], good, b"no picture at all", good]
    with ThreadPoolExecutor(len(sent)) as pool:
        answers = list(pool.map(lambda data: post(site.ours, "/score", data), sent))
    assert [answer.status for answer in answers] == [200, 422, 200, 415, 200]
    assert all(np.argmax(json.loads(answer.body)) == label for answer in answers if answer.status == 200)
    with Stub(site.ours.grpc) as stub:
        refusal = refusal_of(stub.ask, request("m", images=strings(good, sent[1])))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


def test_names_and_signature_stay_those_of_the_savedmodel(site):
    ours, theirs = (json.loads(get(server, "/v1/models/m/metadata").body) for server in (site.ours, site.theirs))
    assert ours["metadata"]["signature_def"] == theirs["metadata"]["signature_def"]
    data, _ = shown()[0]
    with Stub(site.ours.grpc) as stub:
        answer = stub.ask(request("m", **{"images:0": strings(data)}))
        assert set(answer.outputs) == {"scores:0"}
        refusal = refusal_of(stub.ask, request("m", pictures=strings(data)))
        assert "pictures" in refusal.text


def test_tensorflow_is_not_in_the_process_and_the_log_says_how_far_it_is(site):
    assert "tensorflow" not in Path(f"/proc/{site.ours.process.pid}/maps").read_text()
    assert "tensorflow" in Path(f"/proc/{site.theirs.process.pid}/maps").read_text()
    assert "the server decodes pictures for serving_default in the model's place" in site.ours.log.read_text()


@pytest.fixture(scope="module")
def cut(digits, tmp_path_factory) -> Path:
    """The converted model, as version 1."""
    place = tmp_path_factory.mktemp("cut")
    command = [sys.executable, "-m", "accelserve", "convert", digits / "1", "--output", place / "m" / "1", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    told = json.loads(done.stdout)["signatures"]["serving_default"]["pictures"]
    assert (told["size"], told["grid"], len(told["measured"])) == ([32, 32], "area", 8)
    assert told["output_error"] == max(each["output_error"] for each in told["measured"]) < TOLERANCE
    return place / "m"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('decode = "server"\ndecode_tolerance = 1e-9', "tolerance 1e-09"),
        ('decode = "server"\nsize = [32, 32]', "leave out size"),
        ('decode = "gpu"', 'want "model" or "server"'),
    ],
)
def test_what_is_too_far_or_contradicts_does_not_load(cut, tmp_path, settings, reason):
    (cut / "accelserve.toml").write_text(f"[preprocessing]\n{settings}\n")
    assert run_to_end([f"--model=m={cut}", "--device=cpu"], tmp_path / "log") == 3
    assert reason in (tmp_path / "log").read_text()


def test_a_device_that_normalises_gives_the_hosts_answers(cut, tmp_path):
    (cut / "accelserve.toml").write_text('[preprocessing]\ndecode = "server"\nnormalize = "device"\n')
    data, label = shown()[7]
    with serving(f"--model=m={cut}", "--device=cpu", log=tmp_path / "log") as server:
        assert np.argmax(json.loads(post(server, "/score", data).body)) == label
        assert "pictures normalised on the device" in server.log.read_text()


def test_show_says_who_decodes_and_how_far_that_is(cut, capsys):
    (cut / "accelserve.toml").write_text('[preprocessing]\ndecode = "server"\n')
    assert main(["show", str(cut)]) == 0
    said = capsys.readouterr().out
    assert "the model's own graph, decoded by the server" in said
    assert "differs      pixels by 1.0 of 255, outputs by" in said


def test_a_model_that_gives_nothing_away_does_not_load(digits, tmp_path):
    source = with_settings(digits, tmp_path / "m", '[preprocessing]\ndecode = "server"\n')
    assert run_to_end([f"--model=m={source}", "--device=cpu"], tmp_path / "log") == 3
    assert "only a converted SavedModel gives its decoding away" in (tmp_path / "log").read_text()
