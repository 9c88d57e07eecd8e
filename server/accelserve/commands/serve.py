"""`accelserve serve`: reads the configuration from flags, environment and file, and runs the server."""

import argparse
import os
import shlex
from pathlib import Path

from accelserve.collector import imports_that_stay
from accelserve.commands.parsing import MODEL_HELP, Commands, argument, check_backends
from accelserve.config import ServerConfig
from accelserve.config_options import OPTIONS, Option
from accelserve.config_sources import Loaded, load_config
from accelserve.errors import ExitCode
from accelserve.supervised import parse_supervised

_USERS_STORE = object()  # --store without a folder

_EPILOG = """\
examples:
  accelserve serve --model digits=models/digits.onnx
  accelserve serve --model resnet50=models/resnet50 --device gpu --http-port 0
  accelserve serve --model resnet50=models/resnet50 --device gpu:0,1 --instances 2
  accelserve serve --store                                  every registered model, and what is registered later
  accelserve serve --store /srv/store --model resnet50:3    one of another store, in one version
  accelserve serve --entry-script score.py --workers 2      init() and run() of an Azure ML entry script
  curl --data-binary @photo.jpg http://127.0.0.1:8501/score

Every option can also be an environment variable (ACCELSERVE_HTTP_PORT=9000) or a key of the --config file
(http_port = 9000, models as [models.NAME] path = "..."). ACCELSERVE_MODEL holds models as --model does, separated by
spaces ("a=a.onnx b=b.onnx"); ACCELSERVE_CONFIG names the file. Flags win over the environment, the environment over
the file. Without any model, MODEL_NAME and MODEL_BASE_PATH are read, as TF Serving's image does.

A folder of versions and a store are looked at every --poll-interval seconds. Of each model the highest version is
served, unless [models.NAME] in the file says versions = "latest:2", "all" or [1, 3]; a new version takes over when it
is loaded and checked, and the old one answers what it has accepted. A model that loses its device is loaded again.

fpga runs on a card, or is refused with 6 and every piece that lacks; fpga-emulator runs a model as such a card would,
on the CPU, and every answer says so (docs/fpga.md). `accelserve devices` lists what is there.

Keys and TLS are in docs/security.md, entry scripts in docs/entry_scripts.md; without --model a script serves alone.

A plug-in of another package runs only if --backends NAME, ACCELSERVE_BACKENDS or [backends] allow = ["NAME"] in the
file says so.

exit codes: 0 ok, 1 unforeseen, 2 usage or configuration, 3 model or entry script failed to load, 4 not found, 5 port
in use or other conflict, 6 required device missing
"""


def add(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="serve models over HTTP and gRPC",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help=MODEL_HELP + "; with --store also NAME or NAME:VERSION; may be repeated",
    )
    serve.add_argument("--config", type=Path, metavar="FILE.toml", help="configuration file")
    for option in OPTIONS:
        _add_option(serve, option)
    serve.add_argument("--supervised", type=argument(parse_supervised), help=argparse.SUPPRESS)  # by `deploy`
    serve.set_defaults(run=_serve)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    # The text goes to load_config as typed, so that all mistakes are reported at once.
    if option.is_switch:
        parser.add_argument(option.flag, dest=option.name, action="store_const", const="true", help=option.help)
    elif option.name == "model_files":
        parser.add_argument(
            option.flag, dest=option.name, action="append", metavar=option.metavar, help=option_help(option)
        )
    elif option.name == "store":
        parser.add_argument(
            option.flag, dest=option.name, nargs="?", const=_USERS_STORE, metavar=option.metavar, help=option.help
        )
    else:
        parser.add_argument(option.flag, dest=option.name, metavar=option.metavar, help=option_help(option))


def option_help(option: Option) -> str:
    """The option's words, with its default where they do not name it themselves."""
    default = getattr(ServerConfig(), option.name)
    said = "default" in option.help or default in (None, "", ())
    return option.help if said else f"{option.help} (default: {default})"


def _serve(parsed: argparse.Namespace) -> ExitCode:
    loaded = _load(parsed)
    config = loaded.config

    check_backends(config.backends, "--backends")

    with imports_that_stay():
        from accelserve.observability.logs import configure_logging
        from accelserve.runtime import run_server

    configure_logging(json=config.log_format == "json", level=config.log_level)
    _warn(loaded)
    return run_server(config, lambda ready: print(ready, flush=True), parsed.supervised)


def _load(parsed: argparse.Namespace) -> Loaded:
    if parsed.model_files is not None:
        parsed.model_files = shlex.join(parsed.model_files)
    flags = {option.name: text for option in OPTIONS if (text := getattr(parsed, option.name)) is not None}
    if flags.get("store") is _USERS_STORE:
        from accelserve.models.store import default_store_root

        flags["store"] = str(default_store_root(os.environ))
    return load_config(flags, parsed.model, os.environ, parsed.config)


def _warn(loaded: Loaded) -> None:
    import logging

    for warning in loaded.warnings:
        logging.getLogger("accelserve.config").warning("%s", warning)
