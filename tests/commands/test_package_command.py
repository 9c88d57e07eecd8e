"""`accelserve package`, as it is typed."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from accelserve.builtin import digits_path
from accelserve.cli import main
from accelserve.models.store import ModelStore, Registration
from accelserve.packaging import engines
from accelserve.packaging.engines import Step, find_engine
from dockerfiles import _parser, stages
from model_builders import onnx_external

SCRIPT = "def init():\n    pass\ndef run(raw_data):\n    return raw_data\n"
CONDA = "dependencies:\n- python=3.6.2\n- tensorflow-gpu=1.12\n- ujson\n- pip:\n  - azureml-defaults==1.0.43.*\n"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A store with digits:1, and a folder to work in."""
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    ModelStore(tmp_path / "store").register("digits", digits_path())
    (tmp_path / "score.py").write_text(SCRIPT)
    (tmp_path / "myenv.yml").write_text(CONDA)
    return tmp_path


def package(*arguments: str) -> int:
    return main(["package", *arguments])


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "base" not in path.relative_to(folder).parts
    }


def environment(folder: Path) -> dict[str, str]:
    return dict(_parser((folder / "Dockerfile").read_text(), {}, {}).envs)


def test_a_model_alone(shop, capsys):
    assert package("digits") == 0
    made = shop / "digits-1-image"
    assert files(made) >= {"Dockerfile", ".dockerignore", "accelserve-package.json", "models/digits/1/model.onnx"}
    assert "requirements.txt" not in files(made)
    assert environment(made)["ACCELSERVE_MODEL"] == "digits=/models/digits"
    said = capsys.readouterr().out
    assert "docker build -f digits-1-image/base/Dockerfile.gpu -t accelserve:gpu" in said
    assert "docker build -f digits-1-image/Dockerfile -t digits:1 digits-1-image" in said


def test_a_model_with_its_own_file_brings_its_labels(shop):
    assert package("digits", "--out", "c") == 0
    assert "models/digits/accelserve.toml" in files(shop / "c")
    assert any(name.startswith("models/digits/labels") for name in files(shop / "c"))


@pytest.mark.parametrize("labels", ["../../secret.txt", "1/../labels.txt", "{shop}/secret.txt", "../none.txt"])
def test_labels_that_are_not_beside_the_model_are_refused(shop, capsys, labels):
    (shop / "secret.txt").write_text("one\n")
    (shop / "store" / "digits" / "accelserve.toml").write_text(f'labels = "{labels.format(shop=shop)}"\n')
    before = set(os.listdir(shop))
    assert package("digits", "--out", "c") == 2
    said = capsys.readouterr().err
    assert f"accelserve.toml: labels: {labels.format(shop=shop)} is not in {shop}/store/digits; put the file" in said
    assert set(os.listdir(shop)) == before


def test_a_script_and_a_conda_file_and_what_became_of_it(shop, capsys):
    assert package("digits", "--target", "cpu", "--entry-script", "score.py", "--conda", "myenv.yml", "--out", "c") == 0
    said = capsys.readouterr().err
    assert [line.split(", line ")[1][0] for line in said.splitlines()] == ["2", "3", "6"]
    assert (shop / "c" / "requirements.txt").read_text() == "ujson\n"
    assert (shop / "c" / "app" / "score.py").read_text() == SCRIPT
    told = environment(shop / "c")
    assert told["ACCELSERVE_ENTRY_SCRIPT"] == "/var/azureml-app/score.py"
    assert told["AZUREML_MODEL_DIR"] == "/models/digits/1"
    assert told["AML_APP_ROOT"] == "/var/azureml-app"
    document = json.loads((shop / "c" / "accelserve-package.json").read_text())
    assert document["base"] == "accelserve:cpu-tensorflow"
    assert [entry["text"] for entry in document["translated"]][:2] == ["python=3.6.2", "tensorflow-gpu=1.12"]


def test_on_the_fpga_image_a_scripts_tensorflow_is_installed(shop):
    assert package("--target", "fpga", "--entry-script", "score.py", "--conda", "myenv.yml", "--out", "c") == 0
    assert (shop / "c" / "requirements.txt").read_text().splitlines()[0].startswith("tensorflow-cpu")
    (stage,) = stages((shop / "c" / "Dockerfile").read_text(), {})
    assert stage.base == "accelserve:fpga"


def test_the_script_alone_opens_the_model_unless_the_server_is_to_load_it_too(shop):
    assert package("digits", "--entry-script", "score.py", "--out", "c") == 0
    told = environment(shop / "c")
    assert "ACCELSERVE_MODEL" not in told
    assert told["ACCELSERVE_MODEL_FILES"] == "'digits=/models/digits'"
    assert package("digits", "--entry-script", "score.py", "--serve-model", "--out", "both") == 0
    told = environment(shop / "both")
    assert told["ACCELSERVE_MODEL"] == "digits=/models/digits"
    assert "ACCELSERVE_MODEL_FILES" not in told


def test_a_custom_model_is_packaged_for_its_script_and_for_nobody_else(shop, capsys):
    (shop / "weights.pkl").write_bytes(b"weights")
    ModelStore(shop / "store").register("weights", shop / "weights.pkl", Registration(custom=True))
    assert package("weights", "--entry-script", "score.py", "--out", "c") == 0
    assert "models/weights/1/weights.pkl" in files(shop / "c")
    told = environment(shop / "c")
    assert told["ACCELSERVE_MODEL_FILES"] == "'weights=/models/weights'"
    assert told["AZUREML_MODEL_DIR"] == "/models/weights/1"
    capsys.readouterr()
    assert package("weights", "--out", "none") == 2
    assert "add --entry-script" in capsys.readouterr().err
    assert package("weights", "--entry-script", "score.py", "--serve-model", "--out", "none") == 2
    assert "no server loads" in capsys.readouterr().err


def test_a_folder_goes_with_the_script_and_files_with_names(shop):
    app = shop / "my app"
    (app / "helpers").mkdir(parents=True)
    (app / "score ü.py").write_text(SCRIPT)
    (app / "helpers" / "words.py").write_text("")
    (shop / "words.txt").write_text("w")
    arguments = ["--entry-script", "score ü.py", "--source-directory", "my app", "--model-files", "words=words.txt"]
    assert package("digits", *arguments, "--out", "c") == 0
    assert files(shop / "c") >= {"app/score ü.py", "app/helpers/words.py", "files/words/words.txt"}
    assert environment(shop / "c")["ACCELSERVE_ENTRY_SCRIPT"] == "/var/azureml-app/score ü.py"


def test_twice_the_same_makes_the_same(shop):
    for name in ("a", "b"):
        assert package("digits", "--entry-script", "score.py", "--conda", "myenv.yml", "--out", name) == 0
    assert subprocess.run(["diff", "-r", "a", "b"], capture_output=True).returncode == 0


def test_the_source_in_the_context_is_all_that_the_base_needs(shop):
    assert package("digits", "--out", "c") == 0
    base = shop / "c" / "base"
    assert {path.name for path in base.iterdir()} == {
        *("Dockerfile.gpu", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "server", "deploy")
    }
    assert (base / "server" / "accelserve" / "cli.py").is_file()
    assert (base / "deploy" / "locks" / "gpu.txt").is_file()
    assert not list(base.rglob("__pycache__"))


def test_another_base_needs_no_source(shop, capsys):
    assert package("digits", "--base", "registry.example.org/accelserve:1", "--out", "c", "--json") == 0
    assert not (shop / "c" / "base").exists()
    document = json.loads(capsys.readouterr().out)
    assert document["base"] == "registry.example.org/accelserve:1"
    assert len(document["build"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "say what to package"),
        (["nothing"], 4, 'no model "nothing"'),
        (["digits:9"], 4, "has no digits:9"),
        (["digits", "--conda", "none.yml"], 2, "--conda is for an --entry-script"),
        (["digits", "--no-serve-model"], 2, "without an entry script"),
        (["--entry-script", "none.py"], 2, "no such file"),
        (["--entry-script", "score.py", "--conda", "none.yml"], 2, "No such file"),
        (["--entry-script", "score.py", "--source-directory", "none"], 2, "no such folder"),
        (["--entry-script", "score.py", "--source-directory", "store"], 2, "is not in --source-directory"),
        (["--entry-script", "store/../store/x.py"], 2, "no such file"),
        (["--entry-script", "score.py", "--model-files", "words"], 2, "want NAME=PATH"),
        (["--entry-script", "score.py", "--model-files", "../x=score.py"], 2, "no image can have this name"),
        (["--entry-script", "bad.py"], 3, "run()"),
        (["digits", "--out", "store"], 5, "exists"),
        (["digits", "--base", "x\nRUN evil"], 2, "want an image's name"),
        (["digits", "--tag", "${x}"], 2, "want an image's name"),
        (["--entry-script", "evil\nRUN evil #.py"], 2, "no Dockerfile can say this name"),
        (
            ["--entry-script", "score.py", "--model-files", "x=evil\nRUN evil #.py"],
            2,
            "no image can have this name",
        ),
    ],
)
def test_mistakes_are_told_and_nothing_is_made(shop, capsys, arguments, code, words):
    (shop / "bad.py").write_text("def init(): pass\n")
    (shop / "evil\nRUN evil #.py").write_text(SCRIPT)
    before = set(os.listdir(shop))
    assert package(*arguments) == code
    assert words in capsys.readouterr().err
    assert set(os.listdir(shop)) == before


def test_a_conda_file_and_flags_with_mistakes_are_told_together(shop, capsys):
    (shop / "bad.yml").write_text("dependencies:\n- x=1|2\n- npm:\n  - y\n")
    assert package("--entry-script", "none.py", "--conda", "bad.yml") == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_model_whose_files_were_changed_in_the_store_is_not_packaged(shop, capsys):
    model = shop / "store" / "digits" / "1" / "model.onnx"
    model.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with model.open("ab") as stream:
        stream.write(b"x")
    assert package("digits", "--out", "c") == 5
    assert "not those that were registered" in capsys.readouterr().err
    assert not (shop / "c").exists()


def test_a_model_with_external_data_is_whole(shop):
    (shop / "source").mkdir()
    source = onnx_external(shop / "source" / "net.onnx", "weights.bin")
    ModelStore(shop / "store").register("big", source)
    assert package("big", "--out", "c") == 0
    there = {path.name for path in (shop / "store" / "big" / "1").iterdir()}
    assert {path.name for path in (shop / "c" / "models" / "big" / "1").iterdir()} == there
    assert len(there) == 2


def test_a_saved_model_is_refused_for_the_fpga_image(shop, capsys):
    folder = shop / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"x")
    ModelStore(shop / "store").register("saved", folder)
    assert package("saved", "--target", "fpga") == 3
    assert "accelserve convert" in capsys.readouterr().err
    assert package("saved", "--target", "gpu", "--out", "c") == 0
    assert json.loads((shop / "c" / "accelserve-package.json").read_text())["base"] == "accelserve:gpu-tensorflow"


def test_a_folder_by_mistake_is_refused_unread(shop, capsys):
    (shop / "app").mkdir()
    (shop / "app" / "score.py").write_text(SCRIPT)
    with (shop / "app" / "video.bin").open("wb") as stream:
        stream.truncate(301 * 10**6)  # a hole: no disk is used
    assert package("--entry-script", "score.py", "--source-directory", "app", "--out", "c") == 2
    assert "app has more than 300 MB" in capsys.readouterr().err
    assert not (shop / "c").exists()


def test_files_whose_names_say_that_they_are_secret_are_told(shop, capsys):
    app = shop / "app"
    app.mkdir()
    for name in (".env", "keys.json", "SERVER.PEM", "id_ed25519", "monkey.json", "score.py"):
        (app / name).write_text(SCRIPT)
    assert package("--entry-script", "score.py", "--source-directory", "app", "--out", "c") == 0
    told = {line.split()[1] for line in capsys.readouterr().err.splitlines()}
    assert told == {"app/.env", "app/id_ed25519", "app/keys.json", "app/SERVER.PEM"}


# --- building


@pytest.fixture
def engine(shop, monkeypatch):
    """An engine that writes down how it was called, and ends with the code in `code`."""
    tools = shop / "tools"
    tools.mkdir()
    fake = tools / "podman"
    fake.write_text('#!/bin/sh\necho "$@" >> calls\necho building\nexit $(cat code)\n')
    fake.chmod(0o755)
    (shop / "code").write_text("0")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(engines, "_ENGINES", ("podman",))
    return shop / "calls"


def test_both_images_are_built_in_order(engine, capfd):
    assert package("digits", "--target", "cpu", "--build", "--tag", "mine:1", "--out", "c", "--json") == 0
    assert engine.read_text().splitlines() == [
        "build --format docker -f c/base/Dockerfile.gpu -t accelserve:cpu --build-arg ACCEL=cpu c/base",
        "build --format docker -f c/Dockerfile -t mine:1 c",
    ]
    json.loads(capfd.readouterr().out)  # what the engine prints does not come among it


def test_a_build_that_fails_is_told_and_ends_it(engine, capfd):
    (engine.parent / "code").write_text("7")
    assert package("digits", "--build", "--out", "c") == 1
    assert len(engine.read_text().splitlines()) == 1
    assert "podman ended with 7" in capfd.readouterr().err


def test_without_an_engine_the_commands_are_told(shop, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(shop))
    assert find_engine() is None
    assert package("digits", "--build", "--out", "c") == 4
    assert "nothing here builds images" in capsys.readouterr().err
    assert (shop / "c" / "Dockerfile").is_file()


def test_a_docker_without_its_daemon_is_no_engine(shop, monkeypatch):
    fake = shop / "docker"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shop}:/usr/bin:/bin")
    assert find_engine() != "docker"


def test_every_engine_has_its_own_words():
    step = Step(Path("c"), "t:1", arguments=(("A", "b"),))
    assert step.command("docker") == ["docker", "build", "-f", "c/Dockerfile", "-t", "t:1", "--build-arg", "A=b", "c"]
    assert step.command("buildah")[:4] == ["buildah", "bud", "--format", "docker"]
