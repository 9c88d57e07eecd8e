import os

import pytest

from accelserve.backends.host import cpu_device, usable_cpus


@pytest.mark.parametrize(
    ("limit", "cores"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None), ("nonsense", None)]
)
def test_a_containers_limit_bounds_the_cores(tmp_path, limit, cores):
    (tmp_path / "cpu.max").write_text(limit)
    assert usable_cpus(tmp_path / "cpu.max") == (cores or len(os.sched_getaffinity(0)))


def test_without_a_limit_the_affinity_counts(tmp_path):
    assert usable_cpus(tmp_path / "absent") == len(os.sched_getaffinity(0))


def test_the_cpu_has_the_name_that_the_kernel_gives_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU: fast\n")
    assert cpu_device(tmp_path / "cpuinfo").name == "A CPU: fast"
    assert cpu_device(tmp_path / "absent").name == "CPU"
    assert cpu_device(tmp_path / "absent").memory_bytes > 0
