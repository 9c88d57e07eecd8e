"""The command line: finds the command, and turns what it raises into words and an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence

from accelserve import __version__
from accelserve.commands import (
    azmlinfsrv,
    convert,
    delete,
    demo,
    deploy,
    devices,
    list_models,
    package,
    path,
    recipes,
    register,
    score,
    serve,
    services,
    show,
    update,
    verify,
)
from accelserve.commands.parsing import WholeFlags
from accelserve.config_sources import ConfigError
from accelserve.errors import ExitCode, ScoringError

# ONNX Runtime 1.31 makes an id and keeps events for its makers in the user's cache as soon as it is imported; its
# function to end that comes after the fact. Child processes get it too; who wants to tell says 0.
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")

# The core of grpcio reads this as it is imported, and never again. Its newer way has threads of its own read the
# sockets, and what they have read handed on: more CPU for every call (docs/container.md).
_GRPC_READS_ITSELF = ("GRPC_EXPERIMENTS", "-event_engine_listener")

# As `--help` lists them. Each module has `add`, which sets `run` on its parser.
_COMMANDS = (
    serve,
    azmlinfsrv,
    demo,
    show,
    devices,
    register,
    list_models,
    update,
    delete,
    path,
    convert,
    verify,
    recipes,
    score,
    deploy,
    services,
    package,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the process's exit code."""
    os.environ.setdefault(*_NO_TELEMETRY)
    os.environ.setdefault(*_GRPC_READS_ITSELF)
    parsed = _parser().parse_args(arguments)
    try:
        code = int(parsed.run(parsed))
        sys.stdout.flush()
        return code
    except ConfigError as error:
        for problem in error.problems:
            print(f"accelserve: {problem}", file=sys.stderr)
        return ExitCode.USAGE
    except ScoringError as error:
        print(f"accelserve: {error.message}", file=sys.stderr)
        return ExitCode.of(error.kind)
    except KeyboardInterrupt:
        return ExitCode.UNFORESEEN
    except BrokenPipeError:  # `accelserve list | head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        return ExitCode.UNFORESEEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accelserve", description="A model server for accelerators: SavedModel and ONNX over HTTP and gRPC."
    )
    parser.add_argument("--version", action="version", version=f"accelserve {__version__}")
    commands = parser.add_subparsers(parser_class=WholeFlags, title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
