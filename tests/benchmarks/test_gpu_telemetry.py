"""The benchmark watches the GPU that it measures, and no other."""

import threading
from itertools import count

import pytest

from accelserve.backends.cuda.nvml import GpuMonitor, GpuState
from benchmarks.gpu_parts.telemetry import MIB, Gauge, Watch, find_gauge


class TwoGpus(GpuMonitor):
    """The second works; the first does nothing."""

    def __init__(self) -> None:
        super().__init__(None, (), "580.65.06")

    def states(self):
        yield GpuState("gpu:0", "GPU-a", 16 * MIB, 1 * MIB, 0.0)
        yield GpuState("gpu:1", "GPU-b", 32 * MIB, 5 * MIB, 0.5)


@pytest.mark.parametrize(("device", "total", "used"), [("gpu", 16, 1), ("gpu:0", 16, 1), ("gpu:1", 32, 5)])
def test_the_gpu_that_is_measured_is_asked(device, total, used):
    gauge = find_gauge(device, TwoGpus())
    assert gauge.facts == {"driver": "580.65.06", "memory_mib": total}
    assert gauge.read().memory_used_bytes == used * MIB


@pytest.mark.parametrize("device", ["cpu", "gpu:2"])
def test_what_nvml_does_not_know_has_no_gauge(device):
    assert find_gauge(device, TwoGpus()) is None


def seen(*states: GpuState | None):
    """What a watch tells that has read all of these."""
    all_read, numbers = threading.Event(), count()

    def read() -> GpuState | None:
        number = next(numbers)
        if number < len(states):
            return states[number]
        all_read.set()
        return None

    with Watch(Gauge(read, {})) as watch:
        assert all_read.wait(10)
    return watch.seen()


def test_a_watch_tells_the_mean_utilization_and_the_most_memory():
    first, second = GpuState("gpu:0", "a", 16 * MIB, 3 * MIB, 0.25), GpuState("gpu:0", "a", 16 * MIB, 2 * MIB, 0.75)
    assert seen(first, None, second) == {"gpu_percent": 50.0, "gpu_memory_mib": 3.0}


def test_what_a_gpu_does_not_tell_is_none():
    assert seen(GpuState("gpu:0", "a", 16 * MIB, 3 * MIB, None)) == {"gpu_percent": None, "gpu_memory_mib": 3.0}
    assert seen(None) == {"gpu_percent": None, "gpu_memory_mib": None}
