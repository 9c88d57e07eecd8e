"""The record of benchmarks/gpu.py, its merging and its Markdown."""

import json

from benchmarks.gpu_parts.markdown import render, table
from benchmarks.gpu_parts.results import (
    DRY_RUN_LABEL,
    GPU_LABEL,
    Row,
    add_row,
    finished,
    merged,
    new_section,
    problems,
    rows_of,
    skipped,
)


def section(*rows, complete=True):
    made = new_section("python -m benchmarks.gpu", "abc", "2026-01-01", "a GPU")
    for row in rows:
        add_row(made, row)
    if complete:
        finished(made, 1.25)
    return made


def record(sections, label=GPU_LABEL):
    return {
        "claim": "It is fast",
        "command": "python -m benchmarks.gpu",
        "date": "2026-01-01",
        "commit": "abc",
        "label": label,
        "device": {"name": "a GPU"},
        "machine": {"cpus": 16},
        "versions": {"python": "3.12"},
        "goals": [{"what": "a goal", "verdict": "pass"}],
        "ratios": [],
        "sections": sections,
    }


def test_a_skipped_row_is_kept_with_its_reason_and_counts_as_nothing():
    sections = {"decode": section(Row("GPU", {"images_s": 5.0}), skipped("GPU", "not installed"))}
    assert rows_of(sections, "decode", "GPU") == [{"images_s": 5.0}]
    assert "skipped: not installed" in render(record(sections))


def test_a_section_that_was_not_run_has_no_rows():
    assert rows_of({}, "decode", "GPU") == []


def test_sections_run_apart_are_merged_and_the_newer_wins():
    old = record({"limits": section(Row("rates", {"a": 1})), "served": section(Row("rates", {"a": 1}))})
    new = record({"served": section(Row("rates", {"a": 2}))})
    found = merged(old, new)["sections"]
    assert rows_of(found, "limits", "rates") == [{"a": 1}]
    assert rows_of(found, "served", "rates") == [{"a": 2}]


def test_a_dry_run_is_never_merged_into_figures_of_a_gpu():
    dry = record({"limits": section(Row("rates", {"a": 1}))}, DRY_RUN_LABEL)
    assert merged(dry, record({}))["sections"] == {}


def test_a_record_says_what_is_wrong_with_its_form():
    good = record({"limits": section(Row("rates", {"a": 1}))})
    assert list(problems(good)) == []
    assert list(problems({**good, "sections": {"limits": {"tables": {"rates": [{}]}}}}))[-1].endswith("an empty row")
    assert "the record has no 'device'" in list(problems({k: v for k, v in good.items() if k != "device"}))


def test_what_is_no_number_is_stored_as_a_word_that_json_has():
    made = section(Row("errors", {"error": float("inf")}))
    assert json.loads(json.dumps(made, allow_nan=False))["tables"]["errors"] == [{"error": "inf"}]


def test_a_table_has_the_columns_of_all_rows_and_hides_the_rounds():
    lines = table(
        [{"batch_size": 1, "rounds": [1, 2]}, {"batch_size": 2, "images_s": 1234.5678}, {"skipped": "why|so"}]
    )
    assert lines[0] == "| batch size | images s | skipped |"
    assert lines[2] == "| 1 |  |  |"
    assert lines[3] == "| 2 | 1235 |  |"
    assert lines[4] == "|  |  | skipped: why\\|so |"


def test_the_page_says_what_it_is_and_what_was_cut_short():
    page = render(record({"limits": section(Row("rates", {"a": True}), complete=False)}, DRY_RUN_LABEL))
    assert f"**{DRY_RUN_LABEL}**" in page
    assert "Not complete" in page
    assert "| a goal | pass |" in page
    assert "Not complete" not in render(record({"limits": section(Row("rates", {"a": 1}))}))
