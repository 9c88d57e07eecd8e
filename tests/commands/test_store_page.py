"""The walk of docs/store.md is what happens."""

import re
import shlex
from pathlib import Path

from accelserve.cli import main

CHECKOUT = Path(__file__).parents[2]


def walk() -> list[tuple[str, str]]:
    """Each command that the page types, and what it says is answered."""
    (block,) = re.findall(r"```console\n(.*?)```", (CHECKOUT / "docs" / "store.md").read_text(), re.DOTALL)
    steps = [step.partition("\n") for step in block.split("$ ")[1:]]
    return [(command, answer) for command, _, answer in steps]


def pattern(answer: str) -> str:
    """An `…` alone on its line is any lines, one within a line any words."""
    return re.escape(answer).replace("…\\\n", "(?:.*\\n)*").replace("…", ".*")


def test_every_command_of_the_page_answers_as_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(CHECKOUT)
    steps = walk()
    assert len(steps) == 10
    for command, answer in steps:
        program, *arguments = shlex.split(command)
        assert program == "accelserve"
        main(arguments)
        said = capsys.readouterr()
        assert re.fullmatch(pattern(answer), said.out + said.err), f"{command}\n{said.out}{said.err}"
