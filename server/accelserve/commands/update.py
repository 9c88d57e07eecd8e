"""`accelserve update`: a registered version's tags and description."""

import argparse
import json

from accelserve.commands.parsing import Commands, add_json
from accelserve.commands.stored import EXIT_CODES, Typed, add_stored, open_store
from accelserve.errors import ExitCode

_EPILOG = """\
examples:
  accelserve update resnet50:3 --tag stage=production --remove-tag candidate
  accelserve update resnet50:3 --description "the one that passed"

Nothing else of a version changes: another model is another version, and properties are given once, by `register`.
"""


def add(commands: Commands) -> None:
    update = add_stored(commands, "update", "change a version's tags or description", _EPILOG + EXIT_CODES)
    update.add_argument("model", metavar="NAME:VERSION", help="the version")
    update.add_argument(
        "--tag", action="append", default=[], metavar="K=V", help="add a tag, or give it a new value; may be repeated"
    )
    update.add_argument("--remove-tag", action="append", default=[], metavar="K", help="may be repeated")
    update.add_argument("--description", metavar="TEXT", help="the new one; an empty one removes it")
    add_json(update)
    update.set_defaults(run=_update)


def _update(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.listing import record_lines
    from accelserve.models.store import Registration, problems_of

    typed = Typed()
    name, version = typed.exact_reference(parsed.model)
    tags = typed.pairs("--tag", parsed.tag)
    typed.problems += [f"--remove-tag {key}: it is given by --tag too" for key in parsed.remove_tag if key in tags]
    if not tags and not parsed.remove_tag and parsed.description is None:
        typed.problems.append("nothing to change: say --tag, --remove-tag or --description")
    typed.problems += problems_of("m", Registration(tags=tags, description=parsed.description or ""))
    typed.check()
    store = open_store(parsed)
    model = store.update(name, version, tags, parsed.remove_tag, parsed.description)
    print(json.dumps(model.as_json(), indent=2) if parsed.json else "\n".join(record_lines(model, ())))
    return ExitCode.OK
