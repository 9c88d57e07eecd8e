"""`accelserve demo`: the built-in model, served and asked."""

import argparse
from pathlib import Path

from accelserve.commands.parsing import Commands, argument
from accelserve.config import ServerConfig
from accelserve.config_parsers import parse_port
from accelserve.errors import ExitCode


def add(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="serve the built-in digits model and score a picture")
    demo.add_argument("--exit", action="store_true", help="end after the two answers: 0 when both are right, else 1")
    demo.add_argument("--model", metavar="PATH", type=Path, help="serve this digits model instead of the built-in one")
    for name, protocol in (("http_port", "HTTP"), ("grpc_port", "gRPC")):
        demo.add_argument(
            "--" + name.replace("_", "-"),
            type=argument(parse_port),
            default=getattr(ServerConfig(), name),
            metavar="PORT",
            help=f"{protocol} port of the demo's server; 0 takes a free one (default: %(default)s)",
        )
    demo.set_defaults(run=_demo)


def _demo(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.demo import run_demo

    return run_demo(parsed.model, parsed.http_port, parsed.grpc_port, stop_after_answers=parsed.exit)
