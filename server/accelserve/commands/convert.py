"""`accelserve convert`: a SavedModel as ONNX, with proof that it answers as before."""

import argparse
import json
import os
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

from accelserve.backends.base import ModelArtifact, Progress
from accelserve.commands.convert_accel import EPILOG, add_accelonnx, convert_to_accelonnx, refuse_accelonnx_flags
from accelserve.commands.parsing import MODEL_HELP, Commands, add_json, argument
from accelserve.errors import ExitCode, Kind, ScoringError

_OPSETS = range(13, 24)
_GIVES_WAY = 10


def add(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert",
        help="convert a SavedModel to ONNX, or a model for an FPGA",
        description="To onnx: cut a SavedModel at the first dense tensor, convert the dense part to ONNX, compare what "
        "comes out with TensorFlow. What only TensorFlow has (decoding, strings, tables) is kept beside it. To "
        "accelonnx: divide a model into pictures, what an FPGA runs, and the host's tail.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument(
        "model", metavar="MODEL", type=Path, help=MODEL_HELP + "; for accelonnx also NAME[:VERSION] of the store"
    )
    convert.add_argument("--to", choices=["onnx", "accelonnx"], default="onnx", help="what to make (default: onnx)")
    convert.add_argument("--output", type=Path, metavar="DIR", help="folder to write; it must not exist")
    convert.add_argument(
        "--signature", nargs="+", action="extend", default=[], metavar="NAME", help="which (default: all that can be)"
    )
    convert.add_argument("--opset", type=argument(_opset), metavar="N", help="ONNX operator set (default: 17)")
    convert.add_argument(
        "--precision", choices=["fp32", "fp16"], default="fp32", help="of the network; fp16 also takes an ONNX model"
    )
    add_comparison(convert, "1e-4; fp16: 0.02")
    convert.add_argument(
        "--progress", choices=["text", "json"], default="text", help="form of the lines on standard error"
    )
    convert.add_argument(
        "--end-with-stdin", action="store_true", help="end when standard input closes: for a parent process"
    )
    add_json(convert)
    add_accelonnx(convert)
    convert.set_defaults(run=_convert)


def add_comparison(parser: argparse.ArgumentParser, tolerance: str) -> None:
    """How models are compared; `verify` asks the same. tolerance: the default, in words."""
    parser.add_argument(
        "--sample",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE",
        help="compare with these instead of generated inputs: .npz by input name, .npy, or bytes (a JPEG) for strings",
    )
    parser.add_argument(
        "--tolerance",
        type=argument(_tolerance),
        metavar="X",
        help=f"largest difference of a float output, over its largest magnitude (default: {tolerance})",
    )


def _opset(text: str) -> int:
    if not text.isdecimal() or int(text) not in _OPSETS:
        raise ValueError(f"want a number from {_OPSETS[0]} to {_OPSETS[-1]}")
    return int(text)


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("want a number from 0 to 1")
    return value


def _convert(parsed: argparse.Namespace) -> ExitCode:
    if parsed.end_with_stdin:
        os.nice(_GIVES_WAY)  # a server that converts goes on answering beside it
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    if parsed.to == "accelonnx":
        return convert_to_accelonnx(parsed, _json_progress if parsed.progress == "json" else _text_progress)
    refuse_accelonnx_flags(parsed)
    artifact = _model(parsed.model)
    progress = _json_progress if parsed.progress == "json" else _text_progress
    convert = _convert_onnx if artifact.format == "onnx" else _convert_saved_model
    return convert(parsed, artifact, progress)


def _convert_saved_model(parsed: argparse.Namespace, artifact: ModelArtifact, progress: Progress) -> ExitCode:
    _require("tensorflow", "tf2onnx", "onnx", "onnxruntime")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    from accelserve.backends.artifact_cache import FolderArtifactCache
    from accelserve.convert.compare import TOLERANCE
    from accelserve.convert.conversion import Request, convert
    from accelserve.convert.dense import OPSET
    from accelserve.convert.opening import open_on_cpu
    from accelserve.convert.report import report_as_text

    request = Request(
        name=artifact.name,
        source=artifact.path,
        output=parsed.output,
        signatures=tuple(parsed.signature),
        opset=parsed.opset or OPSET,
        samples=tuple(parsed.sample),
        tolerance=_tolerance_of(parsed, TOLERANCE),
        precision=parsed.precision,
    )
    with tempfile.TemporaryDirectory(prefix="accelserve-") as scratch:
        open_session = partial(open_on_cpu, FolderArtifactCache(Path(scratch)))
        report = convert(request, open_session, progress)
    print(json.dumps(report, indent=2) if parsed.json else report_as_text(report, parsed.output))
    return ExitCode.OK


def _convert_onnx(parsed: argparse.Namespace, artifact: ModelArtifact, progress: Progress) -> ExitCode:
    """An ONNX model's float16 copy: the only thing that there is to convert in one."""
    if parsed.precision != "fp16":
        message = f"{parsed.model} is ONNX already: there is nothing to convert unless with --precision fp16"
        raise ScoringError(Kind.PRECONDITION, message)
    _require("onnx", "onnxruntime")

    from accelserve.convert.precision import TOLERANCE, halve_model

    report = halve_model(artifact.name, artifact.path, parsed.output, _tolerance_of(parsed, TOLERANCE), progress)
    error = f'largest error {report["relative_error"]:.2g} at output "{report["worst_output"]}"'
    sizes = f"{report['source_bytes']:,} -> {report['target_bytes']:,} bytes"
    print(
        json.dumps(report, indent=2) if parsed.json else f"{parsed.model} -> {parsed.output} in fp16: {error}, {sizes}"
    )
    return ExitCode.OK


def _tolerance_of(parsed: argparse.Namespace, for_fp32: float) -> float:
    from accelserve.convert.precision import TOLERANCE

    if parsed.tolerance is not None:
        return float(parsed.tolerance)
    return TOLERANCE if parsed.precision == "fp16" else for_fp32


def _model(path: Path) -> ModelArtifact:
    """The newest version. Raises ScoringError as `serve` does, and for a model of a format that is not converted."""
    from accelserve.models.repository import find_models, name_of

    found = find_models(name_of(path), path).versions[0]
    if found.format not in ("saved_model", "onnx"):
        message = f"{path} is a model of format {found.format}; only SavedModels and ONNX models are converted"
        raise ScoringError(Kind.PRECONDITION, message)
    return found


def _end_with_stdin() -> None:
    """A parent that was killed leaves nobody to report to: end at once, whatever the converter is doing."""
    while os.read(sys.stdin.fileno(), 4096):  # not sys.stdin.read: its lock, held here, would hold up a normal end
        pass
    os._exit(ExitCode.UNFORESEEN)


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        remedy = "pip install 'accelserve[convert]', and '[cpu]' or '[gpu]'"
        raise ScoringError(Kind.PRECONDITION, f"converting needs {', '.join(missing)}: {remedy}")


def _json_progress(what: str, done: float) -> None:
    print(json.dumps({"progress": what, "done": round(done, 3)}), file=sys.stderr, flush=True)


def _text_progress(what: str, done: float) -> None:
    print(f"{done:4.0%} {what}", file=sys.stderr, flush=True)
