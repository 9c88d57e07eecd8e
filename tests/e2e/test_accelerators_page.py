"""docs/accelerators.md says what is so: its code is the example's, its settings and commands are taken."""

import re
import shlex
from pathlib import Path

import pytest

from accelserve.backends import base
from accelserve.backends.conformance import PictureConformance
from accelserve.cli import _parser
from accelserve.config_sources import load_config
from accelserve.devices import DeviceKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "accelerators.md").read_text()
EXAMPLE = [
    file.read_text()
    for file in (ROOT / "examples" / "accelerator-plugin").rglob("*")
    if file.suffix in (".py", ".toml")
]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind in ("python", "toml") and "allow" not in text])
def test_the_pages_code_is_the_examples(text):
    assert any(text in file for file in EXAMPLE)


def test_the_page_shows_how_a_plug_in_is_allowed(tmp_path):
    (text,) = [text for kind, text in BLOCKS if kind == "toml" and "allow" in text]
    file = tmp_path / "server.toml"
    file.write_text(text)
    assert load_config({}, ["m=m.onnx"], {}, file).config.backends == ("matmul8",)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("accelserve ")])
def test_the_pages_commands_are_taken(line):
    _parser().parse_args(shlex.split(line)[1:])


def test_the_kits_command_on_the_page_is_the_one_that_the_examples_test_runs():
    assert "pytest --pyargs accelserve.backends.conformance --backend matmul8" in COMMANDS


def test_the_page_names_every_field_method_and_ability():
    fields = [*base.Capabilities.__dataclass_fields__, *base.Offer.__dataclass_fields__]
    methods = ["inventory", "capabilities", "prepare", "load", "health", "run", "close"]
    abilities = [name for name, value in vars(base).items() if getattr(value, "_is_protocol", False)]
    assert "Buffered" in abilities
    given = {"Protocol", "Backend", "Session", "ArtifactCache", "DeviceLease"}
    kinds = [kind.value for kind in DeviceKind]
    missing = [word for word in (*fields, *methods, *sorted(set(abilities) - given), *kinds) if word not in PAGE]
    assert missing == []


def test_the_page_has_every_theme_of_the_kit():
    modules = {
        cls.__module__.rpartition(".")[2] for cls in PictureConformance.__mro__ if cls.__name__.endswith("Checks")
    }
    themes = {name.replace("_", " ").replace("pictures", "pixels") for name in modules - {"fixtures"}}
    assert len(themes) > 8
    assert themes <= set(re.findall(r"^\| ([a-z ]+) \|", PAGE, re.MULTILINE))
