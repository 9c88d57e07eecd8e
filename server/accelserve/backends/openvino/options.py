"""What `[backend]` of a model's file says to OpenVINO: checked, and told in the library's own words (properties)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelserve.backends.base import Device, SessionOptions
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": ("fp32", "bf16", "fp16"),
    "performance_hint": ("latency", "throughput"),
    "fallback": ("forbid", "partial"),
}
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """The keys of `[backend]`; docs/fpga_cards.md has them for the operator.

    precision: what the CPU computes in. The library's own choice is bf16 wherever the CPU has it, unasked.
    fallback: "partial" lets layers that the FPGA does not take run on the CPU; "forbid" refuses such a model.
    device_outputs: where the device's part of a plain ONNX file ends; the rest is the host's.
    max_batch: rows of one run on an FPGA, which the model is compiled for. numerics: what the FPGA's architecture
    computes in, which the library cannot be asked. properties: given to the FPGA's plug-in as they are.
    """

    precision: str = "fp32"
    performance_hint: str = "latency"
    fallback: str = "forbid"
    max_batch: int = 1
    numerics: str = "bfp"
    device_outputs: tuple[str, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)

    def numerics_on(self, device: Device) -> str:
        return self.numerics if device.kind is DeviceKind.FPGA else self.precision


def read_options(model: str, extra: Mapping[str, Any]) -> OpenVinoOptions:
    """Raises ScoringError(INVALID) for an unknown key, and for a value of another type."""
    for key, value in extra.items():
        if problem := _problem(key, value):
            raise ScoringError(Kind.INVALID, f"{model}: {problem}")
    values = dict(extra)
    if "device_outputs" in values:
        values["device_outputs"] = tuple(values["device_outputs"])
    return OpenVinoOptions(**values)


def _problem(key: str, value: Any) -> str:
    if key in _CHOICES:
        fits, wanted = value in _CHOICES[key], " or ".join(f'"{choice}"' for choice in _CHOICES[key])
    elif key == "max_batch":
        fits, wanted = type(value) is int and value > 0, "a whole number above 0"
    elif key == "numerics":
        fits, wanted = type(value) is str and value != "", "a text"
    elif key == "device_outputs":
        fits = isinstance(value, list | tuple) and all(type(each) is str for each in value) and bool(value)
        wanted = "a list of names"
    elif key == "properties":
        fits, wanted = isinstance(value, Mapping), "a table of properties of the FPGA's plug-in"
    else:
        return f'openvino has no setting "{key}"; it has {", ".join(f.name for f in fields(OpenVinoOptions))}'
    return "" if fits else f'setting "{key}" wants {wanted}, got {value!r}'


def cpu_properties(options: OpenVinoOptions, session: SessionOptions) -> dict[str, Any]:
    """Of a model on the CPU.

    ACCURACY: no activations quantized on the way (the library does that to models of compressed weights). No pinning:
    models of one server, and servers of one host, would be pinned to the same cores. No cache: it would save a tenth of
    a second of a ResNet-50's load, for as many bytes as the model has.
    """
    return {
        "PERFORMANCE_HINT": options.performance_hint.upper(),
        "INFERENCE_NUM_THREADS": session.threads or usable_cpus(),
        "INFERENCE_PRECISION_HINT": PRECISIONS[options.precision],
        "EXECUTION_MODE_HINT": "ACCURACY",
        "ENABLE_CPU_PINNING": False,
    }


def fpga_properties(options: OpenVinoOptions, compiled: Path) -> dict[str, Any]:
    """Of a model on an FPGA. compiled: where the library keeps what its plug-in has made, if that can be kept."""
    return {"CACHE_DIR": str(compiled), **options.properties}


def target(options: OpenVinoOptions, name: str) -> str:
    """The library's name for where a model goes. name: the FPGA's, as the library lists it."""
    return name if options.fallback == "forbid" else f"HETERO:{name},CPU"
