"""The dense part, or an ONNX model that is one, in float16: converted, measured, and refused when it is too far off."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelserve.backends.base import Progress
from accelserve.backends.onnx_runtime.precision import REPORT, TOLERANCE
from accelserve.convert.float16 import Float16Report, NotConverted, to_float16
from accelserve.convert.unfinished import appearing
from accelserve.errors import Kind, ScoringError

__all__ = ["TOLERANCE", "halve", "halve_model"]


def halve(name: str, source: Path, target: Path, tolerance: float) -> Float16Report:
    """Write `target`. Raises ScoringError(PRECONDITION): it cannot be made, or its error is above the tolerance."""
    try:
        report = to_float16(source, target)
    except NotConverted as error:
        raise ScoringError(Kind.PRECONDITION, f"{name} cannot be converted to fp16: {error}") from error
    if not report.relative_error <= tolerance:
        message = f'{name}: in fp16 output "{report.worst_output}" differs by {report.relative_error:.2g} from fp32'
        raise ScoringError(Kind.PRECONDITION, f"{message}, tolerance {tolerance:g}; keep fp32", reason="differs")
    return report


def halve_model(name: str, source: Path, output: Path, tolerance: float, progress: Progress) -> dict[str, Any]:
    """Write the folder `output`: an ONNX model's float16 copy, and the report. Returns the report.

    Raises ScoringError as `convert` does.
    """
    with appearing(name, output) as folder:
        progress("converting to fp16", 0.0)
        halved = halve(name, source, folder / "model.onnx", tolerance)
        report = {"model": name, "precision": "fp16", "tolerance": tolerance, **asdict(halved)}
        (folder / REPORT).write_text(json.dumps(report, indent=2), encoding="utf-8")
    progress("done", 1.0)
    return report
