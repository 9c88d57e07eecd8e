"""What an FPGA's back end reads: device part, host tail and names, of a converted model or of a plain ONNX file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelserve.backends.accel_onnx.accel_model import (
    DEVICE_FILE,
    FORMAT,
    TAIL_FILE,
    AccelModel,
    Part,
    read_accel,
    read_part,
)
from accelserve.backends.accel_onnx.model_file import inputs_of, read_whole, signature_of
from accelserve.backends.accel_onnx.operators import in_words, unsupported
from accelserve.backends.accel_onnx.partition import split
from accelserve.backends.base import ModelArtifact
from accelserve.backends.batch_check import label
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto

DEVICE_OUTPUT = "accelserve.device_output"  # metadata of an ONNX file: where its device part ends


@dataclass(frozen=True, slots=True)
class AccelParts:
    """model: names and what is decoded; its files need not exist. The graphs hold their weights."""

    model: AccelModel
    device: ModelProto
    tail: ModelProto | None


def read_parts(artifact: ModelArtifact, boundary: Sequence[str] | None = None) -> AccelParts:
    """Of format "accelonnx" or "onnx". boundary: where the device ends in the latter, else what its metadata say.

    Raises ScoringError(PRECONDITION): a file that is missing or damaged, operators that the device does not take.
    """
    if artifact.format == FORMAT:
        return _converted(label(artifact), artifact.path, boundary)
    whole = read_whole(label(artifact), artifact.path)
    try:
        parts = split(whole, boundary or _told_boundary(whole))
    except ScoringError as error:
        raise ScoringError(error.kind, f"{label(artifact)}: {error.message}") from error
    signature = signature_of(label(artifact), whole)
    inputs = {key: key for key in signature.inputs}
    outputs = {key: key for key in signature.outputs}
    device = _part(DEVICE_FILE, parts.device)
    tail = None if parts.tail is None else _part(TAIL_FILE, parts.tail)
    return AccelParts(AccelModel(signature, inputs, outputs, device, tail), parts.device, parts.tail)


def _converted(model: str, folder: Path, boundary: Sequence[str] | None) -> AccelParts:
    accel = read_accel(folder)
    if boundary:
        message = f"{model}: device_outputs is for plain ONNX files; this one was divided when it was converted"
        raise ScoringError(Kind.INVALID, f"{message}: leave the setting out")
    device = read_part(folder, accel.device)
    if refused := unsupported(device):
        message = f"{model}: the FPGA does not take {in_words(refused)}"
        raise ScoringError(Kind.PRECONDITION, f"{message}; convert the model again with another boundary")
    return AccelParts(accel, device, None if accel.tail is None else read_part(folder, accel.tail))


def _told_boundary(proto: ModelProto) -> list[str] | None:
    told = {entry.key: entry.value for entry in proto.metadata_props}.get(DEVICE_OUTPUT, "")
    return [name.strip() for name in told.split(",") if name.strip()] or None


def _part(file: str, graph: ModelProto) -> Part:
    feeds = {value.name: value.name for value in inputs_of(graph.graph)}
    return Part(file, feeds, {value.name: value.name for value in graph.graph.output})
