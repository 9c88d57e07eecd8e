"""What the README tells a newcomer to type after `accelserve serve` works as pasted."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import Server, serving

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 30.0


def blocks(heading: str, language: str = "") -> list[str]:
    """The code blocks of a language in a section of the README."""
    section = (CHECKOUT / "README.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [code for said, code in re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL) if said == language]


def commands(block: str) -> list[str]:
    """Lines to type, joined where the shell would read on; answers and comments left out."""
    lines = re.sub(r"\|\n +", "| ", block).splitlines()
    return [line.partition(" # ")[0] for line in lines if re.match(r"(curl|python3|accelserve|pip) ", line)]


SERVE, ASK = blocks("Use it")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    (line,) = (line for line in commands(SERVE) if line.startswith("accelserve serve "))
    arguments = [word.replace("=server/", f"={CHECKOUT}/server/") for word in line.split()[2:]]
    with serving(*arguments, log=tmp_path_factory.mktemp("readme") / "log") as found:
        yield found


def on_this_server(text: str, server: Server) -> str:
    return text.replace("http://127.0.0.1:8501", server.http).replace("127.0.0.1:8500", server.grpc)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", commands(ASK))
def test_the_lines_to_ask_with_are_answered(server, command):
    answer = json.loads(run(["bash", "-c", on_this_server(command.replace("curl ", "curl --silent --fail "), server)]))
    if "/score" in command:
        assert answer[0]["label"] == "seven"
    elif ":predict" in command:
        assert len(answer["predictions"][0]) == 10
    else:
        assert answer["model_spec"]["name"] == "digits"


def test_the_python_client_is_answered(server):
    (code,) = blocks("Use it", "python")
    best, outputs = run([sys.executable, "-c", on_this_server(code, server)]).split("\n", 1)
    assert "'label': 'seven'" in best
    assert "'scores': array" in outputs
