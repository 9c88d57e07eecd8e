"""`accelserve convert --to accelonnx`: a model for an FPGA, and into the store with a link to its parent."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelserve.backends.base import Progress
from accelserve.commands.progress import ProgressLine
from accelserve.commands.stored import add_store, open_store
from accelserve.config_sources import ConfigError
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.convert.accel_conversion import AccelRequest
    from accelserve.models.store import StoredModel

EPILOG = """\
examples:
  accelserve convert exports/resnet50 --output resnet50.cut                    a SavedModel, cut and in ONNX
  accelserve convert resnet50 --to accelonnx --output resnet50.accel           a folder of `recipes build resnet50`
  accelserve convert resnet50:1 --to accelonnx --register                      of the store; as resnet50.1.accelonnx
  accelserve convert m.onnx --to accelonnx --input image --output-names pool5 --device-output pool5 --output m.accel

exit codes: 0 ok, 2 usage, 3 the model cannot be converted, 4 not found, 5 conflict: --output exists, or the store
"""
_NAMES = ("inputs", "output_names", "device_output")
_CONVERSION = "conversion"  # the property of a registered version that says what it was made of


def add_accelonnx(convert: argparse.ArgumentParser) -> None:
    """The flags of this target; names are TensorFlow's, as comma list, by repeating the flag, or both."""
    flags = convert.add_argument_group("--to accelonnx")
    named: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME[,NAME]"}
    flags.add_argument(
        "--input", "--input-tensor", dest="inputs", **named, help="what clients call the input (default: as the model)"
    )
    flags.add_argument(
        "--output-names", "--output-tensor", **named, help="outputs, or any tensors of the graph (default: its outputs)"
    )
    flags.add_argument(
        "--device-output", **named, help="where the device ends (default: as the model says, else as far as it can)"
    )
    flags.add_argument(
        "--require-fpga-conversion",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse layers that the device does not take before that; otherwise the host runs the rest",
    )
    flags.add_argument(
        "--register", action="store_true", help="put the result into the store, as NAME.VERSION.accelonnx"
    )
    add_store(convert)


def refuse_accelonnx_flags(parsed: argparse.Namespace) -> None:
    """Of another target. Raises ConfigError naming what does not belong to it, and a missing --output."""
    given = [name for name in (*_NAMES, "register", "store") if getattr(parsed, name)]
    problems = [f"--{name.replace('_', '-').replace('inputs', 'input')} is for --to accelonnx" for name in given]
    if parsed.output is None:
        problems.append("--output DIR is missing: the folder to write")
    if problems:
        raise ConfigError(problems)


def convert_to_accelonnx(parsed: argparse.Namespace, progress: Progress) -> ExitCode:
    from accelserve.convert.accel_conversion import converted, derived_name
    from accelserve.inspection import describe_accel
    from accelserve.loaders import build_loader

    _check_flags(parsed)
    request = _request(parsed)
    made = converted(request, build_loader().cache, progress)
    about: dict[str, Any] = {"model": str(parsed.model), "report": describe_accel(made)["report"]}
    if parsed.output is not None:
        _copy(request.name, made, parsed.output)
        about["output"] = str(parsed.output)
    if parsed.register:
        stored = _registered(parsed, derived_name(request.name, request.version), request.parent, made)
        about["registered"] = stored.reference
    print(json.dumps(about, indent=2) if parsed.json else _as_text(about))
    return ExitCode.OK


def _check_flags(parsed: argparse.Namespace) -> None:
    """Raises ConfigError."""
    problems = []
    if parsed.output is None and not parsed.register:
        problems.append("where to? say --output DIR, or --register to put the result into the store")
    if parsed.signature or parsed.opset or parsed.sample or parsed.precision != "fp32":
        problems.append("--signature, --opset, --sample and --precision are for --to onnx")
    if problems:
        raise ConfigError(problems)
    if parsed.output is not None and parsed.output.exists():
        raise ScoringError(Kind.CONFLICT, f"{parsed.output} exists: delete it, or choose another --output")


def _request(parsed: argparse.Namespace) -> "AccelRequest":
    """Raises ScoringError: NOT_FOUND, PRECONDITION for a model of a format that is not converted."""
    from accelserve.convert.accel_conversion import AccelRequest
    from accelserve.convert.accel_names import split_names
    from accelserve.models.manifest import read_manifest
    from accelserve.models.repository import find_models, name_of

    stored = _stored(parsed)
    path = stored.path if stored else parsed.model
    found = find_models(stored.name if stored else name_of(path), path)
    artifact = found.versions[0]
    if artifact.format != "onnx":
        remedy = "convert a SavedModel to ONNX first" if artifact.format == "saved_model" else "want an ONNX model"
        message = f"{parsed.model} is a model of format {artifact.format}, and accelonnx is made of ONNX models"
        raise ScoringError(Kind.PRECONDITION, f"{message}; {remedy}")
    inputs, outputs, device_outputs = (split_names(getattr(parsed, name)) for name in _NAMES)
    return AccelRequest(
        name=artifact.name,
        version=stored.version if stored else artifact.version,
        source=artifact.path,
        manifest=read_manifest(found.manifest),
        inputs=inputs,
        outputs=outputs,
        device_outputs=device_outputs,
        require=parsed.require_fpga_conversion,
        parent=stored.reference if stored else "",
    )


def _stored(parsed: argparse.Namespace) -> "StoredModel | None":
    """The registered model that is meant; None for a path. A path that is there comes first, unless --store is said."""
    from accelserve.models.store import parse_reference

    if parsed.store is None and parsed.model.exists():
        return None
    try:
        reference = parse_reference(str(parsed.model))
    except ValueError:
        return None
    return open_store(parsed).find(*reference)


def _copy(name: str, made: Path, output: Path) -> None:
    from accelserve.convert.unfinished import appearing

    with appearing(name, output) as folder:
        shutil.copytree(made, folder, dirs_exist_ok=True)


def _registered(parsed: argparse.Namespace, name: str, parent: str, made: Path) -> "StoredModel":
    """The version that was made of this conversion, registered now unless it is there."""
    from accelserve.inspection import describe_accel
    from accelserve.models.repository import find_models
    from accelserve.models.store import Registration

    store = open_store(parsed)
    there = [model for model in store.versions(name) if model.properties.get(_CONVERSION) == made.name]
    if there:
        return there[0]

    def inspect(folder: Path) -> Mapping[str, Any] | None:
        signatures: Mapping[str, Any] = describe_accel(find_models(name, folder).versions[0].path)["signatures"]
        return signatures

    progress = ProgressLine(sys.stderr, time.monotonic)
    about = Registration(properties={_CONVERSION: made.name}, parent=parent or None)
    try:
        return store.register(name, made, about, inspect, progress)
    finally:
        progress.end()


def _as_text(about: Mapping[str, Any]) -> str:
    report = about["report"]
    lines = [f"{about['model']} -> {about.get('output') or about['registered']} ({report['targetModelFlavor']})"]
    for part in ("device", "tail"):
        if told := report[part]:
            operators = ", ".join(f"{count} {operator}" for operator, count in told["operators"].items())
            lines.append(f"  {part:<8} {told['nodes']} nodes: {operators}; {told['weight_bytes']:,} bytes of weights")
    options = report["compilationOptions"]
    decoded = ", encoded pictures that the server decodes" if report["decodes_pictures"] else ""
    lines.append(f"  input    {options['input_node_names']}{decoded}")
    lines.append(f"  output   {options['output_node_names']}")
    lines.append(f"  boundary {', '.join(report['boundary'])}")
    lines.append(f"  the parts differ from the whole by {report['largest_error']:.2g} of an output's largest value")
    if "registered" in about:
        parent = f", made from {report['parent']}" if report["parent"] else ""
        lines.append(f"  registered as {about['registered']}{parent}")
    return "\n".join(lines)
