"""`accelserve show`: what a model takes, gives, and does to pictures; what is registered of it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelserve.commands.parsing import MODEL_HELP, Commands, add_backends, add_json, allowed_backends, argument
from accelserve.commands.stored import add_store, open_store
from accelserve.config_parsers import parse_device
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.models.store import ModelStore, StoredModel

_EPILOG = """\
examples:
  accelserve show models/resnet50.onnx
  accelserve show resnet50                 the newest version in the store
  accelserve show resnet50:3 --device gpu
  accelserve show resnet50:3 --no-load     only what the store knows
"""


def add(commands: Commands) -> None:
    show = commands.add_parser(
        "show",
        help="load a model and say what it takes, gives and does to pictures",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument(
        "model", metavar="PATH|NAME[:VERSION]", help=MODEL_HELP + "; where there is no such path, a registered model"
    )
    show.add_argument(
        "--device", type=argument(parse_device), default="auto", metavar="DEVICE", help="as for serve (default: auto)"
    )
    show.add_argument("--no-load", action="store_true", help="of a registered model, tell only what the store knows")
    add_store(show)
    add_backends(show)
    add_json(show)
    show.set_defaults(run=_show)


def _show(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.inspection import accel_as_text, describe_accel, describe_model, model_as_text
    from accelserve.loaders import build_loader
    from accelserve.models.repository import find_models, name_of

    path = Path(parsed.model)
    if not _is_there(path):
        store = open_store(parsed)
        _tell_registered(_find_registered(store, parsed.model), store, parsed)
        return ExitCode.OK
    loader = build_loader(backends=allowed_backends(parsed))
    found = find_models(name_of(path), path).versions[0]
    if _is_told_unloaded(found.format, parsed):
        told = describe_accel(found.path, found.name)
        print(json.dumps(told, indent=2) if parsed.json else accel_as_text(told))
        return ExitCode.OK
    description = describe_model(loader, path, parsed.device)
    print(json.dumps(description, indent=2) if parsed.json else model_as_text(description))
    return ExitCode.OK


def _is_told_unloaded(model_format: str, parsed: argparse.Namespace) -> bool:
    """A model made for an FPGA runs on no device that `auto` takes."""
    return model_format == "accelonnx" and parsed.device == "auto"


def _is_there(path: Path) -> bool:
    """Also where the file system refuses to say: looking into it tells why."""
    try:
        return path.exists()
    except OSError:
        return True


def _find_registered(store: "ModelStore", text: str) -> "StoredModel":
    from accelserve.models.store import parse_reference

    try:
        return store.find(*parse_reference(text))
    except ValueError:
        raise ScoringError(Kind.NOT_FOUND, f"no such file or folder, and no NAME:VERSION either: {text}") from None
    except ScoringError as error:
        raise ScoringError(error.kind, f"no such file or folder: {text}; and {error.message}") from error


def _tell_registered(model: "StoredModel", store: "ModelStore", parsed: argparse.Namespace) -> None:
    """The record and what loading tells. A model that does not load has a record all the same, which comes first."""
    users = store.users(model.name, model.version)
    if parsed.json:
        about = {**model.as_json(), "referred_to_by": list(users), "loaded": _load(model, parsed)}
        print(json.dumps(about, indent=2))
        return
    from accelserve.inspection import model_as_text
    from accelserve.listing import record_lines, signatures_told

    print("\n".join(record_lines(model, users)), flush=True)
    loaded = _load(model, parsed)
    print(model_as_text(loaded) if loaded is not None else "\n".join(signatures_told(model)))


def _load(model: "StoredModel", parsed: argparse.Namespace) -> dict[str, Any] | None:
    """What loading tells; None where it is not wanted or nothing here can load the format."""
    from accelserve.inspection import describe_model, missing_backend
    from accelserve.loaders import build_loader

    if parsed.no_load or model.custom or _is_told_unloaded(model.format, parsed):
        return None
    loader = build_loader(backends=allowed_backends(parsed))
    if missing_backend(loader, model.format) and parsed.device == "auto":
        return None
    return describe_model(loader, model.path, parsed.device, model.name)
