"""ONNX models through ONNX Runtime, on the CPU or on an NVIDIA GPU, never silently on the other of the two."""

import ctypes
import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
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
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import label
from accelserve.backends.cuda_probe import CudaReport, Loader, explain_gpu, find_devices, missing_libraries
from accelserve.backends.host import cpu_device
from accelserve.backends.onnx_errors import kind_of, one_line
from accelserve.backends.onnx_session import OnnxRuntimeSession, placement_of
from accelserve.backends.onnx_signature import read_signature
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.backends")

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_EXTRA = {"spinning": bool, "strict_placement": bool, "gpu_memory_limit_bytes": int}
_FATAL_ONLY = 4  # every failed run is raised and counted by the server; on stderr it would only be told twice


class OnnxRuntimeBackend:
    """Format "onnx" on "cpu:0" and on every GPU that the CUDA build can use.

    Settings (`SessionOptions.extra`): `spinning`, threads wait actively between operators (on 2 threads 8 to 20 %
    faster, and a whole core burnt beside a model that answers in 6 µs; off by default, since the event loop needs
    that core); `strict_placement`, refuse a model with any node that a GPU session leaves to the CPU;
    `gpu_memory_limit_bytes`, of the CUDA arena.
    """

    name = "onnx_runtime"
    api_version = API_VERSION

    def __init__(self, runtime: Any = ort, loader: Loader = ctypes.CDLL) -> None:
        """runtime, loader: stand-ins of the library and of ctypes.CDLL, for tests."""
        self._runtime = runtime
        self._loader = loader
        self._lost: dict[str, str] = {}

    def inventory(self) -> Inventory:
        gpus, missing = self._gpus()
        return Inventory((cpu_device(), *gpus), {DeviceKind.GPU: missing} if missing else {})

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        """numerics: the CUDA provider multiplies float32 as TF32 where the GPU can (its own default)."""
        numerics = "tf32" if device.kind is DeviceKind.GPU else "fp32"
        return Capabilities(formats=frozenset({"onnx"}), numerics=numerics)

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Nothing slow: the file is there, or ScoringError(PRECONDITION)."""
        if not artifact.path.is_file():
            raise ScoringError(Kind.PRECONDITION, f"{label(artifact)}: there is no file {artifact.path}")
        progress("ready to load", 1.0)
        return Prepared(artifact, artifact.path)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> OnnxRuntimeSession:
        model = label(prepared.artifact)
        _check_extra(model, options.extra)
        providers = self._providers(model, device, options)
        session = self._open(model, prepared.payload, device, providers, _session_options(self._runtime, options))
        signature = read_signature(model, session.get_inputs(), session.get_outputs())
        return OnnxRuntimeSession(model, session, signature, device, placement_of(session), self._note_lost)

    def health(self, device: Device) -> Health:
        if device.id in self._lost:
            return Health(DeviceState.LOST, self._lost[device.id])
        there = any(found.id == device.id for found in self.inventory().devices)
        return Health(DeviceState.READY) if there else Health(DeviceState.ABSENT, f"{device.id} is not found")

    def _note_lost(self, device: Device, reason: str) -> None:
        self._lost[device.id] = reason

    def _gpus(self) -> tuple[tuple[Device, ...], tuple[str, ...]]:
        """The GPUs that can be used, or all that is missing."""
        build = self._build_gap()
        found = find_devices(self._loader)
        missing = explain_gpu(build, found, () if build else self._library_gaps())
        return ((), missing) if missing else (_gpu_devices(found), ())

    def _build_gap(self) -> str:
        """What is wrong with the installed build. `get_available_providers` lists what was built, not what works."""
        if CUDA in self._runtime.get_available_providers():
            return ""
        if _installed("onnxruntime-gpu") and _installed("onnxruntime"):
            return "onnxruntime overwrote onnxruntime-gpu: uninstall both, then pip install 'accelserve[gpu]'"
        return f"onnxruntime-gpu is not installed (the CPU build onnxruntime {self._runtime.__version__} is)"

    def _library_gaps(self) -> tuple[str, ...]:
        self._preload()
        return missing_libraries(self._loader)

    def _preload(self) -> None:
        """Load the CUDA libraries of the nvidia-* Python packages, which no loader path names."""
        preload = getattr(self._runtime, "preload_dlls", None)
        if preload is not None:
            try:
                preload()
            except Exception as error:
                logger.warning("onnxruntime.preload_dlls failed: %s", error)

    def _providers(self, model: str, device: Device, options: SessionOptions) -> list[tuple[str, dict[str, str]]]:
        if device.kind is DeviceKind.CPU:
            return [(CPU, {})]
        gpus, missing = self._gpus()
        if device.id not in {gpu.id for gpu in gpus}:
            there = f"this host has {', '.join(gpu.id for gpu in gpus)}"
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {', '.join(missing) or there}")
        settings = {"device_id": device.id.partition(":")[2]}
        if "gpu_memory_limit_bytes" in options.extra:
            settings["gpu_mem_limit"] = str(options.extra["gpu_memory_limit_bytes"])
        return [(CUDA, settings)]

    def _open(
        self,
        model: str,
        path: Path,
        device: Device,
        providers: list[tuple[str, dict[str, str]]],
        session_options: Any,
    ) -> Any:
        """The session, on the first provider or not at all: the library has three silent ways to the CPU."""
        wanted = providers[0][0]
        try:
            session = self._runtime.InferenceSession(
                str(path), session_options, providers=providers, enable_fallback=False
            )
            session.disable_fallback()
        except Exception as error:
            raise _load_error(model, device, error) from error
        if session.get_providers()[0] != wanted:
            message = f"{model} needs {device.id}: ONNX Runtime could not start {wanted} and took {CPU}; see its log"
            raise ScoringError(Kind.DEVICE_MISSING, message)
        return session


def _session_options(runtime: Any, options: SessionOptions) -> Any:
    made = runtime.SessionOptions()
    made.intra_op_num_threads = options.threads or usable_cpus()
    made.inter_op_num_threads = 1
    made.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    made.log_severity_level = _FATAL_ONLY
    made.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.extra.get("spinning") else "0")
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if options.extra.get("strict_placement"):
        made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return made


def _check_extra(model: str, extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if key not in _EXTRA:
            raise ScoringError(
                Kind.INVALID, f'{model}: onnx_runtime has no setting "{key}"; it has {", ".join(_EXTRA)}'
            )
        if type(value) is not _EXTRA[key]:
            raise ScoringError(Kind.INVALID, f'{model}: setting "{key}" wants {_EXTRA[key].__name__}, got {value!r}')


def _load_error(model: str, device: Device, error: Exception) -> ScoringError:
    kind, reason = kind_of(error), one_line(error)
    if kind is Kind.DEVICE_MEMORY:
        return ScoringError(kind, f"{model} does not fit on {device.id}: {reason}")
    if device.kind is DeviceKind.GPU and (kind is Kind.DEVICE_LOST or "CUDA failure" in reason):
        return ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {reason}")
    return ScoringError(Kind.PRECONDITION, f"{model} does not load: {reason}")


def _gpu_devices(found: CudaReport) -> tuple[Device, ...]:
    return tuple(Device(f"gpu:{d.index}", DeviceKind.GPU, d.name, d.memory_bytes) for d in found.devices)


def _installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False
