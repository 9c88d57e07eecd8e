"""What the READMEs say of speed is what the committed results give, and nothing of this workplace is in them."""

import re
from pathlib import Path

import pytest

from benchmarks import blocks, report, suite
from benchmarks.goals import MISSED, judge
from benchmarks.tables import OURS, Result
from measured import HEAD, point, result

PLACES = re.compile(r"(?<![\w.:])(?:/work/|/tmp/|/home/|/root/|/Users/|/var/|/mnt/)[\w.-]")


@pytest.mark.parametrize("name", report.BLOCKS)
def test_the_figures_in_a_readme_are_those_of_the_committed_results(name):
    path, lines = report.BLOCKS[name]
    text = path.read_text()
    assert blocks.with_block(text, name, lines(report.read_results())) == text, "scripts/bench report"


def test_a_committed_report_is_of_the_committed_results():
    committed = report.FOLDER / "REPORT.md"
    results = report.read_results()
    assert committed.exists() == bool(results)
    if results:
        assert "\n".join(report.goals_table(judge(results))) in committed.read_text(), "scripts/bench report"


def test_every_goal_that_is_not_met_has_its_reason():
    text = (report.FOLDER / "README.md").read_text()
    for goal in judge(report.read_results()):
        assert f"\n### {goal.topic}\n" in text or goal.verdict != MISSED, goal


def test_nothing_committed_names_a_place_of_the_machine_that_measured():
    files = [
        path for path in (report.FOLDER / "results").rglob("*") if path.suffix in (".json", ".jsonl", ".folded", ".md")
    ]
    files += [path for path in (report.FOLDER / "REPORT.md", report.FOLDER / "README.md") if path.exists()]
    for path in files:
        found = PLACES.search(path.read_text())
        assert found is None, f"{path.name}: {found and found.string[found.start() - 60 : found.end() + 60]}"


def test_without_results_a_readme_says_so_in_one_line():
    assert list(blocks.speed({})) == list(blocks.unmet({})) == [blocks.NOT_YET]


def test_every_claim_of_the_speed_table_names_its_command_and_its_raw_result():
    results = {
        "tiny": result(point(OURS, cpu_us=20.0), point("mosec_tuned", cpu_us=21.0), point("azureml", cpu_us=400.0)),
        "connections": result(point(OURS, 32, 20.0), point(OURS, 1000, 24.0)),
    }
    rows = [line for line in blocks.speed(results) if line.startswith("|") and "---" not in line]
    claims = [row for row in rows if not row.startswith(("| request", "|  | measured"))]
    assert len(claims) == 2
    for row in claims:
        name = re.search(r"`scripts/bench (\w+)` \(\[raw\]\(benchmarks/results/\1\.jsonl\)\)", row)[1]
        assert name in suite.PARTS
    assert "| 20.0 µs | 1.05 x | – | 20.00 x (azureml) |" in claims[0]


def test_a_noisy_figure_is_marked_in_the_speed_table():
    noisy = {"tiny": result(point(OURS, foreign_cpus=0.4))}
    assert any("10.0 µs (noisy)" in line for line in blocks.speed(noisy))


def test_a_goal_that_is_not_met_leads_to_its_reason():
    lines = list(blocks.unmet({"tiny": Result(HEAD, [point(OURS, cpu_us=20.0)], [])}))
    assert any("CPU per request <= 14 µs | 20.0 µs | 1.43 | [tiny](#tiny)" in line for line in lines)


def test_a_block_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="marks of the block speed"):
        blocks.with_block("# accelserve", "speed", iter([]))


def test_only_what_stands_between_the_marks_changes():
    text = "a\n<!-- speed: made by scripts/bench report -->\nold\n<!-- end of speed -->\nb"
    assert blocks.with_block(text, "speed", iter(["new"])) == text.replace("old", "new")


def test_every_command_of_the_first_table_is_one():
    text = Path(report.FOLDER / "README.md").read_text().partition("| other claim")[0]
    named = [name for words in re.findall(r"`scripts/bench ((?:\w+ ?)+)`", text) for name in words.split()]
    assert set(named) - {"NAME", "report"} == set(suite.PARTS)
