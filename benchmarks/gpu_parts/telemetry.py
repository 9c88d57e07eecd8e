"""What a GPU says of itself while it works: utilisation and memory, by NVML, the one that CUDA's numbers mean."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from accelserve.backends.cuda.nvml import GpuMonitor, GpuState, open_monitor

MIB = 2**20
EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Gauge:
    """A way to ask one GPU, which may not answer (None). facts: what does not change."""

    read: Callable[[], GpuState | None]
    facts: dict[str, Any]


def find_gauge(device: str, monitor: GpuMonitor | None = None) -> Gauge | None:
    """device: as `--device` has it; "gpu" is the first. None on a CPU, and where NVML does not know it."""
    wanted = "gpu:0" if device == "gpu" else device
    gpus = open_monitor() if monitor is None else monitor

    def read() -> GpuState | None:
        return next((state for state in gpus.states() if state.device == wanted), None)

    state = read()
    if state is None:
        return None
    return Gauge(read, {"driver": gpus.driver_version, "memory_mib": state.memory_total_bytes // MIB})


class Watch:
    """Samples in a thread while it is entered; `seen` tells the mean utilisation and the most memory."""

    def __init__(self, gauge: Gauge | None) -> None:
        self._gauge = gauge
        self._samples: list[tuple[float, GpuState]] = []
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
        while self._gauge is not None and not self._stop.wait(EVERY_S):
            if (state := self._gauge.read()) is not None:
                self._samples.append((time.perf_counter() - self._began, state))

    def seen(self, skip_s: float = 0.0) -> dict[str, Any]:
        """skip_s: at the beginning, in which nothing was asked yet. None for what was not told."""
        counted = [state for at, state in self._samples if at >= skip_s]
        shares = [state.utilization for state in counted if state.utilization is not None]
        most = max((state.memory_used_bytes / MIB for state in counted), default=None)
        return {"gpu_percent": 100 * sum(shares) / len(shares) if shares else None, "gpu_memory_mib": most}
