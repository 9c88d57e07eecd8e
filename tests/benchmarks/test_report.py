"""Raw results to goals, tables and plots."""

import json
import subprocess

import pytest

from benchmarks import blocks, record, report
from benchmarks.figures import memory_beside, per_byte_ns, share_of_bare, spread
from benchmarks.goals import MET, MISSED, UNKNOWN, judge
from benchmarks.tables import OURS, read, refusal_cpu_us
from measured import HEAD, point, result


def verdicts(**results):
    return {(goal.case, goal.goal): goal.verdict for goal in judge(results)}


def test_without_results_nothing_is_met_and_nothing_is_missed():
    assert set(verdicts().values()) == {UNKNOWN}


def test_a_goal_is_judged_by_the_best_of_the_peers_that_it_names():
    tiny = result(point(OURS, cpu_us=12.0), point("mosec_tuned", cpu_us=26.0), point("mosec_tuned_malloc", cpu_us=23.0))
    found = verdicts(tiny=tiny)
    case = "tiny model, JSON, 32 clients"
    assert found[case, "CPU per request <= 14 µs"] == MET
    assert found[case, "CPU >= 2 x cheaper than mosec tuned with orjson"] == MISSED
    assert found[case, "CPU >= 3 x cheaper than mosec as shipped"] == UNKNOWN


def test_the_rate_and_the_wait_are_compared_with_the_best_peer():
    tiny = result(
        point(OURS, 8, 10.0), point("mosec", 8, 50.0), point("azureml", 8, 39.0),
        point(OURS, 1, p50_ms=0.1), point("mosec", 1, p50_ms=0.3), point("azureml", 1, p50_ms=0.16),
    )  # fmt: skip
    found = verdicts(tiny=tiny)
    assert found["tiny model, JSON, 8 clients", "rate >= 4 x the best peer's"] == MISSED
    assert found["tiny model, JSON, 1 client", "p50 <= 2/3 of the best peer's"] == MET


def test_the_served_rate_is_divided_by_the_best_batch_of_the_same_round():
    bare = [{"round": 0, "server": "bare session", "batch": batch, "rps": rps} for batch, rps in ((1, 20.0), (8, 25.0))]
    served = point(OURS, 4) | {"rps": 24.0}
    share = share_of_bare(result(*bare, served), OURS, 4)
    assert (share.times, share.ours, share.theirs) == (pytest.approx(0.96), 24.0, 25.0)


def test_the_tail_is_that_of_the_round_in_which_others_used_least_of_the_machine():
    quiet = point(OURS, number=1, foreign_cpus=0.01) | {"p99_ms": 4.0}
    found = verdicts(tiny=result(point(OURS, foreign_cpus=0.2), quiet))
    assert found["tiny model, 32 clients", "p99 <= 3 x p50 in the quietest of five rounds"] == MISSED


def test_every_line_of_the_goals_table_has_figures_behind_its_verdict():
    goals = judge({"tiny": result(point(OURS, cpu_us=12.0), point("mosec_tuned", cpu_us=26.4))})
    ratio = next(goal for goal in goals if goal.goal == "CPU >= 2 x cheaper than mosec tuned with orjson")
    assert ratio.text == "2.20 x (mosec_tuned 26.4 µs, ours 12.0 µs)"
    assert (ratio.verdict, blocks.over_goal(ratio)) == (MET, "1.10")


def test_a_refusal_is_costed_where_the_server_did_nothing_else():
    flood = {"server": OURS, "hopeless": True, "refusal_cpu_us": 40.0, "refused": 95, "arrived": 100}
    assert refusal_cpu_us(result(flood, flood | {"refusal_cpu_us": 50.0}), OURS) == 40.0
    assert refusal_cpu_us(result(flood | {"refused": 80}), OURS) is None


def test_the_cost_per_byte_is_what_a_body_costs_beyond_the_smallest():
    costs = {1_000: 10.0, 1_001_000: 110.0, 10_001_000: 1_510.0}
    points = [point(f"{OURS}, {size} bytes", 8, cost) for size, cost in costs.items()]
    assert spread(per_byte_ns(result(*points)).values()) == pytest.approx(1.5)


def test_memory_is_counted_beside_the_bare_session():
    ours = {"round": 0, "server": OURS, "first_answer_s": 1.0, "first_pss_mib": 90.0, "loaded_pss_mib": 130.0}
    bare = {"round": 0, "server": "bare session", "first_answer_s": 0.5, "first_pss_mib": 50.0}
    assert memory_beside(result(ours, bare)) == (130.0, 50.0)


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
        "profile": [
            point(f"{OURS}, tiny"),
            {"server": f"{OURS}, tiny", "stage": "model", "part": "onnxruntime", "share": 1.0, "us": 10.0},
            {"server": f"{OURS}, tiny", "no_tool": "perf is missing"},
        ],
    }  # fmt: skip
    for name, lines in results.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (HEAD, *lines)))
    (tmp_path / "profile_tiny.folded").write_text("main (accelserve/cli.py);onnxruntime 9000\nkernel: read 1000\n")
    text = report.write(tmp_path, tmp_path).read_text()
    assert "goodput >= 90 % of capacity | met | 95.0 % (95 of 100 answers/s)" in text
    assert "| model | 10.0 | 100 | onnxruntime 10.0 |" in text
    assert "perf is missing." in text
    assert "Left out: pytriton: wants Python 3.11 up to 3.11.2" in text
    assert "Failed: azureml: no answer" in text
    for picture in ("tiny", "connections", "overload", "body_size", "profile", "flames_tiny"):
        assert f"plots/{picture}.png" in text
        assert (tmp_path / "plots" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_of_which_nothing_was_measured_has_no_picture_and_does_not_end_the_report(tmp_path):
    for name, lines in {"tiny": [point(OURS)], "mlp": [{"failed": OURS, "why": "no answer"}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (HEAD, *lines)))
    text = report.write(tmp_path, tmp_path).read_text()
    assert "Failed: accelserve: no answer" in text
    assert "plots/mlp.png" not in text


def test_committed_results_can_be_read_and_say_where_they_come_from():
    for path in sorted((report.FOLDER / "results").glob("*.jsonl")):
        found = read(path)
        assert {"claim", "command", "commit", "date", "machine", "versions", "left_out"} <= found.head.keys(), path


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


def test_a_command_is_recorded_without_the_places_of_files(monkeypatch):
    words = ["suite.py", "tiny", "--rounds", "2", "--work", "/some/where", "--out-dir=/else", "--also", "old=/a/b/old"]
    monkeypatch.setattr("sys.argv", words)
    assert record.command_line() == "python -m benchmarks.suite tiny --rounds 2 --also old=old"


def test_what_a_server_wrote_is_recorded_without_this_machine_s_folders():
    text = 'File "/srv/someone/kit/server.py", line 3: ~/a/b.onnx is missing; http://127.0.0.1:80/v1/models/a: 3 of 1/2'
    assert record.without_places(text) == (
        'File "server.py", line 3: b.onnx is missing; http://127.0.0.1:80/v1/models/a: 3 of 1/2'
    )
