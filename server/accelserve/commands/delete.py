"""`accelserve delete`: a registered version, unless somebody needs it."""

import argparse
import os

from accelserve.commands.parsing import Commands
from accelserve.commands.stored import EXIT_CODES, Typed, add_stored, open_store
from accelserve.errors import ExitCode, Kind, ScoringError

_EPILOG = """\
example:
  accelserve delete resnet50:2

A version is kept, and the refusal (5) says by whom, while a server serves it, a service is deployed with it, running or
not, or another registered version was made from it. Its number is not given again. The name's accelserve.toml stays.
"""


def add(commands: Commands) -> None:
    delete = add_stored(commands, "delete", "remove a version for ever, unless it is in use", _EPILOG + EXIT_CODES)
    delete.add_argument("model", metavar="NAME:VERSION", help="the version")
    delete.set_defaults(run=_delete)


def _delete(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.deploy.registry import Services, services_root

    typed = Typed()
    name, version = typed.exact_reference(parsed.model)
    typed.check()
    store = open_store(parsed)
    if services := Services(services_root(os.environ)).users_of(store.root, name, version):
        message = f"{name}:{version} is not deleted: deployed as service {', '.join(services)}"
        raise ScoringError(Kind.CONFLICT, message, reason="in_use")
    store.delete(name, version)
    print(f"deleted {name}:{version}")
    return ExitCode.OK
