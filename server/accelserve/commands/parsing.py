"""What the commands' parsers share."""

import argparse
from collections.abc import Callable
from typing import Any, Protocol

MODEL_HELP = "a .onnx file, a SavedModel folder, a converted one, or a folder of numeric version folders"


class WholeFlags(argparse.ArgumentParser):
    """An unknown flag is an error, also one that is the beginning of a known one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})


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


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, for commands that print tables."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
