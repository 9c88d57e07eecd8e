"""`accelserve register`: a model into the store, as the next version of its name."""

import argparse
import json
import sys
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelserve.commands.parsing import MODEL_HELP, Commands, add_backends, add_json, allowed_backends
from accelserve.commands.progress import ProgressLine
from accelserve.commands.stored import EXIT_CODES, Typed, add_stored, open_store
from accelserve.errors import ExitCode, ScoringError

if TYPE_CHECKING:
    from accelserve.models.store import Registration

_EPILOG = """\
examples:
  accelserve register resnet50.onnx --name resnet50 --tag stage=test --description "trained on the June data"
  accelserve register exports/resnet50 --name resnet50 --framework TensorFlow --framework-version 2.21
  accelserve register half.onnx --name resnet50.fp16 --parent resnet50:3 --sample cat.jpg
  accelserve register outputs/model --name tf-dnn-mnist --custom
  accelserve list resnet50

The model is copied, with the external data files of an ONNX model, and loaded once on the CPU, so that a model that
does not load is not registered and its signatures are known. Versions are counted 1, 2, 3; what a version is made of
never changes, and a number is never given twice. An accelserve.toml that lies with the model, or --manifest, becomes
the name's own file, for all its versions.

With --custom any file or folder is registered as it is: a checkpoint, a pickle, a tokenizer. Servers do not load it; an
entry script opens it, under the name by which it was registered.
"""


def add(commands: Commands) -> None:
    register = add_stored(
        commands, "register", "copy a model into the store, as the next version of its name", _EPILOG + EXIT_CODES
    )
    register.add_argument("path", type=Path, metavar="PATH", help=MODEL_HELP + ", of which the newest is taken")
    register.add_argument("--name", required=True, metavar="NAME", help="letters, digits, . _ -")
    for flag, what in (("--tag", "a tag, which `update` can change"), ("--property", "a property, which stays")):
        register.add_argument(flag, action="append", default=[], metavar="K=V", help=f"{what}; may be repeated")
    register.add_argument("--description", default="", metavar="TEXT", help="for people")
    register.add_argument(
        "--framework", metavar="F", help="what the model was made with (default: what its format says)"
    )
    register.add_argument("--framework-version", metavar="V", help="and which version of it")
    register.add_argument("--sample", type=Path, metavar="FILE", help="an input, kept with the version")
    register.add_argument("--manifest", type=Path, metavar="FILE", help="an accelserve.toml; its labels are copied too")
    register.add_argument("--parent", metavar="NAME:VERSION", help="the registered version that this one was made from")
    register.add_argument(
        "--custom", action="store_true", help="what only an entry script opens: any file or folder, copied as it is"
    )
    register.add_argument("--no-check", action="store_true", help="do not load the model; its signatures stay unknown")
    add_backends(register)
    add_json(register)
    register.set_defaults(run=_register)


def _register(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.listing import record_lines, signatures_told

    about, backends = _registration(parsed), allowed_backends(parsed)
    progress = ProgressLine(sys.stderr, time.monotonic)
    inspect = _unseen if parsed.no_check or parsed.custom else partial(_load_once, parsed.name, backends)
    try:
        model = open_store(parsed).register(parsed.name, parsed.path, about, inspect, progress)
    finally:
        progress.end()
    text = "\n".join([*record_lines(model, ()), *signatures_told(model)])
    print(json.dumps(model.as_json(), indent=2) if parsed.json else text)
    return ExitCode.OK


def _registration(parsed: argparse.Namespace) -> "Registration":
    from accelserve.models.store import Registration, problems_of

    typed = Typed()
    about = Registration(
        tags=typed.pairs("--tag", parsed.tag),
        properties=typed.pairs("--property", parsed.property),
        description=parsed.description,
        framework=parsed.framework,
        framework_version=parsed.framework_version,
        parent=parsed.parent,
        sample=parsed.sample,
        manifest=parsed.manifest,
        custom=parsed.custom,
    )
    typed.problems += problems_of(parsed.name, about)
    typed.check()
    return about


def _unseen(_: Path) -> None:
    return None


def _load_once(name: str, backends: Collection[str], folder: Path) -> Mapping[str, Any] | None:
    """The signatures of the one version in a folder; None, with a warning, when nothing here can load its format."""
    from accelserve.inspection import describe_accel, describe_model, missing_backend
    from accelserve.loaders import build_loader
    from accelserve.models.repository import find_models

    found = find_models(name, folder).versions[0]
    if found.format == "accelonnx":  # no CPU runs it, and a card may be in use: it says by itself what it is
        told: Mapping[str, Any] = describe_accel(found.path)["signatures"]
        return told
    loader, model_format = build_loader(backends=backends), found.format
    if missing := missing_backend(loader, model_format):
        print(f"accelserve: warning: {name} is not checked and its signatures are unknown: {missing}", file=sys.stderr)
        return None
    try:
        signatures: Mapping[str, Any] = describe_model(loader, folder, "cpu", name)["signatures"]
    except ScoringError as error:
        message = f"{error.message}; it is not registered (--no-check registers a model without loading it)"
        raise ScoringError(error.kind, message, reason=error.reason) from error
    return signatures
