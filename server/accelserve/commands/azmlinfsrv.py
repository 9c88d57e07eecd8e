"""`accelserve azmlinfsrv`: in the place of azureml-inference-server-http's command of that name."""

import argparse
import os
import sys
from pathlib import Path

from accelserve.azmlinfsrv.config import AzmlConfigError, AzmlFlags, AzmlLoaded, load_azml_config, own_options
from accelserve.collector import imports_that_stay
from accelserve.commands.parsing import Commands
from accelserve.commands.serve import option_help
from accelserve.errors import ExitCode

_EPILOG = """\
examples:
  accelserve azmlinfsrv --entry_script score.py
  accelserve azmlinfsrv --entry_script score.py --model_dir models --worker_count 4 --port 5001
  curl -H 'Content-Type: application/json' -d '{"data": [1, 2]}' http://127.0.0.1:5001/score

The original's environment names are read (AZUREML_MODEL_DIR, SCORING_TIMEOUT_MS, WORKER_TIMEOUT, AML_CORS_ORIGINS,
SEPERATE_HEALTH_ENDPOINT, ...), and config.json in AML_APP_ROOT or beside the script: flags win over the environment,
the environment over the file. docs/azure_probe_table.md lists where answers differ from the original's;
--strict-compat gives the original's, its address 0.0.0.0 and its exit codes: 1 for a wrong command line or a port in
use, 3 for what is wrong in the environment or the file.

exit codes: 0 ok, 1 unforeseen, 2 usage or configuration, 3 the entry script does not start, 5 port in use
"""
_ORIGINALS = {
    "entry_script": ("FILE", "the scoring script, with init() and run()"),
    "model_dir": ("DIR", "the model folder, AZUREML_MODEL_DIR to the script"),
    "port": ("PORT", "where to serve (default: 5001; 0 takes a free one)"),
    "health_port": ("PORT", "where to serve too, with SEPERATE_HEALTH_ENDPOINT=true (default: 5000)"),
    "worker_count": ("N", "worker processes (default: 1)"),
    "access_control_allow_origins": ("ORIGIN,...", "pages of these origins may ask: CORS"),
    "config_file": ("FILE", "config.json"),
    "appinsights_instrumentation_key": ("KEY", "accepted and not used: nothing is sent to Application Insights"),
}


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "azmlinfsrv",
        help="serve an Azure ML entry script as azureml-inference-server-http does",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, (metavar, text) in _ORIGINALS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--rest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--strict-compat", action="store_true", help="answer, bind and exit exactly as the original")
    for option in own_options():
        if option.is_switch:
            switch = {"action": "store_const", "const": "true"}
            parser.add_argument(option.flag, dest=option.name, help=option.help, **switch)  # type: ignore[arg-type]
        else:
            parser.add_argument(option.flag, dest=option.name, metavar=option.metavar, help=option_help(option))
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> ExitCode:
    try:
        loaded = load_azml_config(_flags(parsed), os.environ, Path.cwd())
    except AzmlConfigError as error:
        if not parsed.strict_compat:
            raise
        print("\n".join(error.problems), file=sys.stderr)
        return ExitCode(error.exit_code)
    return _serve(loaded)


def _flags(parsed: argparse.Namespace) -> AzmlFlags:
    own = {option.name: text for option in own_options() if (text := getattr(parsed, option.name)) is not None}
    named = {name: getattr(parsed, name) for name in _ORIGINALS if name != "appinsights_instrumentation_key"}
    insights = parsed.appinsights_instrumentation_key is not None
    return AzmlFlags(**named, insights=insights, own=own, strict=parsed.strict_compat)


def _serve(loaded: AzmlLoaded) -> ExitCode:
    import logging

    with imports_that_stay():
        from accelserve.azmlinfsrv.runtime import run_azmlinfsrv
        from accelserve.observability.logs import configure_logging

    config = loaded.config
    configure_logging(json=config.server.log_format == "json", level=config.log_level)
    for warning in loaded.warnings:
        logging.getLogger("accelserve.config").warning("%s", warning)
    code = run_azmlinfsrv(config, lambda ready: print(ready, flush=True))
    return ExitCode.UNFORESEEN if config.strict and code is ExitCode.CONFLICT else code  # a port in use
