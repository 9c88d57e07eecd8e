"""NVIDIA's management library, played: which GPU is which, and what the gauges say."""

import pytest
from played_cuda import GIB, Driver, host

from accelserve.backends.cuda.nvml import LIBRARY, NO_GPUS, open_monitor
from accelserve.backends.cuda.probe import DRIVER

BUSES = ("0000:65:00.0", "0000:11:00.0", "0000:10:00.0")  # in NVML's order; the played driver shows 10 and 11


class Nvml:
    """Plays libnvidia-ml on a host with three GPUs, of which CUDA shows two, in another order."""

    def __init__(self, init: int = 0, lost: str = "", no_utilization: bool = False) -> None:
        self._init = init
        self._lost = lost
        self._no_utilization = no_utilization

    def nvmlInit_v2(self):
        return self._init

    def nvmlSystemGetDriverVersion(self, text, length):
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus, handle):
        handle._obj.value = BUSES.index(bus.decode()) + 1
        return 0

    def nvmlDeviceGetUUID(self, handle, text, length):
        text.value = f"GPU-{BUSES[handle.value - 1]}".encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle, memory):
        if BUSES[handle.value - 1] == self._lost:
            return 15
        memory._obj.total, memory._obj.used = 16 * GIB, handle.value * GIB
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle, use):
        use._obj.gpu = 25 * handle.value
        return 3 if self._no_utilization else 0


def monitor(nvml: Nvml):
    return open_monitor(host({DRIVER: Driver(gpus=("T4", "T4")), LIBRARY: nvml}))


def test_a_gpu_is_found_by_its_bus_and_not_by_its_number():
    states = {state.device: state for state in monitor(Nvml()).states()}
    assert {device: state.uuid for device, state in states.items()} == {
        "gpu:0": "GPU-0000:10:00.0",
        "gpu:1": "GPU-0000:11:00.0",
    }
    assert states["gpu:0"].memory_used_bytes == 3 * GIB
    assert states["gpu:1"].memory_used_bytes == 2 * GIB


def test_the_gauges_tell_memory_and_utilization_by_device():
    found = {(gauge.name, gauge.labels["device"]): gauge.value for gauge in monitor(Nvml()).gauges()}
    assert found == {
        ("accelserve_gpu_memory_used_bytes", "gpu:0"): 3 * GIB,
        ("accelserve_gpu_memory_total_bytes", "gpu:0"): 16 * GIB,
        ("accelserve_gpu_utilization_ratio", "gpu:0"): 0.75,
        ("accelserve_gpu_memory_used_bytes", "gpu:1"): 2 * GIB,
        ("accelserve_gpu_memory_total_bytes", "gpu:1"): 16 * GIB,
        ("accelserve_gpu_utilization_ratio", "gpu:1"): 0.5,
    }


def test_the_driver_is_named():
    assert monitor(Nvml()).driver_version == "580.65.06"


def test_a_gpu_without_utilization_tells_its_memory():
    names = {gauge.name for gauge in monitor(Nvml(no_utilization=True)).gauges()}
    assert names == {"accelserve_gpu_memory_used_bytes", "accelserve_gpu_memory_total_bytes"}


def test_a_gpu_that_fell_off_the_bus_is_left_out():
    assert [state.device for state in monitor(Nvml(lost="0000:10:00.0")).states()] == ["gpu:1"]


@pytest.mark.parametrize("libraries", [{}, {LIBRARY: Nvml(init=9)}, {LIBRARY: Nvml()}], ids=["none", "init", "no cuda"])
def test_without_nvml_or_a_gpu_nothing_is_told_and_nothing_fails(libraries):
    found = open_monitor(host(libraries))
    assert list(found.gauges()) == []


def test_a_host_without_the_library_has_the_empty_monitor():
    assert open_monitor(host({})) is NO_GPUS
