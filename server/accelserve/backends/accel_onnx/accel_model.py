"""A model made for an FPGA, on disk: `accel.json` says what is decoded, what the device runs and what the host's tail.

The original service kept the same three in one SavedModel: a JPEG preprocessor, the featurizer, the classifier
(specs/fpga.md section 5). `device.onnx` and `tail.onnx` are plain ONNX, in float32; a back end quantizes what it takes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import file_digest
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from accelserve.backends.base import DecodedInput
from accelserve.backends.spec_json import spec_from_json, spec_to_json
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, DEFAULT_SIGNATURE, Signature
from accelserve.wire import onnx_pb2

FORMAT = "accelonnx"
FILE_NAME, DEVICE_FILE, TAIL_FILE = "accel.json", "device.onnx", "tail.onnx"
LAYOUT = 1  # of the folder; another number is another release's
REMEDY = "make it again with `accelserve convert --to accelonnx`"


@dataclass(frozen=True, slots=True)
class Part:
    """One ONNX graph. file: relative to the model's folder. feeds, fetches: name in the graph -> value."""

    file: str
    feeds: Mapping[str, str]
    fetches: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FileRecord:
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AccelModel:
    """signature: what clients see, with both dialects of each name; its input is string where pictures are decoded.

    inputs, outputs: signature key -> value. pictures: what the server's decoder makes of each encoded picture before
    the device, None for a model that takes tensors; the value of the input is then float32, of the pictures' shape.
    device runs before tail; `Part.feeds` of the tail are values of the device or of the inputs.
    files: relative name -> what it was when written. report: what the conversion found, for people.
    """

    signature: Signature
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    device: Part
    tail: Part | None = None
    pictures: Preprocessing | None = None
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """In the order in which they run."""
        return (self.device,) if self.tail is None else (self.device, self.tail)


def decoded_input(model: AccelModel) -> DecodedInput:
    """What a session's `take_decoded` answers: the signature of decoded pictures, which batches then name.

    Raises ScoringError(UNSUPPORTED) for a model without.
    """
    if model.pictures is None:
        raise ScoringError(Kind.UNSUPPORTED, f'signature "{model.signature.name}" takes tensors, not pictures')
    ((key, spec),), steps = model.signature.inputs.items(), model.pictures
    size = (*steps.size, steps.channels) if steps.layout == "NHWC" else (steps.channels, *steps.size)
    inputs = MappingProxyType({key: replace(spec, dtype=BY_NAME["float32"], shape=(-1, *size))})
    taken = replace(model.signature, name=f"{model.signature.name} of decoded pictures", inputs=inputs)
    return DecodedInput(taken, steps, pixel_error=0.0, output_error=0.0, only=True)


def write_accel(folder: Path, model: AccelModel) -> None:
    """Write `accel.json` last: with the digests of the parts, which are there. Raises ScoringError(PRECONDITION)."""
    content = {
        "layout": LAYOUT,
        "signature": _signature_to_json(model),
        "pictures": asdict(model.pictures) if model.pictures else None,
        "device": asdict(model.device),
        "tail": asdict(model.tail) if model.tail else None,
        "files": {part.file: asdict(_record(folder / part.file)) for part in model.parts},
        "report": dict(model.report),
    }
    (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    read_accel(folder)


def read_accel(folder: Path) -> AccelModel:
    """Read and check. Raises ScoringError(PRECONDITION) naming folder, file, fault and remedy."""
    try:
        model = _from_json(json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        for fault in _faults(model):
            raise ValueError(f"{FILE_NAME}: {fault}")
        _check_files(folder, model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ScoringError) as error:
        message = f"the converted model in {folder} cannot be used: {_reason(error)}; {REMEDY}"
        raise ScoringError(Kind.PRECONDITION, message) from error
    return model


def read_part(folder: Path, part: Part) -> onnx_pb2.ModelProto:
    """A part's graph, which has the ports that are told of it. Raises ScoringError(PRECONDITION)."""
    graph = onnx_pb2.ModelProto()
    try:
        graph.ParseFromString((folder / part.file).read_bytes())
    except (OSError, DecodeError) as error:
        raise ScoringError(Kind.PRECONDITION, f"{folder / part.file} is no ONNX model: {error}; {REMEDY}") from error
    weights = {tensor.name for tensor in graph.graph.initializer}
    there = [
        [port.name for port in ports if port.name not in weights] for ports in (graph.graph.input, graph.graph.output)
    ]
    for what, told, names in (("input", part.feeds, there[0]), ("output", part.fetches, there[1])):
        if set(told) != set(names):
            message = f"{folder / part.file}: want {what} {sorted(told)} as {FILE_NAME} says, got {sorted(names)}"
            raise ScoringError(Kind.PRECONDITION, f"{message}; {REMEDY}")
    return graph


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{FILE_NAME} lacks {error}"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"{FILE_NAME} is no JSON: {error}"
    return error.message if isinstance(error, ScoringError) else str(error)


def _faults(model: AccelModel) -> Iterator[str]:
    """Ports that do not fit, in words."""
    known = set(model.inputs.values())
    for part in model.parts:
        if unknown := set(part.feeds.values()) - known:
            yield f"{part.file} is fed {', '.join(sorted(unknown))}, which nothing makes"
        known |= set(part.fetches.values())
    if unknown := set(model.outputs.values()) - known:
        yield f"output {', '.join(sorted(unknown))} is made by no part"
    takes_strings = [spec.dtype.is_string for spec in model.signature.inputs.values()]
    if model.pictures is None and any(takes_strings):
        yield "an input takes strings, and nothing decodes them"
    if model.pictures is not None and takes_strings != [True]:
        yield "pictures are decoded, and the signature has not one input of strings"


def _check_files(folder: Path, model: AccelModel) -> None:
    for part in model.parts:
        path = folder / part.file
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{part.file} lies outside of it")
        if not path.is_file():
            raise ValueError(f"{part.file} is missing")
        wanted = model.files[part.file]
        if path.stat().st_size != wanted.size_bytes:
            raise ValueError(f"{part.file} has {path.stat().st_size} bytes, want {wanted.size_bytes}")
        if _record(path) != wanted:
            raise ValueError(f"{part.file} is not what was written: its SHA-256 differs")


def _record(path: Path) -> FileRecord:
    try:
        with path.open("rb") as stream:
            return FileRecord(path.stat().st_size, file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise ScoringError(Kind.PRECONDITION, f"{path}: {error.strerror}") from error


def _signature_to_json(model: AccelModel) -> dict[str, Any]:
    signature = model.signature
    return {
        "name": signature.name,
        "method_name": signature.method_name,
        "inputs": {key: spec_to_json(spec, model.inputs[key]) for key, spec in signature.inputs.items()},
        "outputs": {key: spec_to_json(spec, model.outputs[key]) for key, spec in signature.outputs.items()},
    }


def _from_json(content: Mapping[str, Any]) -> AccelModel:
    if content["layout"] != LAYOUT:
        raise ValueError(f"{FILE_NAME}: its layout is {content['layout']!r}, this release reads {LAYOUT}")
    told = content["signature"]
    signature = Signature(
        told.get("name", DEFAULT_SIGNATURE),
        MappingProxyType({key: spec_from_json(key, spec) for key, spec in told["inputs"].items()}),
        MappingProxyType({key: spec_from_json(key, spec) for key, spec in told["outputs"].items()}),
        told["method_name"],
    )
    pictures, tail = content["pictures"], content["tail"]
    return AccelModel(
        signature,
        {key: spec["value"] for key, spec in told["inputs"].items()},
        {key: spec["value"] for key, spec in told["outputs"].items()},
        Part(**content["device"]),
        Part(**tail) if tail is not None else None,
        Preprocessing(**{key: _tuples(item) for key, item in pictures.items()}) if pictures is not None else None,
        {name: FileRecord(**record) for name, record in content["files"].items()},
        content["report"],
    )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
