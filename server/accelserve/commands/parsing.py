"""What the commands' parsers share."""

import argparse
import os
from collections.abc import Callable, Collection
from typing import Any, Protocol

from accelserve.config_options import BACKENDS_HELP
from accelserve.config_parsers import parse_backends
from accelserve.config_sources import ConfigError

MODEL_HELP = "a .onnx file, a SavedModel folder, a converted one, or a folder of numeric version folders"


class WholeFlags(argparse.ArgumentParser):
    """An unknown flag is an error, also one that is the beginning of a known one.

    mixed: what is no flag may stand between flags, and need not be in one row.
    """

    def __init__(self, mixed: bool = False, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})
        self._mixed = mixed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self._mixed:
            return super().parse_known_args(args, namespace)
        self._mixed = False  # argparse asks this again: for the flags, then for the rest
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixed = True


class Commands(Protocol):
    """The part of argparse's sub-parsers that is used here; its own class is private."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser that argparse repeats the words of."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    return parse_argument


def add_backends(parser: argparse.ArgumentParser) -> None:
    """`--backends`, for commands that look for devices or load models; `allowed_backends` reads it."""
    parser.add_argument("--backends", type=argument(parse_backends), metavar="NAME[,NAME]", help=BACKENDS_HELP)


def allowed_backends(parsed: argparse.Namespace) -> tuple[str, ...]:
    """The flag, else ACCELSERVE_BACKENDS. Raises ConfigError when it names what is not installed."""
    named: tuple[str, ...] | None = parsed.backends
    source, text = "--backends", os.environ.get("ACCELSERVE_BACKENDS", "")
    if named is None:
        source = "ACCELSERVE_BACKENDS"
        try:
            named = parse_backends(text)
        except ValueError as error:
            raise ConfigError([f"{source}: {text!r}: {error}"]) from error
    check_backends(named, source)
    return named


def check_backends(named: Collection[str], source: str) -> None:
    """Raises ConfigError naming what is installed, when another is named. source: who named them."""
    from accelserve.backends.plug_ins import unknown_names

    if named and (wrong := unknown_names(named)):
        raise ConfigError([f"{source}: {wrong}"])


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, for commands that print tables."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
