"""`accelserve show`: what a model takes, gives, and does to pictures."""

import argparse
import json
from pathlib import Path

from accelserve.commands.parsing import MODEL_HELP, Commands, add_json, argument
from accelserve.config import parse_device
from accelserve.errors import ExitCode


def add(commands: Commands) -> None:
    show = commands.add_parser("show", help="load a model and say what it takes, gives and does to pictures")
    show.add_argument("model", metavar="PATH", help=MODEL_HELP)
    show.add_argument(
        "--device", type=argument(parse_device), default="auto", metavar="DEVICE", help="as for serve (default: auto)"
    )
    add_json(show)
    show.set_defaults(run=_show)


def _show(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.inspection import describe_model, model_as_text
    from accelserve.runtime import build_loader

    description = describe_model(build_loader(), Path(parsed.model), parsed.device)
    print(json.dumps(description, indent=2) if parsed.json else model_as_text(description))
    return ExitCode.OK
