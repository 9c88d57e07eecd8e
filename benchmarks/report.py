"""benchmarks/REPORT.md, its plots and the READMEs' figures from the raw results, so that nothing is copied by hand.

usage: python -m benchmarks.report [RESULTS_DIR OUT_DIR]      without folders: the committed ones, and both READMEs
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks import blocks, plots
from benchmarks.figures import Results
from benchmarks.goals import Goal, judge
from benchmarks.harness import ROOT
from benchmarks.tables import NOISY_CPUS, Result, head, line, part_table, read

FOLDER = ROOT / "benchmarks"
RESULTS = FOLDER / "results"
BLOCKS: dict[str, tuple[Path, Callable[[Results], Iterator[str]]]] = {
    "speed": (ROOT / "README.md", blocks.speed),
    "goals": (FOLDER / "README.md", blocks.unmet),
}
ORDER = (
    "tiny", "tiny_ray", "connections", "mlp", "jpeg220_u8", "jpeg220", "jpeg1000_u8", "resnet50_u8", "resnet50",
    "raw_600k", "grpc_600k", "grpc_1k", "grpc_mlp", "overload", "overload_resnet50", "idle_connections", "models",
    "body_size", "memory_and_start", "profile",
)  # fmt: skip
INTRODUCTION = f"""# What was measured

Made by `make bench`, or from the raw results in [results/](results/) alone by `scripts/bench report`. One core is for a
server and all that it starts, another for the load, which is one thread. How it is measured, who the peers are, and why
goals are missed, is in [README.md](README.md).

- **CPU** is the total of a server's processes per answered request, in µs, its model's work included. It decides:
  rates and waits move with whatever else the machine does.
- Servers take turns, and ratios (`ours = 1`: above 1 means that the other takes more) are taken within a round; the
  median over the rounds is given. Of single values the best is given, because noise only adds; so a ratio need not be
  the quotient of two values beside it.
- `foreign CPUs` is what neither the server nor the load used of the machine. A point is marked **noisy**, and hatched
  in the plots, where that was above {NOISY_CPUS} in each of its rounds.
"""


def read_results(folder: Path = RESULTS) -> dict[str, Result]:
    """Those parts that are there, in the report's order."""
    return {name: read(path) for name in ORDER if (path := folder / f"{name}.jsonl").exists()}


def write(results_folder: Path, out: Path) -> Path:
    """Returns the report's path. Raises FileNotFoundError if there are no results."""
    results = read_results(results_folder)
    if not results:
        raise FileNotFoundError(f"{results_folder} holds no results")
    drawn = plots.draw_all(results, out / "plots")
    path = out / "REPORT.md"
    path.write_text("\n".join(page(results, drawn)) + "\n")
    return path


def write_blocks() -> None:
    """The READMEs' figures, from the committed results."""
    for name, (path, lines) in BLOCKS.items():
        path.write_text(blocks.with_block(path.read_text(), name, lines(read_results())))


def page(results: Results, drawn: dict[str, list[Path]]) -> Iterator[str]:
    yield INTRODUCTION
    yield from where(results)
    yield from ("", "## Goals", "")
    yield from goals_table(judge(results))
    for name, result in results.items():
        yield from ("", f"## {name}", "", f"{result.head['claim']}.", "")
        raw = f"[{name}.jsonl](results/{name}.jsonl)"
        yield f"`scripts/bench {name}` repeats it; here it was `{result.head['command']}`, raw: {raw}"
        yield ""
        yield from part_table(result)
        for picture in drawn.get(name, ()):
            yield from ("", f"![{picture.stem}](plots/{picture.name})")
    yield from ("", "## How quiet the machine was", "")
    yield from noise_table(results)


def where(results: Results) -> Iterator[str]:
    """Machine, versions, commits, load generators; each only once."""
    heads = [result.head for result in results.values()]
    machine, versions = heads[0]["machine"], heads[0]["versions"]
    memory = f"{machine['memory_gib']:.0f} GiB"
    yield f"- Machine: {machine['cpus']} CPUs, {machine['cpu']}, {memory}, Linux {machine['kernel']}"
    yield f"- Commits: {_once(head['commit'] for head in heads)}; {_once(head['date'] for head in heads)}"
    yield f"- Ours: {', '.join(f'{name} {version}' for name, version in versions.items())}"
    peers = sorted({version for head in heads for version in head.get("peers", {}).values()})
    yield f"- Peers: {', '.join(peers)}"
    generators = (point["generator"] for result in results.values() for point in result.points if "generator" in point)
    yield f"- Load: {_once(generators)}; for overload benchmarks.open_loop"
    left_out = {name: why for head in heads for name, why in head["left_out"].items()}
    yield from (f"- Left out: {name}: {why}" for name, why in left_out.items())


def goals_table(goals: Iterable[Goal]) -> Iterator[str]:
    goals = list(goals)
    yield f"{blocks.counted(goals)} The last number is what was measured divided by the goal."
    yield ""
    yield from head(("case", "goal", "", "measured", "measured ÷ goal"))
    for goal in goals:
        yield line((goal.case, goal.goal, goal.verdict, goal.text, blocks.over_goal(goal)))


def noise_table(results: Results) -> Iterator[str]:
    """Per part: CPUs that neither the server nor the load generator used, over all points."""
    yield "CPUs used by others while a point was measured, over all points of all rounds."
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
    print(f"{write(*folders) if folders else write(RESULTS, FOLDER)} is written")
    if not folders:
        write_blocks()


if __name__ == "__main__":
    main()
