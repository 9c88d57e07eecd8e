"""An ONNX model made ready for an FPGA: pictures, the device's part, the host's tail, in a folder with its report.

What Azure's converter did (specs/azure_scoring.md section 1, convert_tf_model), here and at once. Nothing is quantized:
how a device rounds is its back end's matter.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelserve import __version__
from accelserve.backends.accel_onnx.accel_model import DEVICE_FILE, LAYOUT, TAIL_FILE, AccelModel, Part, write_accel
from accelserve.backends.accel_onnx.model_file import inputs_of, read_whole, signature_of
from accelserve.backends.accel_onnx.partition import prefix_ends, split
from accelserve.backends.artifact_cache import check_unchanged, digest_of
from accelserve.backends.base import ArtifactCache, Progress
from accelserve.backends.onnx_runtime.files import external_files
from accelserve.convert.accel_check import largest_error
from accelserve.convert.accel_graph import only_for, types_of
from accelserve.convert.accel_names import Port, Told, input_ports, output_ports, told_by
from accelserve.errors import Kind, ScoringError
from accelserve.image_signature import check_fits, guess_preprocessing
from accelserve.models.manifest import FILE_NAME, Manifest, with_signature
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, DEFAULT_SIGNATURE, Signature, TensorSpec
from accelserve.wire.onnx_pb2 import ModelProto, ValueInfoProto

_STRING = BY_NAME["string"]
_LONGEST_NAME = 32  # of a model in the original service
_SUFFIX = "accelonnx"


@dataclass(frozen=True, slots=True)
class AccelRequest:
    """What is to be made of which model.

    manifest: the model's own file, which says how pictures are made ready. inputs, outputs: names by which clients will
    call them, () for what the model says. device_outputs: where the device ends, () for what the model says, else as
    far as it can. require: every layer before that must be the device's; else the device takes what it can, and the
    host the rest. parent: the registered model, "" for a file. flavor: what the source is, in the original's words.
    """

    name: str
    version: int
    source: Path
    manifest: Manifest = field(default_factory=Manifest)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    device_outputs: tuple[str, ...] = ()
    require: bool = True
    parent: str = ""
    flavor: str = "Onnx"

    def options(self) -> Mapping[str, object]:
        """All that changes the result beside the source's bytes, as JSON values."""
        return {
            "layout": LAYOUT,
            "accelserve": __version__,
            "asked": [self.name, self.version, self.inputs, self.outputs, self.device_outputs, self.require],
            "preprocessing": {key: str(value) for key, value in sorted(self.manifest.preprocessing.items())},
            "labels": self.manifest.labels,
            "parent": [self.parent, self.flavor],
        }


def derived_name(name: str, version: int) -> str:
    """What the original called a converted model: resnet50.1.accelonnx, the parent's name cut to fit 32 characters."""
    kept = _LONGEST_NAME - (len(_SUFFIX) + 2 + len(str(version)))
    return f"{name[:kept]}.{version}.{_SUFFIX}"


def converted(request: AccelRequest, cache: ArtifactCache, progress: Progress) -> Path:
    """The finished folder, made at most once of the same bytes and options. Raises as `convert_for_fpga`."""
    files = [request.source, *(request.source.parent / name for name in external_files(request.source))]
    options = {**request.options(), "files": [digest_of(file, {}) for file in files]}
    digest = digest_of(request.source, options)

    def build(folder: Path) -> None:
        convert_for_fpga(request, folder, progress)
        check_unchanged(request.name, request.source, digest, lambda: digest_of(request.source, options))

    return cache.folder(digest, build)


def convert_for_fpga(request: AccelRequest, folder: Path, progress: Progress) -> Mapping[str, Any]:
    """Fill an empty folder. Returns the report, which `accel.json` has too.

    Raises ScoringError(PRECONDITION): names that are not there, layers that the device does not take, a preprocessing
    that does not fit, parts that do not answer as the whole.
    """
    progress("reading", 0.0)
    source = read_whole(request.name, request.source)
    told = told_by(source)
    ports = _Ports(input_ports(source, told, request.inputs), output_ports(source, told, request.outputs))
    progress("dividing", 0.2)
    whole = only_for(source, [port.tensor for port in ports.outputs], types_of(source))
    parts = _divide(request, whole, told)
    dense = signature_of(request.name, whole)
    progress("writing", 0.4)
    for file, graph in parts.items():
        (folder / file).write_bytes(graph.SerializeToString(deterministic=True))
    model = _model(dense, ports, _pictures(request, dense), parts)
    progress("comparing with the whole model", 0.6)
    error = largest_error(request.name, whole, folder, model, list(dense.inputs.values()))
    model = replace(model, report=_report(request, parts, model, error))
    if request.manifest.labels:
        _write_labels(folder, request.manifest.labels)
    write_accel(folder, model)
    progress("done", 1.0)
    return model.report


def _write_labels(folder: Path, labels: Sequence[str]) -> None:
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    (folder / FILE_NAME).write_text('labels = "labels.txt"\n', encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Ports:
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def _divide(request: AccelRequest, whole: ModelProto, told: Told) -> dict[str, ModelProto]:
    """The parts by file. A boundary that is told is kept as far as the wanted outputs need it."""
    made = {name for node in whole.graph.node for name in node.output}
    ends: Sequence[str] | None = request.device_outputs or [name for name in told.device_outputs if name in made]
    if not request.require:
        ends = prefix_ends(whole)
    try:
        found = split(whole, ends or None)
    except ScoringError as error:
        raise ScoringError(error.kind, f"{request.name}: {error.message}", reason=error.reason) from error
    return {DEVICE_FILE: found.device} | ({TAIL_FILE: found.tail} if found.tail is not None else {})


def _pictures(request: AccelRequest, dense: Signature) -> Preprocessing | None:
    """What the model's own file says of pictures; None where it says nothing, and clients send tensors."""
    values = request.manifest.preprocessing
    if not values:
        return None
    where = f"{request.name}: {request.manifest.source}"
    specs = list(dense.inputs.values())
    if len(specs) != 1 or specs[0].dtype.name != "float32":
        got = ", ".join(f'"{spec.name}" {spec}' for spec in specs)
        message = f"{where}: [preprocessing] wants one input of float32 pictures, got {got}"
        raise ScoringError(Kind.PRECONDITION, message)
    try:
        steps = with_signature(values, guess_preprocessing(specs[0]))
        assert steps is not None, "a file that speaks gives steps"
        check_fits(steps, specs[0])
    except ScoringError as error:
        raise ScoringError(Kind.PRECONDITION, f"{where}: {error.message}") from error
    return steps


def _model(
    dense: Signature, ports: _Ports, pictures: Preprocessing | None, parts: Mapping[str, ModelProto]
) -> AccelModel:
    inputs = [port for port in ports.inputs if port.tensor in dense.inputs]
    specs = {port.key: _spec(dense.inputs[port.tensor], port) for port in inputs}
    if pictures is not None:
        specs = {key: replace(spec, dtype=_STRING, shape=(spec.shape or (-1,))[:1]) for key, spec in specs.items()}
    signature = Signature(
        DEFAULT_SIGNATURE,
        MappingProxyType(specs),
        MappingProxyType({port.key: _spec(dense.outputs[port.tensor], port) for port in ports.outputs}),
    )
    device, *tail = [Part(file, _same(inputs_of(each.graph)), _same(each.graph.output)) for file, each in parts.items()]
    return AccelModel(
        signature,
        {port.key: port.tensor for port in inputs},
        {port.key: port.tensor for port in ports.outputs},
        device,
        tail[0] if tail else None,
        pictures,
    )


def _spec(spec: TensorSpec, port: Port) -> TensorSpec:
    return replace(spec, name=port.key, tensor_name=port.name)


def _same(ports: Iterable[ValueInfoProto]) -> dict[str, str]:
    """Values are called as in the source."""
    return {port.name: port.name for port in ports}


def _report(
    request: AccelRequest, parts: Mapping[str, ModelProto], model: AccelModel, error: float
) -> Mapping[str, Any]:
    """In the words of the original's operation; the same for the same model, so without times."""
    named = {"input": model.signature.inputs.values(), "output": model.signature.outputs.values()}
    return {
        "name": derived_name(request.name, request.version),
        "parent": request.parent or None,
        "sourceModelFlavor": request.flavor,
        "targetModelFlavor": "AccelOnnx",
        "toolName": "accelserve",
        "toolVersion": __version__,
        "compilationOptions": {
            **{f"{what}_node_names": ",".join(spec.tensor_name for spec in specs) for what, specs in named.items()},
            "require_fpga_conversion": request.require,
        },
        "device": _told_of(parts[DEVICE_FILE]),
        "tail": _told_of(parts[TAIL_FILE]) if TAIL_FILE in parts else None,
        "boundary": list(model.device.fetches.values()),
        "decodes_pictures": model.pictures is not None,
        "largest_error": float(f"{error:.2g}"),
    }


def _told_of(graph: ModelProto) -> Mapping[str, Any]:
    operators = Counter(node.op_type for node in graph.graph.node)
    weights = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    return {"nodes": sum(operators.values()), "operators": dict(sorted(operators.items())), "weight_bytes": weights}
