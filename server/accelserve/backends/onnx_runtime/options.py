"""What `[backend]` of a model's file says to ONNX Runtime: checked, and told in the library's own words.

Sources of those words: onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc, the TensorRT provider's
tensorrt_execution_provider_info.cc, onnxruntime_session_options_config_keys.h.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelserve.backends.base import Device, SessionOptions
from accelserve.backends.onnx_runtime.precision import TOLERANCE
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.backends")

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "provider": ("cuda", "tensorrt"),
        "precision": ("fp32", "fp16"),
        "arena_extend_strategy": ("power_of_two", "same_as_requested"),
        "cudnn_conv_algo_search": ("heuristic", "exhaustive", "default"),
    }
)
_FLAGS = ("spinning", "strict_placement", "tf32", "io_binding", "cuda_graphs", "prefer_nhwc")
_COUNTS = ("gpu_memory_limit_bytes", "arena_shrink_above_rows")
_NUMBERS = ("precision_tolerance",)
_GPU_ONLY = (
    "provider",
    "strict_placement",
    "tf32",
    "cuda_graphs",
    "gpu_memory_limit_bytes",
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "prefer_nhwc",
)
SETTINGS = frozenset((*_CHOICES, *_FLAGS, *_COUNTS, *_NUMBERS))
_ARENA = {"power_of_two": "kNextPowerOfTwo", "same_as_requested": "kSameAsRequested"}
_FATAL_ONLY = 4  # every failed run is raised and counted by the server; on stderr it would only be told twice


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """The keys of `[backend]`; README.md has them for the operator, docs/gpu.md says more.

    spinning: threads wait actively between operators: on 2 threads 8 to 20 % faster, and a whole core burnt beside a
    model that answers in 6 µs; off by default, since the event loop needs that core.
    strict_placement: refuse a model with any node that a GPU session leaves to the CPU.
    precision_tolerance: the largest error of fp16 against fp32, relative to the largest value of each output.
    io_binding: run in memory that is bound once; None: on a GPU yes, on a CPU no.
    arena_shrink_above_rows: a run of more rows gives free memory of the arena back when it ends.
    cudnn_conv_algo_search: heuristic, because the library's own default (exhaustive) measures every algorithm again
    for each new batch size, which stalls requests for seconds and takes the workspace of the greediest.
    prefer_nhwc: convolutions with channels last, as tensor cores want them; the library transposes where it must.
    """

    spinning: bool = False
    strict_placement: bool = False
    provider: str = "cuda"
    precision: str = "fp32"
    precision_tolerance: float = TOLERANCE
    tf32: bool = True
    io_binding: bool | None = None
    cuda_graphs: bool = False
    gpu_memory_limit_bytes: int | None = None
    arena_extend_strategy: str = "power_of_two"
    arena_shrink_above_rows: int | None = None
    cudnn_conv_algo_search: str = "heuristic"
    prefer_nhwc: bool = False

    def binds(self, device: Device) -> bool:
        """Whether a session on this device runs in bound memory."""
        return device.kind is DeviceKind.GPU if self.io_binding is None else self.io_binding

    def numerics(self, device: Device) -> str:
        """The CUDA provider multiplies float32 as TF32 where the GPU can (its own default)."""
        if self.precision == "fp16":
            return "fp16"
        return "tf32" if device.kind is DeviceKind.GPU and self.tf32 else "fp32"

    def first_provider(self, device: Device) -> str:
        if device.kind is not DeviceKind.GPU:
            return CPU
        return TENSORRT if self.provider == "tensorrt" else CUDA


def read_options(model: str, extra: Mapping[str, Any]) -> OnnxOptions:
    """Raises ScoringError(INVALID) for an unknown key, a value of another type, and settings that contradict."""
    for key, value in extra.items():
        problem = _problem(key, value)
        if problem:
            raise ScoringError(Kind.INVALID, f"{model}: {problem}")
    options = OnnxOptions(**extra)
    contradiction = _contradiction(options)
    if contradiction:
        raise ScoringError(Kind.INVALID, f"{model}: {contradiction}")
    return options


def _problem(key: str, value: Any) -> str:
    if key in _CHOICES:
        fits, wanted = value in _CHOICES[key], " or ".join(f'"{choice}"' for choice in _CHOICES[key])
    elif key in _FLAGS:
        fits, wanted = type(value) is bool, "true or false"
    elif key in _COUNTS:
        fits, wanted = type(value) is int and value > 0, "a whole number above 0"
    elif key in _NUMBERS:
        fits, wanted = type(value) in (int, float) and value > 0, "a number above 0"
    else:
        return f'onnx_runtime has no setting "{key}"; it has {", ".join(f.name for f in fields(OnnxOptions))}'
    return "" if fits else f'setting "{key}" wants {wanted}, got {value!r}'


def _contradiction(options: OnnxOptions) -> str:
    if not options.cuda_graphs:
        return ""
    if options.provider == "tensorrt":
        return 'cuda_graphs is for provider = "cuda": with TensorRT leave it out'
    if options.io_binding is False:
        return "cuda_graphs needs bound memory: leave io_binding = false out"
    if options.arena_shrink_above_rows is not None:
        return "a captured graph keeps using the arena's memory: leave arena_shrink_above_rows or cuda_graphs out"
    return ""


def fit_device(options: OnnxOptions, device: Device) -> OnnxOptions:
    """Without what would do harm there: the library refuses a CPU session that may have no node on the CPU."""
    return options if device.kind is DeviceKind.GPU else replace(options, strict_placement=False)


def tell_ignored(model: str, extra: Mapping[str, Any], device: Device) -> None:
    """On a CPU the GPU's settings do nothing; the log says so, since `device = "auto"` may lead there."""
    ignored = [key for key in _GPU_ONLY if key in extra]
    if ignored and device.kind is not DeviceKind.GPU:
        logger.info("%s runs on %s, where %s does nothing", model, device.id, ", ".join(ignored))


def provider_list(options: OnnxOptions, device: Device, engines: Path | None) -> list[tuple[str, dict[str, str]]]:
    """Providers with their settings, the wanted one first; never the CPU's beside a GPU's.

    engines: folder where TensorRT keeps what it has built.
    """
    wanted = options.first_provider(device)
    if wanted == CPU:
        return [(CPU, {})]
    cuda = (CUDA, _cuda_settings(options, device))
    return [(TENSORRT, _tensorrt_settings(options, device, engines)), cuda] if wanted == TENSORRT else [cuda]


def device_index(device: Device) -> int:
    """`gpu:1` -> 1, as CUDA numbers it."""
    return int(device.id.partition(":")[2])


def _cuda_settings(options: OnnxOptions, device: Device) -> dict[str, str]:
    settings = {
        "device_id": str(device_index(device)),
        "use_tf32": _flag(options.tf32),
        "arena_extend_strategy": _ARENA[options.arena_extend_strategy],
        "cudnn_conv_algo_search": options.cudnn_conv_algo_search.upper(),
    }
    if options.gpu_memory_limit_bytes is not None:
        settings["gpu_mem_limit"] = str(options.gpu_memory_limit_bytes)
    if options.cuda_graphs:
        settings["enable_cuda_graph"] = "1"
    if options.prefer_nhwc:
        settings["prefer_nhwc"] = "1"
    return settings


def _tensorrt_settings(options: OnnxOptions, device: Device, engines: Path | None) -> dict[str, str]:
    """Batch sizes need no profile: warm-up runs the smallest and the largest, and the engine covers what is between."""
    settings = {"device_id": str(device_index(device)), "trt_fp16_enable": _flag(options.precision == "fp16")}
    if engines is not None:
        folder = str(engines)
        settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        settings |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    return settings


def pixel_options(options: OnnxOptions, device: Device) -> OnnxOptions:
    """Of the graph that normalises pictures beside a model: all of it on the device, and never in a captured graph."""
    on_gpu = device.kind is DeviceKind.GPU
    return replace(options, cuda_graphs=False, provider="cuda", strict_placement=on_gpu)


def session_options(runtime: Any, options: OnnxOptions, session: SessionOptions) -> Any:
    """The library's SessionOptions."""
    made = runtime.SessionOptions()
    made.intra_op_num_threads = session.threads or usable_cpus()
    made.inter_op_num_threads = 1
    made.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    made.log_severity_level = _FATAL_ONLY
    made.add_session_config_entry("session.intra_op.allow_spinning", _flag(options.spinning))
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if options.strict_placement:
        made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return made


def _flag(value: bool) -> str:
    return "1" if value else "0"
