"""A model made ready for the emulated card, once for each content and format: rewritten, sized and kept in the cache.

What is kept is a converted model itself (`accel_onnx.accel_model`), whose digests show damage when it is read.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelserve.backends.accel_onnx.accel_model import DEVICE_FILE, AccelModel, read_accel, write_accel
from accelserve.backends.accel_onnx.model_file import content_of
from accelserve.backends.accel_onnx.parts import AccelParts, read_parts
from accelserve.backends.artifact_cache import check_unchanged
from accelserve.backends.base import ArtifactCache, ModelArtifact, Progress
from accelserve.backends.batch_check import label
from accelserve.backends.fpga_emulator.computed_weights import with_computed_weights
from accelserve.backends.fpga_emulator.formats import Fp32
from accelserve.backends.fpga_emulator.latency_model import LayerWork
from accelserve.backends.fpga_emulator.measuring import RunOnce, exact_for_noise, layer_work
from accelserve.backends.fpga_emulator.options import EmulatorOptions
from accelserve.backends.fpga_emulator.rewrite import Emulated, EmulatedLayer, emulate
from accelserve.errors import Kind, ScoringError
from accelserve.installed import installed_versions

logger = logging.getLogger("accelserve.backends")

_LAYOUT = 2  # of what is kept
_TOOLS = ("accelserve", "onnxruntime", "onnxruntime-gpu")
_KEY = "emulated"  # in the report


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """folder: where its files are. work: for the latency model, None where the sizes of pictures are open.

    exact_for_noise: the layers that were exact for one row of noise, None where that was not tried.
    """

    folder: Path
    model: AccelModel
    layers: tuple[EmulatedLayer, ...]
    work: tuple[LayerWork, ...] | None
    weight_bytes: int
    exact_for_noise: frozenset[str] | None = None


def compile_model(
    artifact: ModelArtifact,
    options: EmulatorOptions,
    cache: ArtifactCache,
    progress: Progress,
    run_once: RunOnce,
) -> CompiledModel:
    """From the cache, or made now. Raises ScoringError(PRECONDITION)."""
    settings = {
        "emulator": _LAYOUT,
        "numerics": str(options.numerics),
        "device_outputs": list(options.device_outputs),
        "tools": installed_versions(_TOOLS),
    }
    before = content_of(artifact, settings)

    def build(folder: Path) -> None:
        _compile(artifact, options, folder, progress, run_once)
        check_unchanged(label(artifact), artifact.path, before, lambda: content_of(artifact, settings))

    found = partial(cache.folder, before, build)
    try:
        compiled = read_compiled(found())
    except _Damaged as damage:
        logger.warning("%s: made again for the emulated card: %s", label(artifact), damage)
        shutil.rmtree(damage.folder, ignore_errors=True)
        compiled = read_compiled(found())
    progress("ready to load", 1.0)
    return compiled


class _Damaged(ScoringError):
    """An entry of the cache that is not what was written."""

    def __init__(self, folder: Path, message: str) -> None:
        super().__init__(Kind.PRECONDITION, message)
        self.folder = folder


def read_compiled(folder: Path) -> CompiledModel:
    """Raises ScoringError(PRECONDITION) for what is damaged."""
    try:
        model = read_accel(folder)
        told = model.report[_KEY]
        layers = tuple(EmulatedLayer(**each) for each in told["layers"])
        work = None if told["work"] is None else tuple(LayerWork(**each) for each in told["work"])
        exact = None if told["exact_for_noise"] is None else frozenset(told["exact_for_noise"])
        return CompiledModel(folder, model, layers, work, told["weight_bytes"], exact)
    except (ScoringError, KeyError, TypeError) as error:
        raise _Damaged(folder, f"the entry {folder} of the cache is damaged: {error}") from error


def _compile(
    artifact: ModelArtifact, options: EmulatorOptions, folder: Path, progress: Progress, run_once: RunOnce
) -> None:
    progress("reading the model", 0.0)
    parts = read_parts(artifact, options.device_outputs or None)
    progress(f"rewriting it in {options.numerics}", 0.1)
    try:
        parts = replace(parts, device=with_computed_weights(parts.device, run_once))
        emulated = emulate(parts.device, options.numerics)
    except ScoringError as error:
        raise ScoringError(error.kind, f"{label(artifact)}: {error.message}") from error
    progress("sizing its layers", 0.6)
    work, exact = layer_work(parts.device, parts.model, run_once), None
    if not isinstance(options.numerics.format, Fp32):
        progress("watching its sums", 0.7)
        exact = exact_for_noise(parts.device, parts.model, emulated, options.numerics.format, run_once)
    told: dict[str, Any] = {
        "layers": [asdict(layer) for layer in emulated.layers],
        "work": None if work is None else [asdict(each) for each in work],
        "weight_bytes": sum(_bytes(parts.device).values()),
        "exact_for_noise": exact,
    }
    progress("writing it", 0.8)
    _write(folder, parts, emulated, told)


def _write(folder: Path, parts: AccelParts, emulated: Emulated, told: Mapping[str, Any]) -> None:
    model = parts.model
    device = replace(model.device, file=DEVICE_FILE)
    (folder / device.file).write_bytes(emulated.model.SerializeToString())
    if parts.tail is not None and model.tail is not None:
        (folder / model.tail.file).write_bytes(parts.tail.SerializeToString())
    write_accel(folder, replace(model, device=device, report={_KEY: told}))


def _bytes(device: Any) -> Mapping[str, int]:
    """Of the float32 weights of a device's part, by name."""
    return {tensor.name: len(tensor.raw_data) or 4 * len(tensor.float_data) for tensor in device.graph.initializer}
