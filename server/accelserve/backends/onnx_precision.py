"""A float16 copy of an ONNX model: made once in a subprocess, kept by its content, measured against the original.

The conversion needs the `onnx` package and as much memory as a few copies of the model, neither of which belongs in a
serving process. The measured error is kept beside the copy, so a tolerance can change without a new conversion.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from accelserve.backends.artifact_cache import digest_of
from accelserve.backends.base import ArtifactCache
from accelserve.errors import Kind, ScoringError

WORKER = "accelserve.convert.float16"
MODEL, REPORT = "model.onnx", "report.json"
_MOST_S = 1800.0

Run = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]


@dataclass(frozen=True, slots=True)
class HalfModel:
    """path: the float16 model. error: the largest of fp16 against fp32, relative to the output's largest value."""

    path: Path
    error: float

    @property
    def remark(self) -> str:
        return f"fp16 copy of the model: largest error against fp32 {self.error:.2g} of an output's largest value"


def run_worker(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_MOST_S, check=False)


def half_precision(
    model: str, source: Path, tolerance: float, cache: ArtifactCache, run: Run = run_worker
) -> HalfModel:
    """The float16 copy. Raises ScoringError(PRECONDITION): it cannot be made, or its error is above the tolerance."""
    entry = cache.folder(_digest(source), lambda folder: _convert(model, source, folder, run))
    report = json.loads((entry / REPORT).read_text(encoding="utf-8"))
    half = HalfModel(entry / MODEL, float(report["relative_error"]))
    if not half.error <= tolerance:
        wanted = f"precision_tolerance is {tolerance:g}"
        message = f'{model}: in fp16 output "{report["worst_output"]}" differs by {half.error:.2g} from fp32, {wanted}'
        raise ScoringError(Kind.PRECONDITION, f"{message}: serve it in fp32, or raise precision_tolerance")
    return half


def _convert(model: str, source: Path, folder: Path, run: Run) -> None:
    """Fill the folder with MODEL and REPORT."""
    try:
        done = run([sys.executable, "-m", WORKER, str(source), str(folder / MODEL), str(folder / REPORT)])
    except subprocess.TimeoutExpired:
        reason = f"it took longer than {_MOST_S:.0f} s"
    else:
        if done.returncode == 0:
            return
        reason = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
    raise ScoringError(Kind.PRECONDITION, f"{model} cannot be converted to fp16: {reason}")


def _digest(source: Path) -> str:
    tools = {name: _version(name) for name in ("accelserve", "onnx", "onnxruntime", "onnxruntime-gpu")}
    return content_digest(source, {"conversion": "float16", "tools": tools})


def content_digest(source: Path, options: Mapping[str, object]) -> str:
    """Of an ONNX file, the external data that it names, and all else that changes what is made of them."""
    beside = {path.name: digest_of(path, {}) for path in _external_data(source)}
    return digest_of(source, {**options, "external": beside})


def _external_data(source: Path) -> list[Path]:
    """Files beside the model whose names stand in it: the format holds the location of external data as plain text."""
    content = source.read_bytes()
    others = (path for path in source.parent.iterdir() if path != source and path.is_file())
    return sorted(path for path in others if path.name.encode() in content)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
