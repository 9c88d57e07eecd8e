"""benchmarks/REPORT.md and its plots from the raw results: goals, a table for each part, how noisy the machine was.

usage: python -m benchmarks.report [RESULTS_DIR [OUT_DIR]]
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import plots
from benchmarks.goals import MET, MISSED, UNKNOWN, Goal, judge
from benchmarks.harness import ROOT
from benchmarks.tables import NOISY_CPUS, Result, head, line, part_table, read

FOLDER = ROOT / "benchmarks"
ORDER = (
    "tiny", "tiny_ray", "connections", "mlp", "jpeg220_u8", "jpeg220", "jpeg1000_u8", "resnet50_u8", "resnet50",
    "raw_600k", "grpc_600k", "grpc_1k", "grpc_mlp", "overload", "overload_resnet50", "idle_connections", "models",
    "body_size", "memory_and_start", "profile",
)  # fmt: skip
INTRODUCTION = """# What was measured

Made by `scripts/bench report` from the raw results in [results/](results/); how it is measured, and how to read it, is
in [README.md](README.md). CPU per request is the total of a server's processes, its model's work included. Ratios are
taken within a round, and the median over the rounds is given; of single values the best.
"""


def write(results_folder: Path, out: Path) -> Path:
    """Returns the report's path. Raises FileNotFoundError if there are no results."""
    results = {name: read(path) for name in ORDER if (path := results_folder / f"{name}.jsonl").exists()}
    if not results:
        raise FileNotFoundError(f"{results_folder} holds no results")
    drawn = plots.draw_all(results, out / "plots")
    path = out / "REPORT.md"
    path.write_text("\n".join(page(results, drawn)) + "\n")
    return path


def page(results: dict[str, Result], drawn: dict[str, Path]) -> Iterator[str]:
    yield INTRODUCTION
    yield from where(results)
    yield from ("", "## Goals", "")
    yield from goals_table(judge(results))
    for name, result in results.items():
        yield from ("", f"## {name}", "", f"{result.head['claim']}. `{result.head['command']}`", "")
        yield from part_table(result)
        if name in drawn:
            yield from ("", f"![{name}](plots/{drawn[name].name})")
    yield from ("", "## How quiet the machine was", "")
    yield from noise_table(results)


def where(results: dict[str, Result]) -> Iterator[str]:
    """Machine, versions and commits; each only once."""
    heads = [result.head for result in results.values()]
    machine, versions = heads[0]["machine"], heads[0]["versions"]
    memory = f"{machine['memory_gib']:.0f} GiB"
    yield f"- Machine: {machine['cpus']} CPUs, {machine['cpu']}, {memory}, Linux {machine['kernel']}"
    yield f"- Commits: {_once(head['commit'] for head in heads)}; {_once(head['date'] for head in heads)}"
    yield f"- Ours: {', '.join(f'{name} {version}' for name, version in versions.items())}"
    peers = sorted({version for head in heads for version in head.get("peers", {}).values()})
    yield f"- Peers: {', '.join(peers)}"
    left_out = {name: why for head in heads for name, why in head["left_out"].items()}
    yield from (f"- Left out: {name}: {why}" for name, why in left_out.items())


def goals_table(goals: Iterable[Goal]) -> Iterator[str]:
    goals = list(goals)
    counts = {verdict: sum(goal.verdict == verdict for goal in goals) for verdict in (MET, MISSED, UNKNOWN)}
    yield f"{counts[MET]} met, {counts[MISSED]} missed, {counts[UNKNOWN]} not measured."
    yield ""
    yield from head(("case", "goal", "measured", ""))
    yield from (line((goal.case, goal.goal, goal.text, goal.verdict)) for goal in goals)


def noise_table(results: dict[str, Result]) -> Iterator[str]:
    """Per part: CPUs that neither the server nor the load generator used, over all points."""
    yield f"CPUs used by others while a point was measured; more than {NOISY_CPUS} is marked in the tables above."
    yield ""
    yield from head(("part", "points", "least", "median", "most"))
    for name, result in results.items():
        foreign = sorted(point["foreign_cpus"] for point in result.points if "foreign_cpus" in point)
        if foreign:
            middle = foreign[len(foreign) // 2]
            yield line((name, str(len(foreign)), *(f"{value:.2f}" for value in (foreign[0], middle, foreign[-1]))))


def _once(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def main() -> None:
    folders = [Path(word) for word in sys.argv[1:]]
    path = write(folders[0] if folders else FOLDER / "results", folders[1] if len(folders) > 1 else FOLDER)
    print(f"{path} is written")


if __name__ == "__main__":
    main()
