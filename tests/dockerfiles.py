"""The images that we ship, and their Dockerfiles read as values."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dockerfile_parse import DockerfileParser

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next. instructions: (name, value) in order, comments left out."""

    base: str
    name: str
    instructions: tuple[tuple[str, str], ...]

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]


@dataclass(frozen=True)
class Image:
    """One flavour of a Dockerfile. device: what ACCELSERVE_DEVICE is in it."""

    file: str
    build_args: Mapping[str, str]
    device: str

    def __str__(self) -> str:
        return "-".join((self.file, *self.build_args.values()))

    __hash__ = object.__hash__

    @property
    def path(self) -> Path:
        return CHECKOUT / self.file

    @cached_property
    def _stages(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in stages(self.path.read_text(), self.build_args)}

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self._stages.values())

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    @property
    def lineage(self) -> tuple[Stage, ...]:
        """The stages that the image is made of, from the one on an outer base to the last."""
        found = [self.last]
        while found[0].base in self._stages:
            found.insert(0, self._stages[found[0].base])
        return tuple(found)

    @property
    def environment(self) -> dict[str, str]:
        """What a process in it finds; a PATH of the base is left as $PATH."""
        found: dict[str, str] = {}
        for stage in self.lineage:
            found |= _parser(_text(stage), {"PATH": "$PATH"}, self.build_args).envs
        return found

    @property
    def labels(self) -> dict[str, str]:
        return dict(_parser(_text(self.last), {}, self.build_args).labels)

    @property
    def command(self) -> list[str]:
        """ENTRYPOINT and CMD as one process; fails unless both are in exec form."""
        return [*self.exec_form("ENTRYPOINT"), *self.exec_form("CMD")]

    def exec_form(self, instruction: str) -> list[str]:
        return list(json.loads(self.last.values(instruction)[-1]))

    @property
    def health_check(self) -> list[str]:
        """The command of HEALTHCHECK; fails unless it is in exec form."""
        options, _, command = self.last.values("HEALTHCHECK")[-1].partition("CMD ")
        assert "--timeout=" in options
        return list(json.loads(command))


IMAGES = (
    Image("Dockerfile.gpu", {"ACCEL": "gpu"}, "gpu"),
    Image("Dockerfile.gpu", {"ACCEL": "cpu"}, "cpu"),
    Image("Dockerfile.fpga", {}, "fpga-emulator"),
)


def stages(text: str, build_args: Mapping[str, str]) -> Iterator[Stage]:
    parser = _parser(text, {}, build_args)
    bases = iter(parser.parent_images)  # with the build arguments filled in
    base, name, instructions = "", "", []
    for found in parser.structure:
        if found["instruction"] == "FROM":
            if base:
                yield Stage(base, name, tuple(instructions))
            base, instructions = next(bases), []
            name = found["value"].partition(" AS ")[2]
        elif base and found["instruction"] != "COMMENT":
            instructions.append((found["instruction"], found["value"]))
    yield Stage(base, name, tuple(instructions))


def _text(stage: Stage) -> str:
    return "\n".join((f"FROM {stage.base}", *map(" ".join, stage.instructions)))


def _parser(text: str, parent_env: Mapping[str, str], build_args: Mapping[str, str]) -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO(text.encode()), parent_env=dict(parent_env), build_args=dict(build_args))
