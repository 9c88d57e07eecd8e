"""A float16 copy of an ONNX model: made once in a process of its own, kept by its content, held against the original.

The conversion needs the `onnx` package and as much memory as a few copies of the model, neither of which belongs in a
serving process. The measured error is kept beside the copy, so a tolerance can change without a new conversion.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accelserve.backends.artifact_cache import check_unchanged, digest_of
from accelserve.backends.base import ArtifactCache, Progress
from accelserve.backends.conversion import ConversionOptions, Convert, run_conversion
from accelserve.backends.onnx_runtime.files import external_files
from accelserve.errors import Kind, ScoringError
from accelserve.installed import installed_versions

MODEL, REPORT = "model.onnx", "report.json"
TOLERANCE = 0.02  # of the error, where nobody says another
_COPY = "copy"  # the converted model's folder inside its cache entry
_ANY_ERROR = ConversionOptions(precision="fp16", tolerance=1.0)  # all but one that is no number
_TOOLS = ("accelserve", "onnx", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class HalfModel:
    """path: the float16 model. error: the largest of fp16 against fp32, relative to the output's largest value."""

    path: Path
    error: float

    @property
    def remark(self) -> str:
        return f"fp16 copy of the model: largest error against fp32 {self.error:.2g} of an output's largest value"


def half_precision(
    model: str,
    source: Path,
    tolerance: float,
    cache: ArtifactCache,
    progress: Progress,
    convert: Convert = run_conversion,
) -> HalfModel:
    """The float16 copy. Raises ScoringError(PRECONDITION): it cannot be made, or its error is above the tolerance."""

    def digest() -> str:
        return content_digest(source, {"conversion": "float16", "tools": installed_versions(_TOOLS)})

    before = digest()

    def build(folder: Path) -> None:
        convert(model, source, folder / _COPY, _ANY_ERROR, progress)
        check_unchanged(model, source, before, digest)

    entry = cache.folder(before, build)
    half, worst_output = _read_copy(model, entry)
    if not half.error <= tolerance:
        wanted = f"precision_tolerance is {tolerance:g}"
        message = f'{model}: in fp16 output "{worst_output}" differs by {half.error:.2g} from fp32, {wanted}'
        raise ScoringError(Kind.PRECONDITION, f"{message}: serve it in fp32, or raise precision_tolerance")
    return half


def _read_copy(model: str, entry: Path) -> tuple[HalfModel, str]:
    """The copy, and its worst output. Raises ScoringError(PRECONDITION) for a damaged entry of the cache."""
    path, data = entry / _COPY / MODEL, entry / _COPY / f"{MODEL}.data"
    try:
        report = json.loads((entry / _COPY / REPORT).read_text(encoding="utf-8"))
        half, wanted = HalfModel(path, float(report["relative_error"])), report["target_bytes"]
        if not data.is_file() and path.stat().st_size != wanted:
            raise ValueError(f"{MODEL} has {path.stat().st_size} bytes, want {wanted}")
        return half, str(report["worst_output"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{model}: its fp16 copy in {entry} cannot be used: {error}; delete the folder and it is made again"
        raise ScoringError(Kind.PRECONDITION, message) from error


def content_digest(source: Path, options: Mapping[str, object]) -> str:
    """Of an ONNX file, the external data that it names, and all else that changes what is made of them."""
    beside = {name: digest_of(source.parent / name, {}) for name in external_files(source) if _is_there(source, name)}
    return digest_of(source, {**options, "external": beside})


def _is_there(source: Path, name: str) -> bool:
    """A file that is missing is named by who reads the model."""
    return (source.parent / name).is_file()
