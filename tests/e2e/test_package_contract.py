"""What `package` and `manifests` write is run: the image's command, environment and probes, as plain processes.

No container: what would be /models in one is the context's folder here, and the command line is otherwise as it stands.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from server_process import READY, Server, end, line_of
from talk import ask

from accelserve.builtin import digits_path, pictures
from accelserve.cli import main
from accelserve.deploy import image_layout
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.manifests import manifests
from accelserve.keys import write_new_keys
from accelserve.models.store import ModelStore
from dockerfiles import _parser

SCRIPT = """\
import json, os
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse
from azureml.core.model import Model
import helper

def init():
    global found
    words = open(Model.get_model_path("words")).read()
    assert open("helper.py").read()
    found = [Model.get_model_path("digits"), os.environ["AZUREML_MODEL_DIR"], words, helper.NAME]

@rawhttp
def run(request):
    return AMLResponse(json.dumps([*found, len(request.get_data(False))]), 200)
"""
DIGIT = pictures()[7][0].read_bytes()
SERVICE = ServiceDefinition("digits-service", "digits", 1, replicas=1, device="cpu", cpu_cores=1, target="kubernetes")


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Packages digits:1, with more arguments; the folder that results."""
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    ModelStore(tmp_path / "store").register("digits", digits_path())
    app = tmp_path / "source"
    (app / "code").mkdir(parents=True)
    (app / "code" / "score.py").write_text(SCRIPT)
    (app / "helper.py").write_text("NAME = 'helper'\n")
    (tmp_path / "words.txt").write_text("words")

    def package(*arguments: str) -> Path:
        made = tmp_path / "context"
        assert main(["package", "digits:1", "--base", "accelserve:cpu", "--out", str(made), *arguments]) == 0
        return made

    return package


def of_script(tmp_path: Path) -> list[str]:
    source = ["--entry-script", "code/score.py", "--source-directory", str(tmp_path / "source")]
    return [*source, "--model-files", f"words={tmp_path}/words.txt"]


def script_service(tmp_path: Path) -> ServiceDefinition:
    return replace(
        SERVICE,
        entry_script=str(tmp_path / "source" / "code" / "score.py"),
        source_directory=str(tmp_path / "source"),
        model_files=(("words", str(tmp_path / "words.txt")),),
        max_concurrent=4,
        max_queue_ms=5000,
        scoring_timeout_ms=10_000,
    )


def here(text: str, places: Mapping[str, Path]) -> str:
    for place, folder in places.items():
        text = text.replace(place, str(folder))
    return text


def environment_of(context: Path) -> dict[str, str]:
    return dict(_parser((context / "Dockerfile").read_text(), {}, {}).envs)


@contextmanager
def container(
    context: Path, arguments: list[str], environ: Mapping[str, str], log: Path, **more: Path
) -> Iterator[Server]:
    """The image's entry point with these arguments, and the environment of image and pod."""
    places = {
        image_layout.AZUREML_MODELS: context / "models",
        image_layout.MODELS: context / "models",
        image_layout.APP: context / "app",
        image_layout.FILES: context / "files",
        image_layout.KEYS: more.get("keys", context),
    }
    told = {**environment_of(context), **environ}
    base = {"MODEL_NAME": "model", "MODEL_BASE_PATH": "/models", "ACCELSERVE_DEVICE": "cpu"}
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("ACCELSERVE_", "MODEL_", "AZUREML_"))
    }
    ports = {"ACCELSERVE_HOST": "127.0.0.1", "ACCELSERVE_HTTP_PORT": "0", "ACCELSERVE_GRPC_PORT": "0"}
    whole = {**ours, **base, **{name: here(value, places) for name, value in told.items()}, **ports}
    command = [sys.executable, "-m", "accelserve", *(here(argument, places) for argument in arguments)]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=whole)
    try:
        found = READY.search(line_of(process))
        assert found, log.read_text()
        yield Server(process, found["http"], found["grpc"], log)
    finally:
        end(process)


def pod_of(definition: ServiceDefinition) -> dict:
    made = yaml.safe_load(manifests(definition, "registry.example.org/digits:1")["deployment.yaml"])
    return made["spec"]["template"]["spec"]


def assert_probes(server: Server, pod: dict) -> None:
    (one,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert ask(server, one[probe]["httpGet"]["path"]).status == 200


def test_the_image_alone_serves_its_model(context, tmp_path):
    with container(context(), ["serve"], {}, tmp_path / "log") as server:
        assert ask(server, "/score?top=1", DIGIT).json[0]["index"] == 7
        assert ask(server, "/readyz/digits").status == 200
    assert "WARNING" not in (tmp_path / "log").read_text()


@pytest.mark.full
def test_the_image_alone_serves_its_script(context, tmp_path):
    made = context("--serve-model", *of_script(tmp_path))
    with container(made, ["serve"], {}, tmp_path / "log") as server:
        assert ask(server, "/readyz/digits").status == 200
        model, folder, words, name, size = ask(server, "/score", DIGIT).json
    assert model.startswith(str(made / "models" / "digits"))
    assert folder == str(made / "models" / "digits" / "1")
    assert (words, name, size) == ("words", "helper", len(DIGIT))


@pytest.mark.full
def test_the_image_serves_a_script_that_opens_the_model_itself(context, tmp_path):
    made = context(*of_script(tmp_path))
    with container(made, ["serve"], {}, tmp_path / "log") as server:
        assert ask(server, "/score", DIGIT).json[0].startswith(str(made / "models" / "digits"))
        assert ask(server, "/readyz/digits").status == 404


def run_pod(context: Path, definition: ServiceDefinition, log: Path, keys: Path):
    pod = pod_of(definition)
    (one,) = pod["containers"]
    environ = {variable["name"]: variable["value"] for variable in one["env"]}
    return container(context, one["args"], environ, log, keys=keys)


def test_the_deployments_command_line_serves_the_model_with_keys_and_probes_without(context, tmp_path):
    keys = write_new_keys(tmp_path / "keys.json")
    with run_pod(context(), SERVICE, tmp_path / "log", tmp_path) as server:
        assert_probes(server, pod_of(SERVICE))
        path = f"/api/v1/service/{SERVICE.name}/score?top=1"
        assert ask(server, path, DIGIT).status == 401
        for key in (keys.primary, keys.secondary):
            assert ask(server, path, DIGIT, {"authorization": f"Bearer {key}"}).json[0]["index"] == 7
        server.process.send_signal(signal.SIGTERM)
        own = [int(pod_of(SERVICE)["containers"][0]["args"][at + 1]) for at in grace_and_drain(SERVICE)]
        assert server.process.wait(sum(own)) == 0
        assert pod_of(SERVICE)["terminationGracePeriodSeconds"] > sum(own)


def grace_and_drain(definition: ServiceDefinition) -> list[int]:
    arguments = pod_of(definition)["containers"][0]["args"]
    return [arguments.index("--grace-period"), arguments.index("--drain-timeout")]


@pytest.mark.parametrize("serve_model", [True, False])
def test_the_deployments_command_line_serves_the_script(context, tmp_path, serve_model):
    definition = replace(script_service(tmp_path), auth="none", serve_model=serve_model)
    made = context(*of_script(tmp_path))  # one image serves both
    with run_pod(made, definition, tmp_path / "log", tmp_path) as server:
        assert_probes(server, pod_of(definition))
        assert ask(server, "/score", DIGIT).json[1] == str(made / "models" / "digits" / "1")
        assert ask(server, "/score?model=digits&top=1", DIGIT).status == (200 if serve_model else 404)


def test_the_manifest_of_the_package_says_what_was_run(context, tmp_path):
    document = json.loads((context(*of_script(tmp_path)) / "accelserve-package.json").read_text())
    assert document["model"]["name"] == "digits"
    assert document["entry_script"] == "/var/azureml-app/code/score.py"
