"""`accelserve devices`: what can run here, and what is missing for the rest."""

import argparse
import json

from accelserve.commands.parsing import Commands, add_backends, add_json, allowed_backends
from accelserve.errors import ExitCode


def add(commands: Commands) -> None:
    devices = commands.add_parser("devices", help="list devices, and what is missing for the others")
    add_backends(devices)
    add_json(devices)
    devices.set_defaults(run=_devices)


def _devices(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.backends.discovery import BackendPool
    from accelserve.inspection import describe_devices, devices_as_text

    description = describe_devices(BackendPool(allow=allowed_backends(parsed)))
    print(json.dumps(description, indent=2) if parsed.json else devices_as_text(description))
    return ExitCode.OK
