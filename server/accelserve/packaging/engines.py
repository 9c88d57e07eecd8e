"""The commands that build an image, and what is there to run them."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ENGINES = ("docker", "podman", "buildah")
_ASKS_S = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One image. dockerfile: within the context."""

    context: Path
    tag: str
    dockerfile: str = "Dockerfile"
    arguments: tuple[tuple[str, str], ...] = ()

    def command(self, engine: str) -> list[str]:
        # Without it podman and buildah make an image of another format, which has no health check.
        as_docker = ["--format", "docker"] if engine != "docker" else []
        told = [word for name, value in self.arguments for word in ("--build-arg", f"{name}={value}")]
        file = str(self.context / self.dockerfile)
        verb = "bud" if engine == "buildah" else "build"
        return [engine, verb, *as_docker, "-f", file, "-t", self.tag, *told, str(self.context)]


def find_engine() -> str | None:
    """The first that works here: a docker without its daemon is none."""
    for engine in _ENGINES:
        if shutil.which(engine) and (engine != "docker" or _answers()):
            return engine
    return None


def _answers() -> bool:
    try:
        asked = subprocess.run(["docker", "version"], capture_output=True, timeout=_ASKS_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def run(command: Sequence[str], output: int) -> int:
    """The exit code; what it prints goes to `output`, a file descriptor."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output).returncode
