"""ONNX models through ONNX Runtime, on the CPU or on an NVIDIA GPU, never silently on the other of the two."""

import ctypes
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from accelserve.backends.base import (
    API_VERSION,
    ArtifactCache,
    Capabilities,
    Device,
    DeviceLease,
    DeviceState,
    Health,
    Inventory,
    ModelArtifact,
    Placement,
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import label
from accelserve.backends.cuda.probe import LoadLibrary
from accelserve.backends.host import cpu_device
from accelserve.backends.onnx_runtime.assignment import placement_of
from accelserve.backends.onnx_runtime.binding import SlotPool
from accelserve.backends.onnx_runtime.cuda_graphs import CaptureGate
from accelserve.backends.onnx_runtime.errors import kind_of, one_line, remedy
from accelserve.backends.onnx_runtime.gpu import OnnxGpu
from accelserve.backends.onnx_runtime.options import (
    TENSORRT,
    OnnxOptions,
    fit_device,
    pixel_options,
    provider_list,
    read_options,
    session_options,
    tell_ignored,
)
from accelserve.backends.onnx_runtime.pixels import PixelStage, open_stage
from accelserve.backends.onnx_runtime.precision import content_digest, half_precision
from accelserve.backends.onnx_runtime.resident import Residence
from accelserve.backends.onnx_runtime.session import OnnxRuntimeSession
from accelserve.backends.onnx_runtime.signature import read_signature
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature

logger = logging.getLogger("accelserve.backends")

_INFLIGHT_ON_GPU = 2  # one batch computes while the other is copied in or out


@dataclass(frozen=True, slots=True)
class PreparedOnnx:
    """path: the file to load. engines: TensorRT's folder, None without it. remarks: what was found on the way."""

    path: Path
    engines: Path | None = None
    remarks: tuple[str, ...] = ()


class OnnxRuntimeBackend:
    """Format "onnx" on "cpu:0" and on every GPU that the CUDA build can use.

    Settings (`SessionOptions.extra`): see `OnnxOptions`.
    """

    name = "onnx_runtime"
    api_version = API_VERSION

    def __init__(self, runtime: Any = ort, loader: LoadLibrary = ctypes.CDLL) -> None:
        """runtime, loader: stand-ins of the library and of ctypes.CDLL, for tests."""
        self._runtime = runtime
        self._loader = loader
        self._gpu = OnnxGpu(runtime, loader)
        self._captures = CaptureGate()
        self._lost: dict[str, str] = {}

    def inventory(self) -> Inventory:
        gpus, missing = self._gpu.devices()
        return Inventory((cpu_device(), *gpus), {DeviceKind.GPU: missing} if missing else {})

    def features(self) -> Mapping[str, tuple[str, ...]]:
        return self._gpu.features()

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        chosen = read_options(self.name, options.extra)
        overlap = device.kind is DeviceKind.GPU and chosen.binds(device)
        return Capabilities(
            formats=frozenset({"onnx"}),
            numerics=chosen.numerics(device),
            max_inflight=_INFLIGHT_ON_GPU if overlap else 1,
        )

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Converts to fp16 where that is wanted, once for each content; else the file has to be there, no more.

        Raises ScoringError: INVALID for settings, PRECONDITION for a missing file or a conversion that fails.
        """
        model, chosen = label(artifact), read_options(label(artifact), options.extra)
        if not artifact.path.is_file():
            raise ScoringError(Kind.PRECONDITION, f"{model}: there is no file {artifact.path}")
        path, remarks = artifact.path, []
        if chosen.precision == "fp16":
            half = half_precision(model, path, chosen.precision_tolerance, cache, progress)
            path, remarks = half.path, [half.remark]
            logger.info("%s: %s", model, half.remark)
        engines = self._engine_folder(path, device, cache) if chosen.first_provider(device) == TENSORRT else None
        progress("ready to load", 1.0)
        return Prepared(artifact, PreparedOnnx(path, engines, tuple(remarks)))

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> OnnxRuntimeSession:
        model = label(prepared.artifact)
        chosen = fit_device(read_options(model, options.extra), device)
        tell_ignored(model, options.extra, device)
        self._require(model, device, chosen)
        ready: PreparedOnnx = prepared.payload
        providers = provider_list(chosen, device, ready.engines)
        session = self._open(model, str(ready.path), device, providers, session_options(self._runtime, chosen, options))
        signature = read_signature(model, session.get_inputs(), session.get_outputs())
        _check_placement(model, device, chosen, placement_of(session))
        residence = Residence(self._runtime, self._loader, self._captures, model, device, chosen)
        try:
            settled = residence.settle(session, signature, options, self._inflight(device, options))
        except ScoringError:
            raise
        except Exception as error:
            raise _load_error(model, device, error) from error
        settled = replace(settled, remarks=(*ready.remarks, *settled.remarks))
        stages = partial(self._open_stage, residence, options)
        return OnnxRuntimeSession(model, session, signature, device, settled, stages, self._note_lost)

    def health(self, device: Device) -> Health:
        if device.id in self._lost:
            return Health(DeviceState.LOST, self._lost[device.id])
        there = any(found.id == device.id for found in self.inventory().devices)
        return Health(DeviceState.READY) if there else Health(DeviceState.ABSENT, f"{device.id} is not found")

    def _inflight(self, device: Device, options: SessionOptions) -> int:
        return self.capabilities(device, options).max_inflight

    def _note_lost(self, device: Device, reason: str) -> None:
        self._lost[device.id] = reason

    def _engine_folder(self, path: Path, device: Device, cache: ArtifactCache) -> Path:
        """Where TensorRT keeps the engines of this model on this kind of GPU; it fills the folder itself."""
        made_for = {"tensorrt": self._runtime.__version__, "gpu": device.name}
        return cache.folder(content_digest(path, made_for), lambda folder: None)

    def _require(self, model: str, device: Device, options: OnnxOptions) -> None:
        """The device and the provider's libraries are there. Raises ScoringError(DEVICE_MISSING)."""
        if device.kind is DeviceKind.CPU:
            return
        gpus, missing = self._gpu.devices()
        if device.id not in {gpu.id for gpu in gpus}:
            there = f"this host has {', '.join(gpu.id for gpu in gpus)}"
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {', '.join(missing) or there}")
        if options.first_provider(device) == TENSORRT and (missing := self._gpu.tensorrt_gaps()):
            message = f"{model} needs TensorRT on {device.id}: {', '.join(missing)}"
            raise ScoringError(Kind.DEVICE_MISSING, message)

    def _open_stage(
        self,
        residence: Residence,
        options: SessionOptions,
        signature: Signature,
        steps: Preprocessing,
        pool: SlotPool | None,
    ) -> PixelStage:
        """Normalisation beside a model, warm. Raises as `TakesPixels.take_pixels` says."""
        model, device = residence.model, residence.device
        chosen = pixel_options(residence.options, device)
        made = session_options(self._runtime, chosen, replace(options, threads=1) if residence.on_gpu else options)
        open_graph = partial(
            self._open, model, device=device, providers=provider_list(chosen, device, None), options=made
        )
        try:
            stage = open_stage(model, signature, steps, device, open_graph, pool)
            residence.warm(stage.session, stage.slots, pool.rows if pool is not None else 0)
        except ScoringError:
            raise
        except Exception as error:
            raise _load_error(model, device, error) from error
        return stage

    def _open(
        self, model: str, graph: str | bytes, device: Device, providers: list[tuple[str, dict[str, str]]], options: Any
    ) -> Any:
        """The library's session of a file or a serialized model, on the first provider or not at all.

        The library has three silent ways to the CPU. options: its own SessionOptions.
        """
        wanted = providers[0][0]
        try:
            with self._captures.shared():
                session = self._runtime.InferenceSession(graph, options, providers=providers, enable_fallback=False)
            session.disable_fallback()
        except Exception as error:
            raise _load_error(model, device, error) from error
        took = session.get_providers()[0]
        if took != wanted:
            message = f"{model} needs {device.id}: ONNX Runtime could not start {wanted} and took {took}; see its log"
            raise ScoringError(Kind.DEVICE_MISSING, message)
        return session


def _check_placement(model: str, device: Device, options: OnnxOptions, placement: Placement) -> None:
    """Raises ScoringError(PRECONDITION) where TensorRT, asked for, runs no node. (The loader warns of the CPU's.)"""
    if device.kind is not DeviceKind.GPU or not placement.nodes:
        return
    if options.first_provider(device) == TENSORRT and not placement.nodes.get(TENSORRT):
        taken = ", ".join(f"{count} on {provider}" for provider, count in placement.nodes.items())
        message = f'{model}: TensorRT runs none of its nodes ({taken}): leave provider = "tensorrt" out'
        raise ScoringError(Kind.PRECONDITION, message)


def _load_error(model: str, device: Device, error: Exception) -> ScoringError:
    kind, reason, what_to_do = kind_of(error), one_line(error), remedy(error)
    if kind is Kind.DEVICE_MEMORY:
        return ScoringError(kind, f"{model} does not fit on {device.id}: {reason}")
    if what_to_do:
        reason = f"{reason} ({what_to_do})"
    if device.kind is DeviceKind.GPU and (kind is Kind.DEVICE_LOST or "CUDA failure" in reason):
        return ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {reason}")
    return ScoringError(Kind.PRECONDITION, f"{model} does not load: {reason}")
