import pytest
from played_cuda import GIB, Driver, host

from accelserve.backends.cuda.probe import (
    DRIVER,
    LIBRARIES,
    CudaDevice,
    CudaReport,
    explain_gpu,
    find_devices,
    missing_libraries,
)


def test_one_gpu_is_found_with_its_name_and_memory():
    report = find_devices(host({DRIVER: Driver(gpus=("NVIDIA T4",))}))
    assert report == CudaReport((CudaDevice(0, "NVIDIA T4", 16 * GIB, "0000:10:00.0"),), version="13.0")


def test_gpus_are_numbered_as_the_driver_numbers_them():
    report = find_devices(host({DRIVER: Driver(gpus=("A", "B"))}))
    assert [(device.index, device.name) for device in report.devices] == [(0, "A"), (1, "B")]


def test_a_missing_driver_is_named():
    assert find_devices(host({})).missing == ("NVIDIA driver library libcuda.so.1 not found",)


def test_a_driver_that_does_not_load_says_why():
    broken = OSError("libcuda.so.1: wrong ELF class: ELFCLASS32")
    assert find_devices(host({DRIVER: broken})).missing == (
        "NVIDIA driver library libcuda.so.1 does not load: libcuda.so.1: wrong ELF class: ELFCLASS32",
    )


@pytest.mark.parametrize(
    ("code", "words"), [(100, "no CUDA-capable device"), (803, "different versions"), (12345, "12345")]
)
def test_a_driver_that_refuses_to_start_says_why(code, words):
    report = find_devices(host({DRIVER: Driver(init=code, gpus=("hidden",))}))
    assert report.devices == ()
    assert words in report.missing[0]


def test_a_driver_without_a_visible_device_is_not_enough():
    report = find_devices(host({DRIVER: Driver()}))
    assert report.missing == ("NVIDIA driver: no GPU is visible (CUDA_VISIBLE_DEVICES?)",)


def test_a_driver_that_is_too_old_is_told_with_what_is_needed_and_the_remedy():
    report = find_devices(host({DRIVER: Driver(gpus=("NVIDIA T4",), version=12040)}), "13.0")
    assert report.devices == ()
    assert report.missing == ("NVIDIA driver: it speaks CUDA 12.4, CUDA 13.0 is needed: install driver R580 or newer",)


@pytest.mark.parametrize("needs", ["13.0", "13.1", "12.8", ""])
def test_a_driver_serves_every_minor_version_of_its_cuda_and_older_ones(needs):
    assert len(find_devices(host({DRIVER: Driver(gpus=("NVIDIA T4",))}), needs).devices) == 1


def test_nothing_is_missing_where_every_library_loads():
    assert missing_libraries(host(dict.fromkeys(LIBRARIES, object()))) == ()


def test_a_missing_library_is_named_with_its_package():
    libraries = dict.fromkeys(set(LIBRARIES) - {"libcudnn.so.9"}, object())
    assert missing_libraries(host(libraries)) == (
        "CUDA library libcudnn.so.9 not found (pip install nvidia-cudnn-cu13)",
    )


def test_a_library_whose_own_dependency_lacks_is_not_called_missing():
    libraries = dict.fromkeys(LIBRARIES, object())
    libraries["libcublas.so.13"] = OSError("libcublasLt.so.13: cannot open shared object file: No such file")
    (text,) = missing_libraries(host(libraries))
    assert text.startswith("CUDA library libcublas.so.13 does not load: libcublasLt.so.13")


def test_a_cpu_build_is_told_without_the_libraries_that_a_gpu_build_would_bring():
    devices = CudaReport(missing=("no driver",))
    assert explain_gpu("no GPU build", devices, ("libcudnn",)) == ("no GPU build", "no driver")


def test_with_a_gpu_build_every_missing_piece_is_told():
    assert explain_gpu("", CudaReport(missing=("no driver",)), ("libcudnn",)) == ("no driver", "libcudnn")
