"""The walk of docs/azure.md is what happens: register, deploy, keys, score, rotate, update, script, delete."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from local_services import shop

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 180.0


def walk() -> list[tuple[str, str]]:
    """Each command that the page types, and what it says is answered; blocks follow one another."""
    text = (CHECKOUT / "docs" / "azure.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    steps = [step.partition("\n") for block in blocks for step in block.split("$ ")[1:]]
    return [(command, answer) for command, _, answer in steps]


def pattern(answer: str) -> str:
    """An `…` alone on its line is any lines, one within a line any words; the last line may lack its end."""
    return re.escape(answer.rstrip("\n")).replace("…\\\n", "(?:.*\\n)*").replace("…", "[\\s\\S]*?") + "\\n?"


def typed_in_one_shell(commands: list[str], environ: dict[str, str]) -> list[str]:
    """What each command printed, on both streams."""
    script = "exec 2>&1\n" + "".join(f"{command}\nprintf '\\036'\n" for command in commands)
    done = subprocess.run(
        ["bash"], input=script, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=environ, timeout=LIMIT_S
    )
    return done.stdout.split("\x1e")[:-1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_command_of_the_page_answers_as_the_page_says(tmp_path, monkeypatch, capsys):
    command = tmp_path / "bin" / "accelserve"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m accelserve "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steps = walk()
    assert len(steps) == 24
    with shop(tmp_path, monkeypatch, capsys):
        environ = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
        answers = typed_in_one_shell([command for command, _ in steps], environ)
        assert len(answers) == len(steps)
        for (command_line, wanted), said in zip(steps, answers, strict=True):
            assert re.fullmatch(pattern(wanted), said), f"{command_line}\n{said}"
