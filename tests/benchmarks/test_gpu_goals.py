"""The goals of a GPU session, judged from rows."""

import pytest
from test_gpu_results import section

from benchmarks.gpu_parts.goals import FAIL, NOT_MEASURED, PASS, judge, ratios
from benchmarks.gpu_parts.results import Row, skipped


def limit(batch, images_s, p50_ms, way="bare library: run", in_flight=1, without_copies=False):
    return Row(
        "rates",
        {
            "model": "resnet50_u8", "way": way, "batch": batch, "in_flight": in_flight,
            "without_copies": without_copies, "images_s": images_s, "p50_ms": p50_ms,
        },
    )  # fmt: skip


def served(protocol, clients, images_s, p50_ms, errors=0):
    return Row(
        "rates",
        {
            "arithmetic": "fp16", "model": "resnet50_u8", "protocol": protocol, "clients": clients,
            "images_s": images_s, "p50_ms": p50_ms, "errors": errors,
        },
    )  # fmt: skip


def sections(**changes):
    made = {
        "limits-fp16": section(
            limit(1, 700.0, 1.4), limit(64, 1000.0, 64.0), limit(64, 9000.0, 7.0, without_copies=True)
        ),
        "served-fp16": section(
            served("gRPC tensor", 1, 500.0, 1.8), served("gRPC tensor", 32, 930.0, 34.0),
            served("HTTP tensor", 32, 880.0, 36.0), served("HTTP JPEG", 128, 600.0, 90.0),
        ),
        "decode": section(Row("CPU", {"images_s": 650.0, "as_served": True}), Row("CPU", {"images_s": 1300.0})),
        "memory": section(Row("growth", {"of": "GPU memory", "requests": 2000, "grown_mib": 0.0})),
        "scheduler": section(Row("mixes", {"requests": 10_000, "wrong": 0})),
        "correctness": section(Row("errors", {"model": "tiny", "arithmetic": "tf32", "within": True})),
        "refusals": section(Row("refusals", {"case": "gpu:7", "as_wanted": True})),
    }  # fmt: skip
    return {name: rows for name, rows in {**made, **changes}.items() if rows is not None}


def verdict(goals, words):
    return next(goal for goal in goals if words in goal["what"])


def test_what_reaches_its_goal_passes_and_says_by_what():
    goals = judge(sections(), dry_run=False)
    tensors, jpeg = verdict(goals, "fp16 by tensors"), verdict(goals, "fp16 by JPEG")
    assert (tensors["verdict"], tensors["got"]) == (PASS, "93.0%")
    assert "gRPC tensor, 32 clients" in tensors["why"]
    assert (jpeg["verdict"], jpeg["got"]) == (PASS, "92.3%")
    assert "decode limit" in jpeg["why"]
    assert verdict(goals, "latency, fp16")["got"] == "0.40 ms"
    assert {goal["verdict"] for goal in goals if "tf32" not in goal["what"]} == {PASS}


def test_what_was_not_run_is_not_measured():
    assert {goal["verdict"] for goal in judge({}, dry_run=False)} == {NOT_MEASURED}
    assert verdict(judge(sections(), dry_run=False), "tf32 by tensors")["verdict"] == NOT_MEASURED


def test_a_skipped_row_measures_nothing():
    goals = judge(sections(**{"served-fp16": section(skipped("rates", "no"))}), dry_run=False)
    assert verdict(goals, "fp16 by tensors")["verdict"] == NOT_MEASURED


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("served-fp16", [served("gRPC tensor", 1, 500.0, 2.0)], "latency, fp16"),
        ("served-fp16", [served("gRPC tensor", 32, 890.0, 30.0)], "fp16 by tensors"),
        ("served-fp16", [served("gRPC tensor", 32, 990.0, 30.0, errors=1)], "fp16 by tensors"),
        ("served-fp16", [served("HTTP JPEG", 32, 500.0, 30.0)], "fp16 by JPEG"),
        ("memory", [Row("growth", {"of": "GPU memory", "requests": 2000, "grown_mib": 2.0})], "device allocation"),
        ("scheduler", [Row("mixes", {"requests": 10_000, "wrong": 1})], "batch mixes"),
        ("correctness", [Row("errors", {"model": "m", "arithmetic": "tf32", "within": False})], "every model"),
        ("refusals", [Row("refusals", {"case": "gpu:7", "as_wanted": False})], "refusals"),
    ],
)
def test_what_misses_its_goal_fails(name, rows, words):
    assert verdict(judge(sections(**{name: section(*rows)}), dry_run=False), words)["verdict"] == FAIL


def test_too_few_requests_prove_nothing():
    few = sections(scheduler=section(Row("mixes", {"requests": 60, "wrong": 0})))
    assert verdict(judge(few, dry_run=False), "batch mixes")["verdict"] == NOT_MEASURED


def test_the_process_memory_of_a_dry_run_says_nothing_of_a_gpu():
    rss = sections(memory=section(Row("growth", {"of": "process memory", "requests": 2000, "grown_mib": 0.0})))
    assert verdict(judge(rss, dry_run=False), "device allocation")["verdict"] == NOT_MEASURED


def test_figures_of_two_devices_are_not_compared():
    mixed = sections()
    mixed["served-fp16"]["device"] = "another GPU"
    goal = verdict(judge(mixed, dry_run=False), "fp16 by tensors")
    assert goal["verdict"] == NOT_MEASURED
    assert "different devices" in goal["why"]


def test_a_dry_run_passes_no_goal():
    assert {goal["verdict"] for goal in judge(sections(), dry_run=True)} == {NOT_MEASURED}


def test_each_served_point_stands_beside_its_limit():
    found = {(row["protocol"], row["clients"]): row for row in ratios(sections())}
    assert found["gRPC tensor", 32]["of_the_limit"] == 0.93
    assert found["HTTP JPEG", 128]["limit_images_s"] == 650.0
    assert found["gRPC tensor", 1]["above_in_process_batch_1_ms"] == pytest.approx(0.4)
    assert found["gRPC tensor", 32]["above_in_process_batch_1_ms"] is None
