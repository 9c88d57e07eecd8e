"""The Dockerfile of a packaged model: text, from values."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from accelserve.deploy import image_layout

TARGETS = ("gpu", "cpu", "fpga")
DOCKERIGNORE = """\
# All that the Dockerfile copies from here, and nothing else.
*
!requirements.txt
!models
!app
!files
"""
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")  # a part of one, as registries take it
_MOST_CHARACTERS = 128


def is_image(text: str) -> bool:
    """Whether it can be an image's name, whatever engine reads it, and nothing else to a Dockerfile."""
    return _IMAGE.fullmatch(text) is not None


def is_sayable(name: str) -> bool:
    """Whether a Dockerfile can say a file's name: in one line, and in UTF-8."""
    return name.isprintable()


def default_tag(name: str, version: str) -> str:
    """An image's name from a model's or a script's, as near as registries take it."""
    repository = name.lower()
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _MOST_CHARACTERS:
        repository = re.sub(r"[^a-z0-9]+", "-", repository)[:_MOST_CHARACTERS].strip("-") or "model"
    return f"{repository}:{version}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image is made of. base: the image of accelserve that it starts from. environment: of the container.

    title: for the label. has_*: which folders and files of the context there are.
    """

    base: str
    title: str
    has_requirements: bool = False
    has_models: bool = False
    has_app: bool = False
    has_files: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def dockerfile(recipe: Recipe) -> str:
    return "\n".join(_lines(recipe)) + "\n"


def _lines(recipe: Recipe) -> Iterator[str]:
    # Not the title first: a comment at the top that begins with a word and = is a directive.
    yield f"# Made by `accelserve package`: {recipe.title}. BASE is an image of Dockerfile.gpu or Dockerfile.fpga."
    yield f"ARG BASE={recipe.base}"
    yield "FROM ${BASE}"
    yield "USER 0"
    if recipe.has_requirements:
        yield "# What the server is made of keeps its version: a package that wants another fails here, not later."
        yield "RUN --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \\"
        yield "    pip --python /opt/venv/bin/python list --format=freeze > /tmp/image.txt \\"
        yield " && pip --python /opt/venv/bin/python install --no-cache-dir --root-user-action=ignore \\"
        yield "    --constraint /tmp/image.txt --requirement /tmp/requirements.txt \\"
        yield " && rm /tmp/image.txt"
    if recipe.has_models:
        yield f"COPY models {image_layout.MODELS}"
    if recipe.has_files:
        yield f"COPY files {image_layout.FILES}"
    if recipe.has_app:
        yield f"COPY app {image_layout.APP}"
        place = image_layout.AZUREML_MODELS
        yield f"RUN if [ ! -e {place} ]; then ln -s {image_layout.MODELS} {place}; fi"
    if recipe.environment:
        told = [f"{name}={_quoted(value)}" for name, value in recipe.environment.items()]
        yield "ENV " + " \\\n    ".join(told)
    yield f"USER {image_layout.USER}"
    yield f"LABEL org.opencontainers.image.title={_quoted(recipe.title)}"


def _quoted(text: str) -> str:
    """As a Dockerfile reads it: no variable is put in its place."""
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")
