"""What CUDA needs and what of it is there: driver, devices, libraries; each missing piece by its name.

Asks the driver through ctypes (`cuInit`, `cuDeviceGetCount`): no context is created and no memory is taken. The
loader is an argument, so that tests can play a host with a driver but no device, or a library short.
Sources: CUDA driver API reference; hard links of onnxruntime-gpu 1.31's CUDA and TensorRT providers.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

LoadLibrary = Callable[[str], Any]  # as ctypes.CDLL: the library, or OSError

DRIVER = "libcuda.so.1"
# cuDNN and cuFFT are loaded by name when first needed, the others are hard links of the CUDA provider.
LIBRARIES: Mapping[str, str] = MappingProxyType(
    {
        "libcublasLt.so.13": "nvidia-cublas",
        "libcublas.so.13": "nvidia-cublas",
        "libcudart.so.13": "nvidia-cuda-runtime",
        "libcurand.so.10": "nvidia-curand",
        "libcudnn.so.9": "nvidia-cudnn-cu13",
        "libcufft.so.12": "nvidia-cufft",
    }
)
TENSORRT_LIBRARIES: Mapping[str, str] = MappingProxyType(
    {
        "libnvinfer.so.10": "'tensorrt-cu13<11'",
        "libnvinfer_plugin.so.10": "'tensorrt-cu13<11'",
        "libnvonnxparser.so.10": "'tensorrt-cu13<11'",
    }
)
# The oldest driver branch of each CUDA major version; within one, any minor version runs on it (CUDA Compatibility).
_BRANCHES = {11: "R450", 12: "R525", 13: "R580"}
_CU_ERRORS = {
    2: "out of memory",
    100: "no CUDA-capable device is detected",
    101: "invalid device ordinal",
    802: "the system is not yet initialized (is the fabric manager running?)",
    803: "driver and kernel module have different versions",
    804: "this driver does not support forward compatibility on this device",
    999: "unknown error of the driver",
}
_NAME_BYTES = 256
_BUS_BYTES = 32


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One GPU as the driver numbers it (CUDA_VISIBLE_DEVICES applied). bus_id: PCI's, by which NVML knows it too."""

    index: int
    name: str
    memory_bytes: int
    bus_id: str = ""


@dataclass(frozen=True, slots=True)
class CudaReport:
    """missing: what lacks, by name; devices is empty then. version: CUDA's that the driver speaks, "" unknown."""

    devices: tuple[CudaDevice, ...] = ()
    missing: tuple[str, ...] = ()
    version: str = ""


def find_devices(loader: LoadLibrary = ctypes.CDLL, needs: str = "") -> CudaReport:
    """The GPUs that the driver shows, or why there are none.

    needs: the CUDA version that the driver has to speak, "13.0"; empty: any.
    """
    try:
        driver = loader(DRIVER)
    except OSError as error:
        return CudaReport(missing=(_load_failure(f"NVIDIA driver library {DRIVER}", DRIVER, error),))
    version = _driver_version(driver)
    if too_old := _too_old(version, needs):
        return CudaReport(missing=(too_old,), version=version)
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return CudaReport(missing=(f"NVIDIA driver: {_explain(code)}",), version=version)
    if count.value < 1:
        missing = "NVIDIA driver: no GPU is visible (CUDA_VISIBLE_DEVICES?)"
        return CudaReport(missing=(missing,), version=version)
    return CudaReport(tuple(_device(driver, index) for index in range(count.value)), version=version)


def missing_libraries(
    loader: LoadLibrary = ctypes.CDLL, libraries: Mapping[str, str] = LIBRARIES, what: str = "CUDA library"
) -> tuple[str, ...]:
    """The shared libraries that do not load, each with its remedy. libraries: file name -> Python package."""
    return tuple(
        text
        for name, package in libraries.items()
        if (text := _try_library(loader, what, name, f"pip install {package}")) is not None
    )


def explain_gpu(build: str, devices: CudaReport, libraries: Sequence[str]) -> tuple[str, ...]:
    """All that keeps a runtime from the GPU: its build, the driver or device, the libraries; empty: nothing does.

    build: what is wrong with the installed build, empty when it has CUDA. Without a CUDA build its libraries are no
    news, since they come with it.
    """
    return (build, *devices.missing) if build else (*devices.missing, *libraries)


def _driver_version(driver: Any) -> str:
    """ "13.0" of 13000; needs no cuInit."""
    number = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}" if number.value else ""


def _too_old(version: str, needs: str) -> str:
    """Why the driver cannot serve this CUDA, "" when it can: its major version must not be smaller."""
    if not version or not needs or _major(version) >= _major(needs):
        return ""
    branch = _BRANCHES.get(_major(needs), "a newer branch")
    return f"NVIDIA driver: it speaks CUDA {version}, CUDA {needs} is needed: install driver {branch} or newer"


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _try_library(loader: LoadLibrary, what: str, name: str, remedy: str) -> str | None:
    try:
        loader(name)
    except OSError as error:
        return f"{_load_failure(f'{what} {name}', name, error)} ({remedy})"
    return None


def _load_failure(what: str, name: str, error: OSError) -> str:
    """ "not found" when it is this file that lacks; the loader's own words when, say, a library it needs does."""
    reason = str(error)
    if reason.startswith(f"{name}: cannot open shared object file"):
        return f"{what} not found"
    return f"{what} does not load: {reason}"


def _device(driver: Any, index: int) -> CudaDevice:
    handle, memory = ctypes.c_int(index), ctypes.c_size_t(0)
    name, bus = ctypes.create_string_buffer(_NAME_BYTES), ctypes.create_string_buffer(_BUS_BYTES)
    driver.cuDeviceGet(ctypes.byref(handle), index)
    driver.cuDeviceGetName(name, _NAME_BYTES, handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    driver.cuDeviceGetPCIBusId(bus, _BUS_BYTES, handle)
    return CudaDevice(index, name.value.decode(errors="replace"), memory.value, bus.value.decode(errors="replace"))


def _explain(code: int) -> str:
    return f"{_CU_ERRORS.get(code, 'error')} (CUDA error {code})"
