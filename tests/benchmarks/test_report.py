"""Raw results to goals, tables and plots."""

import json
import subprocess

import pytest

from benchmarks import record, report
from benchmarks.goals import MET, MISSED, UNKNOWN, judge, memory_beside, per_byte_spread, share_of_bare
from benchmarks.hot_path import divided, part_of, read_calls, read_stacks
from benchmarks.tables import OURS, Result, read, refusal_cpu_us

HEAD = {
    "claim": "a claim", "command": "python -m benchmarks.suite", "commit": "abc", "date": "2026-01-02",
    "machine": {"cpus": 2, "cpu": "some CPU", "memory_gib": 8.0, "kernel": "6"}, "versions": {"accelserve": "0"},
    "left_out": {"pytriton": "wants Python 3.11 up to 3.11.2"}, "peers": {"mosec": "mosec==1"}, "deadline_ms": 100,
}  # fmt: skip


def point(server, clients=32, cpu_us=10.0, number=0, **more):
    return {
        "round": number, "server": server, "clients": clients, "cpu_us": cpu_us, "rps": 1e6 / cpu_us, "p50_ms": 1.0,
        "p99_ms": 2.0, "errors": 0, "foreign_cpus": 0.0, **more,
    }  # fmt: skip


def result(*points, failed=()):
    return Result(HEAD, list(points), list(failed))


def verdicts(**results):
    return {(goal.case, goal.goal): goal.verdict for goal in judge(results)}


def test_without_results_nothing_is_met_and_nothing_is_missed():
    assert set(verdicts().values()) == {UNKNOWN}


def test_a_goal_is_judged_by_the_best_of_the_peers_that_it_names():
    tiny = result(point(OURS, cpu_us=12.0), point("mosec_tuned", cpu_us=26.0), point("mosec_tuned_malloc", cpu_us=23.0))
    found = verdicts(tiny=tiny)
    case = "tiny, JSON, 32 clients"
    assert found[case, "CPU per request <= 14 µs"] == MET
    assert found[case, "CPU: >= 2 x cheaper than mosec tuned with orjson"] == MISSED
    assert found[case, "CPU: >= 3 x cheaper than mosec as shipped"] == UNKNOWN


def test_the_rate_and_the_wait_are_compared_with_the_best_peer():
    tiny = result(
        point(OURS, 8, 10.0), point("mosec", 8, 50.0), point("azureml", 8, 39.0),
        point(OURS, 1, p50_ms=0.1), point("mosec", 1, p50_ms=0.3), point("azureml", 1, p50_ms=0.16),
    )  # fmt: skip
    found = verdicts(tiny=tiny)
    assert found["tiny, 8 clients", "rate >= 4 x the best peer's"] == MISSED
    assert found["tiny, 1 client", "p50 <= 2/3 of the best peer's"] == MET


def test_the_served_rate_is_divided_by_the_best_batch_of_the_same_round():
    bare = [{"round": 0, "server": "bare session", "batch": batch, "rps": rps} for batch, rps in ((1, 20.0), (8, 25.0))]
    served = point(OURS, 4) | {"rps": 24.0}
    assert share_of_bare(result(*bare, served), OURS, 4) == pytest.approx(0.96)


def test_a_refusal_is_costed_where_the_server_did_nothing_else():
    flood = {"server": OURS, "hopeless": True, "refusal_cpu_us": 40.0, "refused": 95, "arrived": 100}
    assert refusal_cpu_us(result(flood, flood | {"refusal_cpu_us": 50.0}), OURS) == 40.0
    assert refusal_cpu_us(result(flood | {"refused": 80}), OURS) is None


def test_the_cost_per_byte_is_what_a_body_costs_beyond_the_smallest():
    costs = {1_000: 10.0, 1_001_000: 110.0, 10_001_000: 1_510.0}
    points = [point(f"{OURS}, {size} bytes", 8, cost) for size, cost in costs.items()]
    assert per_byte_spread(result(*points)) == pytest.approx(1.5)


def test_memory_is_counted_beside_the_bare_session():
    ours = {"round": 0, "server": OURS, "first_answer_s": 1.0, "first_pss_mib": 90.0, "loaded_pss_mib": 130.0}
    bare = {"round": 0, "server": "bare session", "first_answer_s": 0.5, "first_pss_mib": 50.0}
    assert memory_beside(result(ours, bare)) == 80.0


def test_the_report_names_goals_servers_plots_and_who_was_left_out(tmp_path):
    results = {
        "tiny": [point(OURS), point("mosec_tuned", cpu_us=30.0), {"failed": "azureml", "why": "no answer"}],
        "connections": [point(OURS, clients) for clients in (32, 1000)],
        "overload": [
            point(OURS, load=0),
            {
                "round": 0, "server": OURS, "load": 3.0, "capacity_rps": 100.0, "goodput_rps": 95.0, "in_time": 9,
                "late": 0, "unanswered": 0, "refused": 20, "lost": 0, "server_cpu_s": 0.1, "in_time_p50_ms": 5.0,
                "in_time_p99_ms": 9.0, "refused_p50_ms": 0.2, "refused_p99_ms": 1.0, "foreign_cpus": 0.5,
            },
        ],
        "body_size": [point(f"{OURS}, {size} bytes", 8, size / 100) for size in (1000, 2000, 3000)],
        "profile": [point(f"{OURS}, tiny"), {"server": f"{OURS}, tiny", "part": "kernel", "share": 1.0, "us": 10.0}],
    }  # fmt: skip
    for name, lines in results.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (HEAD, *lines)))
    text = report.write(tmp_path, tmp_path).read_text()
    assert "goodput >= 90 % of capacity | 0.95 | met" in text
    assert "Left out: pytriton: wants Python 3.11 up to 3.11.2" in text
    assert "Failed: azureml: no answer" in text
    for picture in ("tiny", "clients", "overload", "body_size", "profile"):
        assert f"plots/{picture}.png" in text
        assert (tmp_path / "plots" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_committed_results_can_be_read_and_say_where_they_come_from():
    for path in sorted((report.FOLDER / "results").glob("*.jsonl")):
        found = read(path)
        assert {"claim", "command", "commit", "date", "machine", "versions", "left_out"} <= found.head.keys(), path


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


def test_shares_are_of_all_cpu_time_and_waiting_is_no_part_of_it():
    stacks = read_stacks(
        "run (a.c);f (accelserve/scoring.py) 3\nepoll_wait (libc.so.6) 90\nx (orjson/orjson.so) 1\n"
        "write (libc.so.6) 5\n"
    )
    calls = read_calls("\n  ffff ksys_write\n  ffff do_syscall_64\n\n  ffff asm_exc_page_fault\n\n")
    shares = dict(divided(stacks, calls, in_kernel=0.2))
    assert shares == pytest.approx(
        {"kernel: write": 0.1, "kernel: page faults": 0.1, "ours: scoring": 0.6, "orjson": 0.2}
    )


def test_a_checkout_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit() == "unknown"


def test_results_that_a_run_writes_do_not_make_its_commit_look_changed(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, check=True)

    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    code = tmp_path / "code.py"
    for file in (results / "tiny.jsonl", code):
        file.write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "m")
    monkeypatch.setattr(record, "ROOT", tmp_path)
    (results / "tiny.jsonl").write_text("after")
    assert not record.commit().endswith("+")
    code.write_text("after")
    assert record.commit().endswith("+")
