"""What the commands of the model store share: its flag, and how names, versions and tags are typed."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from accelserve.commands.parsing import Commands
from accelserve.config_sources import ConfigError

if TYPE_CHECKING:
    from accelserve.models.store import ModelStore, StoredModel

REFERENCE_HELP = "a registered model: NAME is its newest version"
EXIT_CODES = """
exit codes: 0 ok, 2 usage, 3 the model does not load, 4 not found, 5 conflict or in use, or the store cannot be written
"""


def add_stored(commands: Commands, name: str, help: str, epilog: str) -> argparse.ArgumentParser:
    """A command of the store, with `--store`."""
    parser = commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_store(parser)
    return parser


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="the store's folder (default: ACCELSERVE_STORE, else accelserve/store in the user's data folder)",
    )


def open_store(parsed: argparse.Namespace) -> "ModelStore":
    from accelserve.models.store import ModelStore, default_store_root

    return ModelStore((parsed.store or default_store_root(os.environ)).expanduser())


def check_openable(model: "StoredModel", scripted: bool, served: bool) -> None:
    """Is there somebody who opens it? scripted: there is an entry script; served: the server is to load the model.

    Raises ConfigError for a custom model that no script, or the server, would open.
    """
    if model.custom and not scripted:
        told = "is registered as custom, which only an entry script opens: add --entry-script"
        raise ConfigError([f"--model {model.reference} {told}"])
    if model.custom and served:
        raise ConfigError([f"--serve-model: {model.reference} is registered as custom, which no server loads"])


class Typed:
    """Reads what was typed and collects what is wrong with it, so that all mistakes are told at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def pairs(self, flag: str, texts: Sequence[str]) -> dict[str, str]:
        """`K=V`, or `K` for a value that is empty."""
        found: dict[str, str] = {}
        for text in texts:
            key, _, value = text.partition("=")
            if not key:
                self.problems.append(f"{flag} {text!r}: want KEY=VALUE, for example stage=production")
                continue
            if key in found:
                self.problems.append(f"{flag} {text!r}: {key} is given twice")
            found[key] = value
        return found

    def named_files(self, flag: str, texts: Sequence[str]) -> dict[str, Path]:
        """`NAME=PATH` of files and folders that are there; the paths absolute."""
        found: dict[str, Path] = {}
        for text in texts:
            name, _, path = text.partition("=")
            place = os.path.abspath(os.path.expanduser(path))
            if not name or not path:
                self.problems.append(f"{flag} {text!r}: want NAME=PATH, for example mnist=models/mnist")
            elif not os.path.exists(place):
                self.problems.append(f"{flag} {text!r}: there is no {place}")
            elif name in found:
                self.problems.append(f"{flag} {text!r}: {name} is given twice")
            else:
                found[name] = Path(place)
        return found

    def reference(self, text: str) -> tuple[str, int | None]:
        from accelserve.models.store import parse_reference

        try:
            return parse_reference(text)
        except ValueError as error:
            self.problems.append(str(error))
            return text, None

    def exact_reference(self, text: str) -> tuple[str, int]:
        """What is changed is named with its version: the newest may be another by the time it is done."""
        before = len(self.problems)
        name, version = self.reference(text)
        if version is None and len(self.problems) == before:
            self.problems.append(f"{text!r}: which version? want NAME:VERSION, for example {text}:1")
        return name, version or 0

    def check(self) -> None:
        """Raises ConfigError when anything was wrong."""
        if self.problems:
            raise ConfigError(self.problems)
