"""The command line: reads arguments, builds configuration, prints; nothing else. Heavy parts are imported on use."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from accelserve import __version__
from accelserve.config import OPTIONS, Option, ServerConfig, parse_device, parse_port
from accelserve.config_sources import ConfigError, Loaded, load_config
from accelserve.errors import ExitCode, ScoringError

_SERVE_EPILOG = """\
examples:
  accelserve serve --model digits=models/digits.onnx
  accelserve serve --model resnet50=models/resnet50 --device gpu --http-port 0
  curl --data-binary @photo.jpg http://127.0.0.1:8501/score

Every option can also be an environment variable (ACCELSERVE_HTTP_PORT=9000) or a key of the --config file
(http_port = 9000, models as [models.NAME] path = "..."). ACCELSERVE_MODEL holds models as --model does, separated by
spaces ("a=a.onnx b=b.onnx"); ACCELSERVE_CONFIG names the file. Flags win over the environment, the environment over
the file. Without any model, MODEL_NAME and MODEL_BASE_PATH are read, as TF Serving's image does.

fpga and fpga-emulator are names reserved for back ends that are not part of this version: a model that asks for one
is refused with 6, unless a plug-in brings it. `accelserve devices` lists what is there.

exit codes: 0 ok, 1 unforeseen, 2 usage or configuration, 3 model failed to load, 4 not found, 5 port in use or
other conflict, 6 required device missing
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the process's exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except ConfigError as error:
        for problem in error.problems:
            print(f"accelserve: {problem}", file=sys.stderr)
        return ExitCode.USAGE
    except ScoringError as error:
        print(f"accelserve: {error.message}", file=sys.stderr)
        return ExitCode.of(error.kind)
    except KeyboardInterrupt:
        return ExitCode.UNFORESEEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accelserve", description="A model server for accelerators: SavedModel and ONNX over HTTP and gRPC."
    )
    parser.add_argument("--version", action="version", version=f"accelserve {__version__}")
    commands = parser.add_subparsers(parser_class=_WholeFlags, title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_show(commands)
    _add_devices(commands)
    return parser


class _WholeFlags(argparse.ArgumentParser):
    """An unknown flag is an error, also one that is the beginning of a known one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})


class _Commands(Protocol):
    """The part of argparse's sub-parsers that is used here; its own class is private."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="serve models over HTTP and gRPC",
        epilog=_SERVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--model", action="append", default=[], metavar="NAME=PATH", help=_MODEL_HELP)
    serve.add_argument("--config", type=Path, metavar="FILE.toml", help="configuration file")
    for option in OPTIONS:
        _add_option(serve, option)
    serve.set_defaults(run=_serve)


_MODEL_HELP = "a .onnx file, a SavedModel folder, or a folder of numeric version folders; may be repeated"


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    # The text goes to load_config as typed, so that all mistakes are reported at once.
    if option.is_switch:
        parser.add_argument(option.flag, dest=option.name, action="store_const", const="true", help=option.help)
    else:
        parser.add_argument(option.flag, dest=option.name, metavar=option.metavar, help=_help(option))


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser that argparse repeats the words of."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    return parse_argument


def _help(option: Option) -> str:
    """The option's words, with its default where they do not name it themselves."""
    default = getattr(ServerConfig(), option.name)
    said = "default" in option.help or default in (None, "")
    return option.help if said else f"{option.help} (default: {default})"


def _serve(parsed: argparse.Namespace) -> ExitCode:
    loaded = _load(parsed)
    config = loaded.config

    from accelserve.observability.logs import configure_logging
    from accelserve.runtime import run_server

    configure_logging(json=config.log_format == "json", level=config.log_level)
    _warn(loaded)
    return run_server(config, lambda ready: print(ready, flush=True))


def _load(parsed: argparse.Namespace) -> Loaded:
    flags = {option.name: text for option in OPTIONS if (text := getattr(parsed, option.name)) is not None}
    return load_config(flags, parsed.model, os.environ, parsed.config)


def _warn(loaded: Loaded) -> None:
    import logging

    for warning in loaded.warnings:
        logging.getLogger("accelserve.config").warning("%s", warning)


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser("demo", help="serve the built-in digits model and score a picture")
    demo.add_argument("--exit", action="store_true", help="end after the two answers: 0 when both are right, else 1")
    demo.add_argument("--model", metavar="PATH", type=Path, help="serve this digits model instead of the built-in one")
    for name, protocol in (("http_port", "HTTP"), ("grpc_port", "gRPC")):
        demo.add_argument(
            "--" + name.replace("_", "-"),
            type=_argument(parse_port),
            default=getattr(ServerConfig(), name),
            metavar="PORT",
            help=f"{protocol} port of the demo's server; 0 takes a free one (default: %(default)s)",
        )
    demo.set_defaults(run=_demo)


def _demo(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.demo import run_demo

    return run_demo(parsed.model, parsed.http_port, parsed.grpc_port, stop_after_answers=parsed.exit)


def _add_show(commands: _Commands) -> None:
    show = commands.add_parser("show", help="load a model and say what it takes, gives and does to pictures")
    show.add_argument("model", metavar="PATH", help=_MODEL_HELP.removesuffix("; may be repeated"))
    show.add_argument(
        "--device", type=_argument(parse_device), default="auto", metavar="DEVICE", help="as for serve (default: auto)"
    )
    show.add_argument("--json", action="store_true", help="one JSON object instead of text")
    show.set_defaults(run=_show)


def _show(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.inspection import describe_model, model_as_text
    from accelserve.runtime import build_loader

    description = describe_model(build_loader(), Path(parsed.model), parsed.device)
    print(json.dumps(description, indent=2) if parsed.json else model_as_text(description))
    return ExitCode.OK


def _add_devices(commands: _Commands) -> None:
    devices = commands.add_parser("devices", help="list devices, and what is missing for the others")
    devices.add_argument("--json", action="store_true", help="one JSON object instead of text")
    devices.set_defaults(run=_devices)


def _devices(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.backends.discovery import BackendPool
    from accelserve.inspection import describe_devices, devices_as_text

    description = describe_devices(BackendPool())
    print(json.dumps(description, indent=2) if parsed.json else devices_as_text(description))
    return ExitCode.OK
