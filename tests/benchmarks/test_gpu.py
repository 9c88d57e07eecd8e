"""benchmarks/gpu.py itself: its smallest dry run, and what it makes of its arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import arguments, chosen, plan_of
from benchmarks.gpu_parts.correctness import worst_error
from benchmarks.gpu_parts.plan import split
from benchmarks.gpu_parts.results import DRY_RUN_LABEL, problems
from benchmarks.gpu_parts.samples import rows_apart
from benchmarks.gpu_parts.served import model_file
from benchmarks.gpu_parts.timing import WARM_UP_RUNS, rates
from benchmarks.load import pinned

ROOT = Path(__file__).parents[2]
SMALLEST = ("--only", "correctness", "scheduler", "--models", "tiny", "--requests", "5")


def run(*words, timeout_s=120, **environ):
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    environ = {**os.environ, **environ}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=timeout_s)


def test_the_smallest_dry_run_writes_a_sound_record_and_its_page(tmp_path):
    done = run("--device", "cpu", *SMALLEST, "--out-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "gpu_dry_run.json").read_text())
    assert list(problems(record)) == []
    assert record["label"] == DRY_RUN_LABEL
    assert record["sections"]["correctness"]["complete"]
    (fp32, *_) = record["sections"]["correctness"]["tables"]["errors"]
    assert fp32["within"]
    mixes = record["sections"]["scheduler"]["tables"]["mixes"]
    assert all(row["wrong"] == 0 and row["batches"] > 0 for row in mixes if "skipped" not in row)
    assert {goal["verdict"] for goal in record["goals"]} == {"not measured"}
    assert DRY_RUN_LABEL in (tmp_path / "gpu_dry_run.md").read_text()
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.full
def test_every_section_runs_on_a_cpu(tmp_path):
    words = ("--seconds", "0.4", "--requests", "5", "--models", "tiny", "fp16_io", "--out-dir", str(tmp_path))
    done = run("--device", "cpu", *words, timeout_s=900)
    assert done.returncode == 0, done.stderr
    sections = json.loads((tmp_path / "gpu_dry_run.json").read_text())["sections"]
    assert list(sections) == chosen([])
    assert all(section["complete"] and section["tables"] for section in sections.values())


def test_without_a_gpu_it_says_what_is_missing_and_writes_nothing(tmp_path):
    done = run(*SMALLEST, "--out-dir", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 6
    assert "needs gpu" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_family_of_sections_has_one_name():
    assert chosen(["limits"]) == ["limits-tf32", "limits-fp16"]
    assert chosen(["decode", "served-fp16"]) == ["decode", "served-fp16"]
    assert len(chosen([])) == 9


def test_an_unknown_section_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match="no section 'speed'; there are correctness"):
        chosen(["speed"])


def test_what_is_said_replaces_the_plans_own_sizes(tmp_path):
    plan = plan_of(arguments(["--device", "cpu", "--models", "tiny", "--requests", "5", "--rounds", "7"]), tmp_path)
    assert (plan.models, plan.mixed_requests, plan.rounds) == (("tiny",), 5, 7)
    assert plan_of(arguments(["--device", "gpu:1"]), tmp_path).mixed_requests == 3_000


def test_server_and_load_share_no_core_where_there_are_two():
    assert split((0, 1, 2, 3)) == ((0, 1), (2, 3))
    assert split((5,)) == ((5,), (5,))


def test_a_command_is_pinned_without_taskset_too(monkeypatch):
    core = min(os.sched_getaffinity(0))
    say = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    for tool in ("/usr/bin/taskset", None):
        monkeypatch.setattr("benchmarks.load.shutil.which", lambda name, tool=tool: tool)
        done = subprocess.run(pinned(core, say), capture_output=True, text=True, timeout=30)
        assert done.stdout.split() == [str(core)], done.stderr


def test_the_worst_row_counts_and_what_is_no_number_is_infinitely_wrong():
    wanted = {"y": np.array([[3.0, 4.0], [0.0, 2.0]])}
    assert worst_error({"y": np.array([[3.0, 4.0], [0.0, 1.0]])}, wanted) == 0.5
    assert worst_error(wanted, wanted) == 0
    assert worst_error({"y": np.array([[3.0, 4.0], [np.nan, 1.0]])}, wanted) == float("inf")
    assert worst_error({"y": np.zeros((1, 2))}, wanted) == float("inf")


def test_rows_that_are_alike_could_be_mixed_up():
    assert rows_apart({"y": np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])}) == pytest.approx(0.1, rel=0.01)


def test_rates_count_the_rows_of_all_threads():
    calls = []
    found = rates([lambda: lambda: calls.append(1)] * 2, rows=10, seconds=0.01, rounds=2)
    assert len(found["rounds"]) == 2
    assert found["images_s"] == max(one["images_s"] for one in found["rounds"])
    assert len(calls) > 2 * 2 * WARM_UP_RUNS
    assert found["p50_ms"] <= found["p99_ms"]


def test_an_error_in_one_thread_is_raised_and_hangs_no_other():
    def broken():
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        rates([lambda: int, lambda: broken], rows=1, seconds=0.01, rounds=1)


def test_the_servers_model_file_is_toml():
    text = model_file((1, 2), {"cuda_graphs": True, "precision": "fp16"})
    assert text == '[batching]\nallowed_batch_sizes = [1, 2]\n[backend]\ncuda_graphs = true\nprecision = "fp16"\n'
