"""`accelserve services`: how services are, what they log, their keys; changing, starting and deleting them."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelserve.commands.parsing import Commands, WholeFlags, add_json, argument
from accelserve.commands.service_checks import check_definition, check_device, pinned, tell_remarks
from accelserve.commands.service_flags import add_service_flags, read_service_flags, read_whole
from accelserve.commands.service_telling import add_wait, status_lines, told
from accelserve.commands.stored import Typed
from accelserve.config_sources import ConfigError
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.deploy.definition import ServiceDefinition
    from accelserve.deploy.registry import Services
    from accelserve.deploy.status import Status

_MOST_LINES = 5000  # as Azure ML's get_logs

_EPILOG = """\
examples:
  accelserve services list
  accelserve services status digits-service
  accelserve services logs digits-service -n 100
  accelserve services keys digits-service --regenerate secondary
  accelserve services keys digits-service --regenerate primary --from -        your own, from standard input
  accelserve services update digits-service --model digits:2 --wait
  accelserve services update digits-service --replicas 4
  accelserve services delete digits-service

An update takes over one replica after the other; what does not get ready is refused, and the service goes on as it was.
Deleting drains first. A service whose supervisor was killed, or whose machine was started again, is started by `start`.

exit codes: 0 ok, 1 unforeseen, or not Healthy in time, 2 usage or configuration, 3 the script or the model does not
load, 4 no such service or model, 5 conflict or in use, 6 required device missing
"""


def add(commands: Commands) -> None:
    services = commands.add_parser(
        "services",
        help="list services, their states, logs and keys; update, start and delete them",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = services.add_subparsers(parser_class=WholeFlags, title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all services and their states")
    add_json(listing)
    listing.set_defaults(run=_list)
    status = _named(actions, "status", "state, reason, replicas and addresses")
    add_json(status)
    status.set_defaults(run=_status)
    _add_logs(actions)
    _add_keys(actions)
    update = _named(actions, "update", "change what is said, one replica after the other; the rest stays as it is")
    add_service_flags(update, changes=True)
    start = _named(actions, "start", "start a service that nobody supervises")
    for action, run in ((update, _update), (start, _start)):
        add_wait(action)
        add_json(action)
        action.set_defaults(run=run)
    _named(actions, "delete", "drain it, and forget it with its keys and logs").set_defaults(run=_delete)


def _named(actions: Commands, name: str, help: str) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=help, description=help)
    action.add_argument("name", metavar="NAME", help="the service")
    return action


def _add_logs(actions: Commands) -> None:
    logs = _named(actions, "logs", "the last lines of its processes")
    logs.add_argument(
        "-n",
        type=argument(_lines),
        default=_MOST_LINES,
        metavar="N",
        dest="lines",
        help=f"how many lines (default: {_MOST_LINES})",
    )
    logs.add_argument("--init", action="store_true", help="only from each replica's last start until it was ready")
    logs.set_defaults(run=_logs)


def _add_keys(actions: Commands) -> None:
    keys = _named(actions, "keys", "its two keys, either of which is accepted")
    keys.add_argument("--regenerate", choices=["primary", "secondary"], help="replace this one; no restart is needed")
    keys.add_argument(
        "--from",
        dest="source",
        metavar="FILE|-",
        help="with --regenerate: your own key, from a file or standard input (a command line is seen by others)",
    )
    add_json(keys)
    keys.set_defaults(run=_keys)


def _lines(text: str) -> int:
    number = read_whole(text)
    if number < 1:
        raise ValueError("want a number of lines above 0")
    return number


def _services() -> "Services":
    from accelserve.deploy.registry import Services, services_root

    return Services(services_root(os.environ))


def _list(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.status import status_of
    from accelserve.listing import aligned

    services = _services()
    statuses = [status_of(services.folder(name)) for name in services.names()]
    if parsed.json:
        told = [status.as_json() for status in statuses]
        print(json.dumps({"folder": str(services.root), "services": told}, indent=2))
    elif statuses:
        print(aligned([_HEAD, *map(_row, statuses)]))
    else:
        print("there is no service")
    return ExitCode.OK


_HEAD = ("NAME", "STATE", "READY", "MODEL", "SCRIPT", "DEVICE", "SCORING_URI")


def _row(status: "Status") -> Sequence[str]:
    view, d = status.view, status.definition
    ready = f"{view.ready}/{view.wanted}"
    if d is None or status.addresses is None:
        return (status.name, view.state.value, ready, "?", "?", "?", "?")
    script = Path(d.entry_script).name if d.entry_script else "-"
    return (status.name, view.state.value, ready, d.reference or "-", script, d.device, status.addresses.scoring_uri)


def _status(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.status import status_of

    status = status_of(_services().find(parsed.name))
    print(json.dumps(status.as_json(), indent=2) if parsed.json else "\n".join(status_lines(status)))
    return ExitCode.OK


def _logs(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.logs import read_together

    for line in read_together(_services().find(parsed.name).log, parsed.lines, parsed.init):
        print(line)
    return ExitCode.OK


def _keys(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.folder import folder_errors
    from accelserve.keys import KeyFileError, read_keys, replace_key

    folder = _services().find(parsed.name)
    if parsed.source is not None and parsed.regenerate is None:
        raise ConfigError(["--from: say with --regenerate which key it is to be"])
    if folder.read()[1].auth != "key":  # keys that were asked for before may still be there
        message = f'service "{folder.name}" asks for no keys; accelserve services update {folder.name} --auth key does'
        raise ScoringError(Kind.NOT_FOUND, message)
    try:
        with folder_errors(folder.path):
            if parsed.regenerate is not None:
                own = _given_key(parsed.source) if parsed.source is not None else None
                replace_key(folder.keys, parsed.regenerate, own)
            keys = read_keys(folder.keys)
    except ScoringError as error:
        if error.kind is not Kind.INVALID:
            raise
        raise ConfigError([error.message]) from error
    except KeyFileError as error:
        remedy = f"without the file, accelserve services update {folder.name} --auth key makes two new keys"
        raise ScoringError(Kind.CONFLICT, f"{error}; {remedy}") from error
    if parsed.json:
        print(json.dumps({"primary": keys.primary, "secondary": keys.secondary}, indent=2))
    else:
        print(f"primary        {keys.primary}\nsecondary      {keys.secondary}")
    return ExitCode.OK


def _given_key(source: str) -> str:
    """One line. Raises ConfigError."""
    try:
        text = sys.stdin.readline() if source == "-" else Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError([f"--from {source}: {why}"]) from error
    return text.strip()


def _update(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.services import update

    folder = _services().find(parsed.name)
    typed = Typed()
    read = read_service_flags(parsed, typed)

    def change(old: "ServiceDefinition") -> "ServiceDefinition":
        new = _changed(old, read)
        check_definition(new, typed, script_is_new="entry_script" in read)
        if "model" in read:
            new = pinned(new)
        check_device(new)
        return new

    if not read and not typed.problems:
        raise ConfigError(["say what is to change; accelserve services update --help lists what can"])
    revision = update(folder, change, os.environ)
    tell_remarks(folder.read()[1])
    return told(parsed, folder, revision)


def _changed(old: "ServiceDefinition", read: Mapping[str, Any]) -> "ServiceDefinition":
    """A script where there was none opens the model by itself, as at deploying."""
    is_first = "entry_script" in read and not old.entry_script
    return replace(old, **({"serve_model": False, **read} if is_first else read))


def _start(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.services import start

    folder = _services().find(parsed.name)
    if folder.supervisor() is None:
        start(folder, os.environ)
    return told(parsed, folder, folder.read()[0])


def _delete(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.services import delete

    services = _services()
    delete(services, services.find(parsed.name))
    print(f"deleted {parsed.name}")
    return ExitCode.OK
