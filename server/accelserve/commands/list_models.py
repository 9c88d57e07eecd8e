"""`accelserve list`: what is in the store."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from accelserve.commands.parsing import Commands, add_json
from accelserve.commands.stored import EXIT_CODES, Typed, add_stored, open_store
from accelserve.errors import ExitCode

if TYPE_CHECKING:
    from accelserve.models.store import ModelStore, StoredModel

_EPILOG = """\
examples:
  accelserve list                          every version of every model
  accelserve list resnet50 --latest        the newest
  accelserve list --tag stage=production --tag owner --json
"""


def add(commands: Commands) -> None:
    listing = add_stored(commands, "list", "list the registered models", _EPILOG + EXIT_CODES)
    listing.add_argument("name", nargs="?", metavar="NAME", help="only this model's versions")
    listing.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="K[=V]",
        help="only with this tag; may be repeated: with all of them",
    )
    listing.add_argument("--framework", metavar="F", help="only of this framework")
    listing.add_argument("--latest", action="store_true", help="of each name only the newest that is left")
    add_json(listing)
    listing.set_defaults(run=_list)


def _list(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.listing import table

    typed = Typed()
    wanted = typed.pairs("--tag", parsed.tag)
    if parsed.name is not None and typed.reference(parsed.name)[1] is not None:
        typed.problems.append(f"{parsed.name!r}: list takes a NAME; for one version: accelserve show {parsed.name}")
    typed.check()
    store = open_store(parsed)
    if parsed.name is not None:
        store.find(parsed.name)
    # `--tag owner` asks for the tag with any value, `--tag owner=` for the empty one.
    exact = {key: value for key, value in wanted.items() if any(text == f"{key}={value}" for text in parsed.tag)}
    models = list(_chosen(store, parsed, wanted, exact))
    if parsed.json:
        print(json.dumps({"store": str(store.root), "models": [model.as_json() for model in models]}, indent=2))
    elif models:
        print(table(models))
    else:
        print(f"store {store.root} has no such model" if store.names() else f"store {store.root} is empty")
    return ExitCode.OK


def _chosen(
    store: "ModelStore", parsed: argparse.Namespace, wanted: Mapping[str, str], exact: Mapping[str, str]
) -> Iterator["StoredModel"]:
    framework = parsed.framework and parsed.framework.lower()
    for name in store.names() if parsed.name is None else (parsed.name,):
        found = (
            model
            for model in store.versions(name)
            if wanted.keys() <= model.tags.keys()
            and exact.items() <= model.tags.items()
            and framework in (None, model.framework.lower())
        )
        for model in found:
            yield model
            if parsed.latest:
                break
