"""What the GPU says of itself: name, driver, utilisation, memory; by NVML, else by nvidia-smi, else nothing."""

import importlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

MIB = 2**20
NVML_EVERY_S = 0.05
SMI_EVERY_S = 0.5
SMI_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """gpu_percent: time in which a kernel ran, over the driver's last period. memory_mib: taken on the whole GPU."""

    gpu_percent: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Gauge:
    """A way to ask one GPU. facts: what does not change."""

    read: Callable[[], Sample]
    every_s: float
    facts: dict[str, Any]


def find_gauge(index: int = 0) -> Gauge | None:
    return _by_nvml(index) or _by_smi(index)


def _by_nvml(index: int) -> Gauge | None:
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        version = nvml.nvmlSystemGetCudaDriverVersion()
        facts = {
            "name": _text(nvml.nvmlDeviceGetName(handle)),
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": f"{version // 1000}.{version % 1000 // 10}",
            "memory_mib": nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
            "read_by": "NVML",
        }
    except Exception:  # not installed, no driver, no such GPU: pynvml has an exception of its own for each
        return None

    def read() -> Sample:
        used = nvml.nvmlDeviceGetMemoryInfo(handle).used
        return Sample(float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu), used / MIB)

    return Gauge(read, NVML_EVERY_S, facts)


def _by_smi(index: int) -> Gauge | None:
    def ask(fields: str) -> list[str]:
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "-i", str(index)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_LIMIT_S, check=True)
        return [field.strip() for field in done.stdout.split(",")]

    def read() -> Sample:
        percent, memory = ask("utilization.gpu,memory.used")
        return Sample(float(percent), float(memory))

    try:
        name, driver, memory = ask("name,driver_version,memory.total")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Gauge(
        read, SMI_EVERY_S, {"name": name, "driver": driver, "memory_mib": int(memory), "read_by": "nvidia-smi"}
    )


class Watch:
    """Samples in a thread while it is entered; `seen` tells the mean utilisation and the most memory."""

    def __init__(self, gauge: Gauge | None) -> None:
        self._gauge = gauge
        self._samples: list[tuple[float, Sample]] = []
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while self._gauge is not None and not self._stop.wait(self._gauge.every_s):
            self._samples.append((time.perf_counter() - self._began, self._gauge.read()))

    def seen(self, skip_s: float = 0.0) -> dict[str, Any]:
        """skip_s: at the beginning, in which nothing was asked yet."""
        counted = [sample for at, sample in self._samples if at >= skip_s]
        if not counted:
            return {"gpu_percent": None, "gpu_memory_mib": None}
        mean = sum(sample.gpu_percent for sample in counted) / len(counted)
        return {"gpu_percent": mean, "gpu_memory_mib": max(sample.memory_mib for sample in counted)}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
