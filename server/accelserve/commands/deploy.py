"""`accelserve deploy`: a registered model, and perhaps an entry script, as a service that goes on by itself."""

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelserve.commands.cluster_files import add_cluster_flags, cluster_problems, write_manifests
from accelserve.commands.parsing import Commands, add_json
from accelserve.commands.service_checks import check_definition, check_device, pinned, store_of, tell_remarks
from accelserve.commands.service_flags import add_service_flags, read_service_flags
from accelserve.commands.service_telling import add_wait, told
from accelserve.commands.stored import Typed, add_store
from accelserve.config_sources import ConfigError
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.deploy.definition import ServiceDefinition
    from accelserve.deploy.folder import ServiceFolder
    from accelserve.deploy.registry import Services

_EPILOG = """\
examples:
  accelserve deploy digits-service --model digits --wait
  accelserve deploy resnet50 --model resnet50:3 --device gpu --replicas 2 --http-port 8501 --wait --timeout 300
  accelserve deploy resnet50 --model resnet50 --entry-script score.py --workers 2 --legacy-tensorflow
  accelserve deploy resnet50 --model resnet50:4 --overwrite           change it, one replica after the other
  accelserve services status resnet50
  accelserve deploy resnet50 --model resnet50:3 --target kubernetes --image registry.example.org/resnet50:3

A name has 3 to 32 lower-case letters, digits and dashes, a letter first. The service goes on when this command ends,
under a supervisor that starts replicas again when they die. Its folder is in ACCELSERVE_SERVICES, else in
accelserve/services in the user's data folder.

exit codes: 0 ok, 1 unforeseen, or not Healthy in time, 2 usage or configuration, 3 the script or the model does not
load, 4 no such model, 5 there is a service of that name, a port is in use, or another update came before this one was
Healthy, 6 required device missing
"""


def add(commands: Commands) -> None:
    deploy = commands.add_parser(
        "deploy",
        help="run a registered model as a service, with replicas and keys",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    deploy.add_argument("name", metavar="NAME", help="the service's name")
    add_service_flags(deploy)
    add_store(deploy)
    deploy.add_argument("--overwrite", action="store_true", help="change the service of this name, if there is one")
    add_wait(deploy)
    add_json(deploy)
    add_cluster_flags(deploy)
    deploy.set_defaults(run=_deploy)


def _deploy(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.registry import Services, services_root

    wanted = _definition(parsed)
    if wanted.target == "kubernetes":
        definition = pinned(wanted)
        code = write_manifests(parsed, definition)
        tell_remarks(definition)
        return code
    services = Services(services_root(os.environ))
    if wanted.name in services.names():
        if not parsed.overwrite:
            message = f'there is a service "{wanted.name}" already; say --overwrite to change it, or delete it'
            raise ScoringError(Kind.CONFLICT, message)
        return _overwrite(parsed, services.find(wanted.name), wanted)
    definition = pinned(wanted)
    check_device(definition)
    return _deploy_new(parsed, services, definition)


def _definition(parsed: argparse.Namespace) -> "ServiceDefinition":
    """Raises ConfigError with all mistakes, the script's among them."""
    from accelserve.deploy.definition import ServiceDefinition

    typed = Typed()
    read = read_service_flags(parsed, typed)
    if "replicas" not in read and "autoscale" not in read:
        read["replicas"] = 1
    read.setdefault("serve_model", not read.get("entry_script"))
    definition = ServiceDefinition(parsed.name, store=store_of(parsed), target=parsed.target, **read)
    typed.problems += cluster_problems(parsed)
    check_definition(definition, typed)
    return definition


def _deploy_new(parsed: argparse.Namespace, services: "Services", definition: "ServiceDefinition") -> ExitCode:
    from accelserve.deploy.services import deploy

    folder = deploy(services, definition, os.environ)
    return _told(parsed, folder, 1)


def _overwrite(parsed: argparse.Namespace, folder: "ServiceFolder", wanted: "ServiceDefinition") -> ExitCode:
    """What is not said keeps nothing of the old, but the addresses and the keys."""
    from accelserve.deploy.services import update

    definition = pinned(wanted)
    check_device(definition)

    def change(old: "ServiceDefinition") -> "ServiceDefinition":
        fixed: dict[str, Any] = {field: getattr(old, field) for field in ("host", "http_port", "grpc_port")}
        given = {field: getattr(wanted, field) for field in fixed if getattr(parsed, field) is not None}
        moved = [f"{field} is {fixed[field]}" for field in given if given[field] != fixed[field]]
        if moved:
            message = f"a service keeps its addresses ({', '.join(moved)}); delete it and deploy it anew to move it"
            raise ConfigError([message])
        return replace(definition, **fixed)

    return _told(parsed, folder, update(folder, change, os.environ))


def _told(parsed: argparse.Namespace, folder: "ServiceFolder", revision: int) -> ExitCode:
    tell_remarks(folder.read()[1])
    return told(parsed, folder, revision)
