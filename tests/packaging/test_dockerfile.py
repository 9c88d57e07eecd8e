"""The Dockerfile that is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from accelserve.packaging.dockerfile import DOCKERIGNORE, Recipe, default_tag, dockerfile, is_image, is_sayable
from dockerfiles import CHECKOUT, stages

FULL = Recipe("accelserve:gpu", "resnet50:3 with score.py", True, True, True, True, {"A": 'x "$HOME" y', "B": ""})


def instructions(recipe: Recipe) -> list[tuple[str, str]]:
    (stage,) = stages(dockerfile(recipe), {})
    return list(stage.instructions)


@pytest.mark.parametrize("recipe", [FULL, Recipe("accelserve:cpu", "x:1", has_models=True)])
def test_hadolint_has_no_complaint(recipe, tmp_path):
    (tmp_path / "Dockerfile").write_text(dockerfile(recipe))
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--config", CHECKOUT / ".hadolint.yaml", tmp_path / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_starts_from_the_base_and_ends_as_its_user():
    made = instructions(FULL)
    assert [value for name, value in made if name == "USER"] == ["0", "10001"]
    assert not any(name in ("ENTRYPOINT", "CMD", "EXPOSE", "HEALTHCHECK") for name, _ in made)  # the base has them


def test_no_name_is_a_directive_to_the_builder():
    first = dockerfile(Recipe("b", "syntax=example.org/evil", has_app=True)).splitlines()[0]
    assert not re.match(r"#\s*[a-zA-Z][a-zA-Z0-9]*\s*=", first)


def test_only_what_is_there_is_copied():
    assert [value for name, value in instructions(FULL) if name == "COPY"] == [
        "models /models",
        "files /model-files",
        "app /var/azureml-app",
    ]
    bare = instructions(Recipe("b", "x:1", has_models=True))
    assert [value for name, value in bare if name == "COPY"] == ["models /models"]
    assert not any(name == "RUN" for name, _ in bare)


def test_all_that_is_copied_passes_the_dockerignore():
    lines = [line for line in DOCKERIGNORE.splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    copied = {value.split()[0] for name, value in instructions(FULL) if name == "COPY"} | {"requirements.txt"}
    assert {f"!{name}" for name in copied} == set(lines[1:])


def test_values_reach_the_container_as_they_are():
    assert 'ENV A="x \\"\\$HOME\\" y"' in dockerfile(FULL)
    assert 'B=""' in dockerfile(FULL)


@pytest.mark.parametrize(
    "text", ["accelserve:gpu", "localhost:5000/a/b_c:1", "h.example/x@sha256:00", "docker-archive:/x"]
)
def test_images_have_names(text):
    assert is_image(text)


@pytest.mark.parametrize("text", ["", "a b", "a\nRUN evil", "a\tb", "${EVIL}", "-f", "a;b", 'a"b', "ü", "a\\"])
def test_what_says_more_to_a_dockerfile_is_no_image(text):
    assert not is_image(text)


@pytest.mark.parametrize("name", ["a\nRUN evil.py", "a\rb", "a\u2028b", "a\x85b", "\udcff.py", "a\0"])
def test_names_that_end_a_line_or_are_no_text_cannot_be_said(name):
    assert not is_sayable(name)
    assert is_sayable("score ü '\"$x\\.py")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("resnet50", "resnet50:3"),
        ("Resnet_50.v1", "resnet_50.v1:3"),
        ("a..b__c___d-", "a-b-c-d:3"),
        ("score ü", "score:3"),
        ("数", "model:3"),
        ("x" * 300, "x" * 128 + ":3"),
    ],
)
def test_an_images_name_is_near_to_the_models(name, tag):
    assert default_tag(name, "3") == tag
    assert is_image(tag)
