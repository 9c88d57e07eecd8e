"""What NVIDIA's management library says of the GPUs: driver, memory, utilisation. Without it there is nothing to say.

ctypes on libnvidia-ml.so.1, which comes with the driver: six calls, for which no package (nvidia-ml-py) is worth
carrying in every image. NVML numbers all GPUs of the host and CUDA only those that CUDA_VISIBLE_DEVICES shows, in
its order, so a GPU is found by its PCI bus id. Source: NVML API reference.
"""

import ctypes
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from accelserve.backends.cuda.probe import CudaDevice, LoadLibrary, find_devices
from accelserve.observability.metrics import Gauge

logger = logging.getLogger("accelserve.backends")

LIBRARY = "libnvidia-ml.so.1"
_TEXT_BYTES = 96


class _Memory(ctypes.Structure):  # nvmlMemory_t, bytes
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilization(ctypes.Structure):  # nvmlUtilization_t, percent of the last sampling period
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU now. device: as `--device` names it, "gpu:0". utilization: 0 to 1, None where it is not told (MIG)."""

    device: str
    uuid: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization: float | None


class GpuMonitor:
    """Asks NVML for the GPUs that CUDA shows; cheap enough for each scrape. Not for threads."""

    def __init__(self, library: Any, handles: Sequence[tuple[str, str, Any]], driver_version: str) -> None:
        """handles: (device, uuid, NVML's handle). For `open_monitor`."""
        self._library = library
        self._handles = tuple(handles)
        self.driver_version = driver_version

    def states(self) -> Iterator[GpuState]:
        """A GPU that does not answer (it has fallen off the bus) is left out."""
        for device, uuid, handle in self._handles:
            memory, use = _Memory(), _Utilization()
            if self._library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                continue
            told = not self._library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(use))
            yield GpuState(device, uuid, memory.total, memory.used, use.gpu / 100 if told else None)

    def gauges(self) -> Iterator[Gauge]:
        for state in self.states():
            labels = {"device": state.device, "uuid": state.uuid}
            used, total, share = state.memory_used_bytes, state.memory_total_bytes, state.utilization
            yield Gauge("accelserve_gpu_memory_used_bytes", "Memory of the GPU in use, by all processes.", labels, used)
            yield Gauge("accelserve_gpu_memory_total_bytes", "Memory of the GPU.", labels, total)
            if share is not None:
                text = "Share of the last sampling period in which a kernel ran."
                yield Gauge("accelserve_gpu_utilization_ratio", text, labels, share)


NO_GPUS = GpuMonitor(None, (), "")


def open_monitor(loader: LoadLibrary = ctypes.CDLL) -> GpuMonitor:
    """Blocks for the time that the driver takes to start; `NO_GPUS` where there is no NVML or no GPU."""
    try:
        library = loader(LIBRARY)
    except OSError:
        return NO_GPUS
    if code := library.nvmlInit_v2():
        logger.info("no metrics of GPUs: nvmlInit failed with %d", code)
        return NO_GPUS
    handles = [found for device in find_devices(loader).devices if (found := _find(library, device)) is not None]
    return GpuMonitor(library, handles, _text(library.nvmlSystemGetDriverVersion))


def _find(library: Any, device: CudaDevice) -> tuple[str, str, Any] | None:
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByPciBusId_v2(device.bus_id.encode(), ctypes.byref(handle)):
        return None
    return f"gpu:{device.index}", _text(library.nvmlDeviceGetUUID, handle), handle


def _text(ask: Any, *about: Any) -> str:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    return "" if ask(*about, text, _TEXT_BYTES) else text.value.decode(errors="replace")
