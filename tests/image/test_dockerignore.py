"""What a build is given of the checkout: what the Dockerfiles copy, and no more."""

import re
import tomllib
from pathlib import Path

import pytest

from dockerfiles import CHECKOUT, IMAGES

PATTERNS = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
MOST_BYTES = 4 * 2**20


def is_given(path: str) -> bool:
    """Whether the file is part of the context: the last pattern that matches it or a folder of it decides."""
    ignored = False
    for pattern in PATTERNS:
        if re.match(_regex(pattern.removeprefix("!")) + r"(/|$)", path):
            ignored = not pattern.startswith("!")
    return not ignored


def _regex(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*)", pattern)
    return "".join({"**/": "(?:.*/)?", "*": "[^/]*"}.get(part) or _literal(part) for part in parts)


def _literal(text: str) -> str:
    """Brackets are a class of characters in both languages."""
    return "".join(part if part.startswith("[") else re.escape(part) for part in re.split(r"(\[[^]]*\])", text))


def copied() -> list[str]:
    """What the Dockerfiles take from the context."""
    values = {value for image in IMAGES for stage in image.stages for value in stage.values("COPY")}
    return sorted({source for value in values if "--from=" not in value for source in value.split()[:-1]})


def test_all_that_is_copied_is_there_and_given():
    for source in copied():
        found = [path for top in CHECKOUT.glob(source) for path in (top, *top.rglob("*")) if path.is_file()]
        given = [path for path in found if is_given(str(path.relative_to(CHECKOUT)))]
        assert given, source


def test_every_file_of_the_package_is_given():
    sources = [path for path in (CHECKOUT / "server" / "accelserve").rglob("*") if path.suffix in (".py", ".onnx")]
    assert all(is_given(str(path.relative_to(CHECKOUT))) for path in sources)


def test_what_the_wheel_is_made_with_is_given():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for file in ("pyproject.toml", project["readme"], *project["license-files"]):
        assert is_given(file), file


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".venv/bin/python",
        ".cache/image-check/anything",
        "tests/conftest.py",
        "benchmarks/README.md",
        "deploy/anything.yaml",
        "server/accelserve/__pycache__/cli.cpython-311.pyc",
        "server/accelserve/stale.pyc",
        "server/accelserve.egg-info/PKG-INFO",
        "server/accelserve/.secret",
    ],
)
def test_what_no_image_needs_is_kept_back(path):
    assert not is_given(path)


def test_it_is_small():
    tops = {CHECKOUT / Path(source).parts[0] for source in copied()}
    files = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
    assert sum(path.stat().st_size for path in files if is_given(str(path.relative_to(CHECKOUT)))) < MOST_BYTES
