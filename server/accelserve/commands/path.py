"""`accelserve path`: where a registered version lies, for scripts."""

import argparse

from accelserve.commands.parsing import Commands
from accelserve.commands.stored import EXIT_CODES, REFERENCE_HELP, Typed, add_stored, open_store
from accelserve.errors import ExitCode

_EPILOG = """\
examples:
  accelserve serve --model resnet50=$(accelserve path resnet50:3)
  ls "$(accelserve path resnet50)"
"""


def add(commands: Commands) -> None:
    path = add_stored(commands, "path", "print the folder of a registered version", _EPILOG + EXIT_CODES)
    path.add_argument("model", metavar="NAME[:VERSION]", help=REFERENCE_HELP)
    path.set_defaults(run=_path)


def _path(parsed: argparse.Namespace) -> ExitCode:
    typed = Typed()
    name, version = typed.reference(parsed.model)
    typed.check()
    print(open_store(parsed).find(name, version).path.absolute())
    return ExitCode.OK
