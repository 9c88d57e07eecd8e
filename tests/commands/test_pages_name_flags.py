"""The public pages name every flag of the commands that they are about."""

import re
from pathlib import Path

import pytest

from accelserve.cli import main

DOCS = Path(__file__).parents[2] / "docs"
OF_MANY_COMMANDS = {"--help", "--json", "--store"}


def flags(capsys, *command: str) -> set[str]:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    return named(usage) - OF_MANY_COMMANDS


def named(text: str) -> set[str]:
    """`--no-X` is told with `--X`."""
    return {flag.replace("--no-", "--") for flag in re.findall(r"--[a-z][a-z_-]+", text)}


@pytest.mark.parametrize(
    ("command", "pages"),
    [
        ("deploy", ("azure", "kubernetes")),
        ("services update", ("azure",)),
        ("services keys", ("azure",)),
        ("services logs", ("azure",)),
        ("score", ("score",)),
        ("package", ("package",)),
        ("azmlinfsrv", ("entry_scripts", "security")),
    ],
)
def test_a_page_names_every_flag_of_its_command(capsys, command, pages):
    text = "".join((DOCS / f"{page}.md").read_text() for page in pages)
    assert flags(capsys, *command.split()) - named(text) == set()
