"""How many cores a process may keep busy."""

import os
import subprocess
import sys

import pytest

from accelserve.cpus import give_way, usable_cpus


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


TURNS = """
import os, re, threading
from accelserve.cpus import take_short_turns

def told():
    turn = re.search(r"se.slice *: *([0-9]+)", open(f"/proc/self/task/{threading.get_native_id()}/sched").read())
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    print(policy, os.getpriority(os.PRIO_PROCESS, 0), turn[1] if turn else "unknown")

told()
take_short_turns(100_000)
told()
thread = threading.Thread(target=told)
thread.start()
thread.join()
"""


def test_short_turns_are_this_threads_alone_and_change_nothing_else():
    done = subprocess.run([sys.executable, "-c", TURNS], capture_output=True, text=True, check=True, timeout=30)
    before, after, other = [line.split() for line in done.stdout.splitlines()]
    assert before[:2] == after[:2] == other[:2]
    assert after[2] in ("100000", before[2])  # an older kernel takes no notice
    assert other[2] == before[2]
