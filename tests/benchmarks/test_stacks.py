"""Samples of a server under load to parts, stages and flames."""

import os
from collections import Counter

import pytest

from benchmarks.flames import Frame, frames
from benchmarks.processes import Code
from benchmarks.stacks import REST, by_stage, divided, folded, part_of, read_perf, read_stacks, without_waiting

PERF = """
  7f01 run (/venv/onnxruntime/capi/onnxruntime_pybind11_state.so)

  7f02 _PyEval_EvalFrameDefault (/lib/libpython3.11.so.1.0)

  7f03 __memmove_avx (/lib/x86_64-linux-gnu/libc.so.6)

  ffff copy_to_user ([kernel.kallsyms])
  ffff ksys_read ([kernel.kallsyms])

"""


def test_a_sample_belongs_to_the_innermost_frame_that_says_so():
    ours = "Scorer.score (accelserve/scoring.py)"
    assert part_of([ours, "PyDict_GetItem (dictobject.c)"]) == "ours: scoring"
    assert part_of([ours, "array_empty (numpy/_core/_multiarray_umath.so)", "malloc (libc.so.6)"]) == "numpy"
    assert part_of([ours, "gc_collect_main (libpython3.11.so.1.0)", "dict_traverse (dictobject.c)"]) == (
        "garbage collector"
    )
    assert part_of([ours, "_send (accelserve/frontends/http_lane.py)"]) == "ours: frontends/http_lane"
    assert part_of(["uv__try_write (stream.c)", "write (libc.so.6)"]) == "kernel"
    assert part_of(["get_impl (_queuemodule.c)", "PyThread_acquire_lock_timed (lib)", "0x7f (libc.so.6)"]) == "waiting"


def test_a_thread_behind_a_system_call_waits_whoever_called():
    stacks = read_stacks("uv_run (core.c);0x7f10 (libc.so.6) 5\nuv_run (core.c);0x7f20 (libc.so.6) 3\n")
    assert without_waiting(stacks, lambda address: address == 0x7F10) == {"uv_run (core.c);0x7f20 (libc.so.6)": 3}


def test_instructions_of_this_process_are_told_from_what_is_none():
    assert not Code(os.getpid()).behind_system_call(8)


def test_perf_tells_who_is_on_the_cpu_by_library_and_system_call():
    assert read_perf(PERF) == {"onnxruntime": 1, "interpreter": 1, "libc": 1, "kernel: read": 1}


def test_perf_divides_the_time_and_stacks_only_divide_what_is_the_interpreter_s():
    stacks = read_stacks("f (accelserve/scoring.py) 3\ng (accelserve/binding.py) 1\nx (onnxruntime/a.so) 96\n")
    assert divided(stacks, read_perf(PERF), in_kernel=0.9) == pytest.approx(
        {"onnxruntime": 0.25, "libc": 0.25, "kernel: read": 0.25, "ours: scoring": 0.1875, "ours: binding": 0.0625}
    )


def test_perf_that_may_not_look_into_the_kernel_leaves_it_what_proc_says():
    sampled = Counter({"onnxruntime": 3, "interpreter": 1})
    assert divided(Counter(), sampled, in_kernel=0.2) == pytest.approx(
        {"onnxruntime": 0.6, "interpreter": 0.2, "kernel": 0.2}
    )


def test_without_perf_stacks_divide_all_that_is_not_the_kernel_s_and_waiting_is_no_part_of_it():
    stacks = read_stacks(
        "run (a.c);f (accelserve/scoring.py) 3\nepoll_wait (libc.so.6) 90\nx (orjson/orjson.so) 1\n"
        "write (libc.so.6) 5\n"
    )
    assert divided(stacks, Counter(), in_kernel=0.2) == pytest.approx(
        {"kernel": 0.2, "ours: scoring": 0.6, "orjson": 0.2}
    )


def test_without_any_tool_only_the_kernel_s_share_is_known():
    assert divided(Counter(), Counter(), in_kernel=0.25) == {"kernel": 0.25}


def test_stages_are_largest_first_and_small_ones_are_in_the_rest():
    shares = {"onnxruntime": 0.5, "kernel: read": 0.296, "ours: batching/scheduler": 0.2, "grpcio": 0.004}
    stages = by_stage(shares)
    assert list(stages) == ["model", "receive and send (kernel)", "queue, batch, split", REST]
    assert stages[REST] == {"grpcio": 0.004}


def test_folded_stacks_hold_python_s_functions_and_each_part_s_own_time():
    stacks = read_stacks(
        "0x7f (libc.so.6);main (accelserve/cli.py);uv_run (core.c);f (accelserve/scoring.py) 1\n"
        "main (accelserve/cli.py);f (accelserve/scoring.py);run (onnxruntime/a.so) 9\n"
    )
    shares = {"ours: scoring": 0.5, "onnxruntime": 0.25, "kernel: read": 0.25}
    assert folded(stacks, shares, 100.0) == {
        "main (accelserve/cli.py);f (accelserve/scoring.py)": 50_000,
        "main (accelserve/cli.py);f (accelserve/scoring.py);onnxruntime": 25_000,
        "kernel: read": 25_000,
    }


def test_neighbours_with_the_same_callers_are_one_frame_of_the_flames():
    found = set(frames(Counter({"a;b": 2, "a;c": 3, "d": 1})))
    assert found == {Frame("a", 0, 0, 5), Frame("b", 1, 0, 2), Frame("c", 1, 2, 3), Frame("d", 0, 5, 1)}
