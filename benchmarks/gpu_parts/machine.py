"""Where it was measured: the device, the library builds, the machine."""

import importlib
from typing import Any

import onnxruntime as ort

from accelserve.backends.base import Device, ModelArtifact
from accelserve.backends.discovery import BackendPool
from accelserve.devices import parse_device_request
from benchmarks import record
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.plan import Plan
from benchmarks.gpu_parts.telemetry import find_gauge


def find_device(plan: Plan) -> Device:
    """Where the models will run. Raises ScoringError naming what is missing."""
    artifact = ModelArtifact("tiny", 1, "onnx", samples.build("tiny", plan.folder))
    _, (device, *_) = BackendPool().choose(artifact, parse_device_request(plan.device))
    return device


def device_facts(device: Device) -> dict[str, Any]:
    gauge = find_gauge(device.id)
    return {"id": device.id, "name": device.name, **(gauge.facts if gauge else {})}


def versions() -> dict[str, Any]:
    """Of what is imported, whatever else is installed beside it."""
    providers = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    build = {"onnxruntime": ort.__version__, "built_for": providers, "cuda": getattr(ort, "cuda_version", "")}
    protobuf: Any = importlib.import_module("google.protobuf")
    return {**record.versions(), **build, "protobuf": protobuf.__version__}
