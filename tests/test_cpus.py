"""How many cores a process may keep busy."""

import os

import pytest

from accelserve.cpus import usable_cpus


@pytest.mark.parametrize(
    ("limit", "cores"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None), ("nonsense", None)]
)
def test_a_containers_limit_bounds_the_cores(tmp_path, limit, cores):
    (tmp_path / "cpu.max").write_text(limit)
    assert usable_cpus(tmp_path / "cpu.max") == (cores or len(os.sched_getaffinity(0)))


def test_without_a_limit_the_affinity_counts(tmp_path):
    assert usable_cpus(tmp_path / "absent") == len(os.sched_getaffinity(0))


def test_a_core_that_this_process_may_not_use_does_not_count(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    assert usable_cpus(tmp_path / "absent") == 3
