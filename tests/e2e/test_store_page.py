"""The walk of docs/store.md is what happens: register, list, show, update, serve, score, delete."""

import os
import re
import shlex
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from server_process import Server, serving

from accelserve.cli import main

CHECKOUT = Path(__file__).parents[2]
Answers = list[tuple[str, str]]


def walk() -> Answers:
    """Each command that the page types, and what it says is answered; blocks follow one another."""
    text = (CHECKOUT / "docs" / "store.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    steps = [step.partition("\n") for block in blocks for step in block.split("$ ")[1:]]
    return [(command, answer) for command, _, answer in steps]


def pattern(answer: str) -> str:
    """An `…` alone on its line is any lines, one within a line any words."""
    return re.escape(answer).replace("…\\\n", "(?:.*\\n)*").replace("…", ".*")


class Terminal:
    """Does what the page types. A server and curl take a free port in place of 8501."""

    def __init__(self, capsys, folder: Path, stack: ExitStack) -> None:
        self._capsys = capsys
        self._folder = folder
        self._stack = stack
        self._server: Server | None = None

    def type(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        if arguments[-1] == "&":
            return self._serve(arguments[1:-1])
        if program == "curl":
            return self._curl(arguments[arguments.index("--data-binary") + 1].removeprefix("@"), arguments[-1])
        if program == "kill":
            assert self._server is not None
            assert self._server.stop() == 0
            return ""
        assert program == "accelserve"
        main(arguments)
        said = self._capsys.readouterr()
        return said.out + said.err

    def _serve(self, options: list[str]) -> str:
        self._server = self._stack.enter_context(serving(*options, log=self._folder / "log"))
        return self._server.ready

    def _curl(self, picture: str, url: str) -> str:
        assert self._server is not None
        place = urlsplit(url)
        body = (CHECKOUT / picture).read_bytes()
        with urlopen(f"{self._server.http}{place.path}?{place.query}", body, timeout=30) as answer:
            return answer.read().decode() + "\n"


def test_every_command_of_the_page_answers_as_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(CHECKOUT)
    steps = walk()
    assert len(steps) == 18
    with ExitStack() as stack:
        terminal = Terminal(capsys, tmp_path, stack)
        for command, answer in steps:
            said = terminal.type(command)
            assert re.fullmatch(pattern(answer), said), f"{command}\n{said}"
    assert not os.listdir(tmp_path / "store" / ".accelserve" / "incoming")
