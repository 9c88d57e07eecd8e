"""How many cores a process may keep busy."""

import os
import subprocess
import sys

import pytest

from accelserve.cpus import give_way, take_short_turns, usable_cpus


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


def test_a_worker_that_gives_way_is_a_batch_process_of_the_same_priority():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        give_way(worker.pid)
        assert os.sched_getscheduler(worker.pid) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_short_turns_are_a_hint_that_changes_nothing_else():
    policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    take_short_turns(100_000)
    try:
        assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == (policy, nice)
    finally:
        take_short_turns(0)
