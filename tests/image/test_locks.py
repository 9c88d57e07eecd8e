"""The pinned packages of the images fit what pyproject.toml asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from dockerfiles import CHECKOUT

LOCKS = CHECKOUT / "deploy" / "locks"
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
FLAVOURS = {
    "cpu": ["cpu"],
    "cpu-tensorflow": ["cpu", "tensorflow", "convert"],
    "cpu-openvino": ["cpu", "openvino"],
    "gpu": ["gpu", "gpu-jpeg"],
    "gpu-tensorflow": ["gpu", "gpu-jpeg", "tensorflow", "convert"],
}
REMEDY = "run scripts/lock and commit what it writes"


def pins(name: str) -> dict[str, str]:
    """Package -> version; fails on a line that is neither a pin with its hash nor a comment."""
    text = (LOCKS / f"{name}.txt").read_text()
    found = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}\n", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 2 * len(found), f"{name}.txt has more than pins"
    return dict(found)


def check(requirements: list[str], pinned: dict[str, str]) -> None:
    for requirement in map(Requirement, requirements):
        version = pinned.get(requirement.name.lower().replace("_", "-"))
        assert version is not None, f"{requirement.name} is not locked: {REMEDY}"
        assert requirement.specifier.contains(version), f"{requirement}: {version} is locked; {REMEDY}"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_flavours_lock_fits_the_project(flavour):
    pinned = pins(flavour) | (pins("nvidia") if flavour.startswith("gpu") else {})
    wanted = [each for extra in FLAVOURS[flavour] for each in EXTRAS[extra] if not each.startswith("accelserve[")]
    check(PYPROJECT["project"]["dependencies"] + wanted, pinned)


def test_the_wheel_is_built_with_what_the_project_asks_for():
    check(PYPROJECT["build-system"]["requires"], pins("build"))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_there_is_one_onnx_runtime_and_no_nvidia_library_outside_its_layer(flavour):
    names = pins(flavour).keys()
    assert len(names & {"onnxruntime", "onnxruntime-gpu"}) == 1
    assert not [name for name in names if name.startswith("nvidia-")]


def test_there_is_a_lock_for_each_flavour_and_no_other():
    assert {path.stem for path in LOCKS.glob("*.txt")} == {*FLAVOURS, "build", "nvidia"}
