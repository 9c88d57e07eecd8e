"""What every image of ours promises, read from its Dockerfile."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from accelserve import allocator
from accelserve.config_options import OPTIONS
from dockerfiles import CHECKOUT, IMAGES, Image

BASES = {"python:3.11-slim"}
FILES = sorted({image.file for image in IMAGES})
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
each_image = pytest.mark.parametrize("image", IMAGES, ids=str)


@pytest.mark.parametrize("file", FILES)
def test_hadolint_has_nothing_to_say(file):
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [hadolint, "--no-color", "--config", CHECKOUT / ".hadolint.yaml", CHECKOUT / file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_that_hadolint_may_break_has_its_reason():
    ignored = re.findall(r"^ +- (.*)$", (CHECKOUT / ".hadolint.yaml").read_text(), re.MULTILINE)
    assert ignored
    assert all(re.fullmatch(r"DL\d+ # .{20,}", rule) for rule in ignored), ignored


@each_image
def test_it_stands_on_the_official_python_image_and_its_own_stages(image):
    names = {stage.name for stage in image.stages}
    assert {stage.base for stage in image.stages} - names == BASES


@each_image
def test_it_runs_as_a_numbered_user_that_is_not_root(image):
    users = [user for stage in image.lineage for user in stage.values("USER")]
    assert re.fullmatch(r"[1-9]\d*", users[-1])


@each_image
def test_an_init_is_the_first_process_and_nothing_goes_through_a_shell(image):
    assert image.exec_form("ENTRYPOINT") == ["/usr/bin/tini", "--", "accelserve"]
    assert image.exec_form("CMD") == ["serve"]
    assert image.last.values("STOPSIGNAL") == ["SIGTERM"]


@each_image
def test_it_is_asked_for_its_health_by_its_own_python(image):
    interpreter, *_, program = image.health_check
    assert interpreter == "python"
    assert "/healthz" in program


@each_image
def test_nothing_is_fetched_by_the_builder_itself(image):
    assert [value for stage in image.stages for value in stage.values("ADD")] == []


@each_image
def test_models_are_mounted_where_no_volume_is_declared(image):
    assert [value for stage in image.stages for value in stage.values("VOLUME")] == []
    assert image.environment["MODEL_BASE_PATH"] == "/models"
    assert any("mkdir /models" in command for stage in image.lineage for command in stage.values("RUN"))


@each_image
def test_its_ports_are_those_that_it_exposes(image):
    exposed = {port for value in image.last.values("EXPOSE") for port in value.split()}
    assert exposed == {image.environment["ACCELSERVE_HTTP_PORT"], image.environment["ACCELSERVE_GRPC_PORT"]}


@each_image
def test_it_listens_to_the_world_and_never_falls_back_to_another_device(image):
    assert image.environment["ACCELSERVE_HOST"] == "0.0.0.0"
    assert image.environment["ACCELSERVE_DEVICE"] == image.device


@each_image
def test_it_says_only_what_the_server_knows(image):
    told = {name for name in image.environment if name.startswith("ACCELSERVE_")}
    assert told <= {option.env for option in OPTIONS}


@each_image
def test_a_read_only_root_suffices(image):
    environment = image.environment
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert Path(environment["HOME"]) == Path("/tmp")
    assert Path(environment["XDG_CACHE_HOME"]).is_relative_to("/tmp")


@each_image
def test_malloc_is_told_what_the_server_tells_it(image):
    assert int(image.environment["MALLOC_MMAP_THRESHOLD_"]) == allocator._MMAP_THRESHOLD_BYTES
    assert int(image.environment["MALLOC_TRIM_THRESHOLD_"]) == allocator._TRIM_THRESHOLD_BYTES


@each_image
def test_the_container_runtime_is_asked_for_gpus_by_the_gpu_image_alone(image):
    asked = {name: value for name, value in image.environment.items() if name.startswith("NVIDIA_")}
    wanted = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    assert asked == (wanted if image.device == "gpu" else {})


@each_image
def test_its_labels_are_the_projects(image):
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in image.labels.items() if name.startswith(prefix)}
    assert labels.keys() == {"title", "description", "licenses", "version", "revision", "source"}
    assert labels["licenses"] == PROJECT["license"]
    declared = {value.partition("=")[0] for value in image.last.values("ARG")}
    assert {"VERSION", "REVISION", "SOURCE"} <= declared


@each_image
def test_what_changes_with_every_commit_invalidates_no_other_layer(image):
    names = [name for name, _ in image.last.instructions]
    arguments = [value.partition("=")[0] for name, value in image.last.instructions if name == "ARG"]
    assert names[-1] == "LABEL"
    assert arguments[-3:] == ["VERSION", "REVISION", "SOURCE"]


@each_image
def test_packages_come_from_a_lock_with_hashes_or_from_our_own_wheel(image):
    installs = [
        command
        for stage in image.stages
        for run in stage.values("RUN")
        for command in re.split(r"&&|;", run)
        if re.search(r"\bpip\b.*\binstall\b", command)
    ]
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command, command


def test_a_stage_that_is_not_built_on_is_no_part_of_the_image():
    names = [stage.name for stage in IMAGES[1].lineage]
    assert names == ["runtime", "runtime-cpu", ""]
    assert isinstance(IMAGES[1], Image)


@each_image
def test_the_page_about_it_names_every_variable_that_it_sets(image):
    page = (CHECKOUT / "docs" / "container.md").read_text()
    assert {name for name in image.environment if name != "PATH" and f"`{name}`" not in page} == set()
