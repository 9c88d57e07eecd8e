"""`accelserve convert` and `verify` as a user runs them, and the server with what they made."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from server_process import serving
from talk import ask

import saved_models
from accelserve.cli import main
from accelserve.client import Client
from model_builders import jpeg, onnx_mlp

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]  # tf2onnx and Keras warn of themselves


def convert(source: Path, output: Path, *flags: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    command = [sys.executable, "-m", "accelserve", "convert", str(source), "--output", str(output), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def test_a_dense_savedmodel_is_served_without_tensorflow_under_its_own_names(tmp_path):
    source = saved_models.mnist_checkpoint(tmp_path / "mnist" / "1")
    code, report, said = convert(source, tmp_path / "converted", "--json", "--progress", "json")
    assert code == 0, said
    assert json.loads(report)["signatures"]["serving_default"]["comparison"]["outputs"][0]["equal"]
    steps = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert steps[-1] == {"progress": "done", "done": 1.0}
    with serving(f"--model=mnist={tmp_path / 'converted'}", log=tmp_path / "log") as server:
        metadata = json.loads(ask(server, "/v1/models/mnist/metadata").body)
        inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        assert inputs["images"]["name"] == "network/X:0"
        with Client(server.http) as client:
            outputs = client.predict({"images": np.ones((2, 784), np.float32)}, model="mnist")
            assert outputs["scores"].shape == (2, 10)
        assert "tensorflow" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_a_converted_model_that_decodes_takes_a_jpeg(tmp_path):
    source = saved_models.tf1_jpeg(tmp_path / "pictures" / "1")
    (tmp_path / "cat.jpg").write_bytes(jpeg(size=(40, 30)))
    code, text, said = convert(source, tmp_path / "converted", "--sample", str(tmp_path / "cat.jpg"))
    assert code == 0, said
    assert "cut at float32[-1,16,16,3] map/" in text
    assert "sample cat.jpg" in text
    with (
        serving(f"--model=pictures={tmp_path / 'converted'}", log=tmp_path / "log") as server,
        Client(server.http) as c,
    ):
        assert sum(c.score(tmp_path / "cat.jpg")) == pytest.approx(1.0, abs=1e-5)


def test_a_savedmodel_without_anything_dense_ends_with_3_and_the_operators(tmp_path):
    code, _, said = convert(saved_models.only_strings(tmp_path / "text" / "1"), tmp_path / "converted")
    assert code == 3
    assert said.splitlines()[-1].startswith(
        'accelserve: text: signature "serving_default" cannot be converted: nothing is'
    )
    assert "StringUpper" in said
    assert not (tmp_path / "converted").exists()


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A SavedModel and its conversion."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = saved_models.word_tables(tmp_path / "words" / "1")
    saved_models.convert_here("words", source, tmp_path / "cut", saved_models.Defaults(), lambda what, done: None)
    return source, tmp_path / "cut"


def test_verify_compares_with_the_original_and_prints_a_table(words, capsys):
    source, cut = words
    assert main(["verify", str(cut), "--against", str(source), "--batch", "5"]) == 0
    text = capsys.readouterr().out
    assert "serving_default  scores  float32[5,3]" in text
    assert "batches of 1, 5" in text


def test_verify_of_models_that_differ_ends_with_3(words, tmp_path, capsys):
    np.savez(tmp_path / "s.npz", words=np.array([["accept", "batch", "card", "device"]] * 2))
    source, cut = words
    flags = ["--sample", str(tmp_path / "s.npz"), "--tolerance", "0", "--json"]
    host = next(cut.glob("*/host.pb"))
    host.write_bytes(host.read_bytes().replace(b"device", b"divice"))
    assert main(["verify", str(cut), "--against", str(source), *flags]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["equal"] is False
    assert [o["name"] for o in told["comparisons"][0]["outputs"] if not o["equal"]] == ["scores"]


def test_verify_alone_holds_rows_against_the_batch(words, capsys):
    assert main(["verify", str(words[1])]) == 0
    assert "against itself" in capsys.readouterr().out


def test_verify_of_strangers_says_what_differs(words, tmp_path, capsys):
    other = saved_models.mnist_checkpoint(tmp_path / "mnist" / "1")
    assert main(["verify", str(words[1]), "--against", str(other)]) == 3
    assert "the models have other inputs: ['words'] and ['images']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--opset", "99"], 2, "from 13 to 23"),
        (["--tolerance", "2"], 2, "from 0 to 1"),
        (["--to", "tflite"], 2, "accelonnx"),
    ],
)
def test_flags_that_make_no_sense_end_with_2(tmp_path, capsys, arguments, code, words):
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(tmp_path), "--output", str(tmp_path / "out"), *arguments])
    assert ended.value.code == code
    assert words in capsys.readouterr().err


def test_an_onnx_file_is_converted_to_fp16_and_to_nothing_else(tmp_path, capsys):
    source = onnx_mlp(tmp_path / "m.onnx", features=16)
    assert main(["convert", str(source), "--output", str(tmp_path / "out")]) == 3
    assert "nothing to convert unless with --precision fp16" in capsys.readouterr().err
    assert main(["convert", str(source), "--output", str(tmp_path / "out"), "--precision", "fp16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["relative_error"] < 0.02
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 0.7 * source.stat().st_size


def test_fp16_that_is_too_far_off_is_refused(tmp_path, capsys):
    source = onnx_mlp(tmp_path / "m.onnx", features=16)
    flags = ["--precision", "fp16", "--tolerance", "1e-9"]
    assert main(["convert", str(source), "--output", str(tmp_path / "out"), *flags]) == 3
    assert 'in fp16 output "scores" differs by' in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


def test_a_missing_model_ends_with_4(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]) == 4
    assert "absent" in capsys.readouterr().err
