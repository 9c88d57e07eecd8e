"""Raw results (JSONL) to numbers and Markdown tables; pure but for reading the file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

OURS = "accelserve"
BARE = "bare session"
NOISY_CPUS = 0.15  # foreign load above which a point is marked
Point = dict[str, Any]
HEAD = (
    "clients", "server", "CPU µs/request", "requests/s", "p50 ms", "p99 ms", "errors", "foreign CPUs",
    "CPU, ours = 1", "rate, ours = 1",
)  # fmt: skip
OVERLOAD_HEAD = (
    "server", "load", "goodput/s", "of capacity", "p50 ms", "p99 ms", "late", "refused",
    "refusal p50 ms", "lost",
)  # fmt: skip
LEAST_SHARE = 0.02  # of a request: a part below it is not named in the profile
PROFILE_HEAD = ("stage", "µs", "%", "of which")
MEMORY_HEAD = ("process", "first answer after s", "PSS MiB then", "PSS MiB after JPEGs")


@dataclass(frozen=True, slots=True)
class Result:
    """One file. head: claim, command, commit, machine, versions, left_out; failed: lines about who failed."""

    head: dict[str, Any]
    points: list[Point]
    failed: list[dict[str, Any]]
    folder: Path = Path()

    def of(self, server: str, clients: int) -> list[Point]:
        return [point for point in self.points if (point["server"], point.get("clients")) == (server, clients)]

    def of_server(self, server: str) -> list[Point]:
        return [point for point in self.points if point["server"] == server]

    def servers(self, clients: int) -> list[str]:
        return list(dict.fromkeys(point["server"] for point in self.points if point.get("clients") == clients))

    def clients(self) -> list[int]:
        return sorted({point["clients"] for point in self.points if "clients" in point})


def read(path: Path) -> Result:
    head, *lines = map(json.loads, path.read_text().splitlines())
    points = [line for line in lines if "failed" not in line]
    return Result(head, points, [line for line in lines if "failed" in line], path.parent)


def ratio(result: Result, clients: int, server: str, base: str, key: str) -> float | None:
    """The server's value divided by that of `base` in the same round; the median over the rounds."""
    bases = {point["round"]: point[key] for point in result.of(base, clients)}
    ratios = [point[key] / bases[point["round"]] for point in result.of(server, clients) if bases.get(point["round"])]
    return median(ratios) if ratios else None


def least(points: list[Point], key: str) -> float:
    return float(min(point[key] for point in points))


def part_table(result: Result) -> Iterator[str]:
    """The lines of one part's table, whatever it measures."""
    if any("part" in point for point in result.points):
        yield from profile_table(result)
    elif any("load" in point for point in result.points):
        yield from overload_table(result)
    elif any("first_answer_s" in point for point in result.points):
        yield from memory_table(result)
    else:
        yield from case_table(result)
    yield ""
    yield from notes(result)


def case_table(result: Result) -> Iterator[str]:
    """The lines of one case's table.

    Over the rounds: the least CPU and the best rate (noise only adds), p50 and p99 of the round with the best rate, the
    sum of the errors, the least foreign load. The last two columns are divided by ours in the same round (median).
    """
    yield from head(HEAD)
    for clients in result.clients():
        for server in result.servers(clients):
            yield line(_row(result, clients, server))


def overload_table(result: Result) -> Iterator[str]:
    """Per server and load: medians over the rounds. Loads and goodput are shares of the capacity of the same round."""
    yield from head(OVERLOAD_HEAD)
    for server in dict.fromkeys(point["server"] for point in result.points):
        for load in sorted({point["load"] for point in result.points if point.get("load")}):
            points = flooded(result, server, load)
            if points:
                yield line(_overload_row(server, load, points))
    yield ""
    yield from refusal_lines(result)


def flooded(result: Result, server: str, load: float) -> list[Point]:
    return [point for point in result.points if (point["server"], point.get("load")) == (server, load)]


def refusal_lines(result: Result) -> Iterator[str]:
    """What a refusal costs: all CPU of the server while it did nothing but refuse."""
    for server in dict.fromkeys(point["server"] for point in result.points):
        cost = refusal_cpu_us(result, server)
        if cost is not None:
            yield f"A refusal by {server} costs {cost:.0f} µs of CPU, where every request has a deadline of 1 ms."


def refusal_cpu_us(result: Result, server: str) -> float | None:
    """The least over the rounds; None for a server that refused fewer than nine tenths."""
    points = [point for point in result.points if point["server"] == server and point.get("hopeless")]
    known = [point["refusal_cpu_us"] for point in points if point["refused"] >= 0.9 * point["arrived"]]
    return min(known, default=None)


def _overload_row(server: str, load: float, points: list[Point]) -> tuple[str, ...]:
    def middle(values: Iterator[float | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{median(known):.2f}" if known else "–"

    return (
        server,
        f"{load:g}",
        middle(point["goodput_rps"] for point in points),
        middle(point["goodput_rps"] / point["capacity_rps"] for point in points),
        middle(point["in_time_p50_ms"] for point in points),
        middle(point["in_time_p99_ms"] for point in points),
        str(sum(point["late"] + point["unanswered"] for point in points)),
        str(sum(point["refused"] for point in points)),
        middle(point["refused_p50_ms"] for point in points),
        str(sum(point["lost"] for point in points)),
    )


def profile_table(result: Result) -> Iterator[str]:
    """Per profiled case: what a request costs, and where it goes, by stage."""
    for server in dict.fromkeys(point["server"] for point in result.points):
        points = result.of_server(server)
        (whole,) = (point for point in points if "clients" in point)
        cost, noisy = whole["cpu_us"], " (noisy)" if is_noisy([whole]) else ""
        yield f"**{server}**, {whole['clients']} clients: {cost:.1f} µs of CPU per request{noisy}"
        yield ""
        yield from head(PROFILE_HEAD)
        for stage, parts in stages_of(points).items():
            share = sum(parts.values())
            yield line((stage, f"{share * cost:.1f}", f"{100 * share:.0f}", _largest(parts, cost)))
        yield line(("**all**", f"**{cost:.1f}**", "100", ""))
        yield ""
        yield from (f"{point['no_tool']}.\n" for point in points if "no_tool" in point)


def stages_of(points: list[Point]) -> dict[str, dict[str, float]]:
    """Stage -> part -> share, as they were written: the largest first."""
    stages: dict[str, dict[str, float]] = {}
    for point in points:
        if "stage" in point:
            stages.setdefault(point["stage"], {})[point["part"]] = point["share"]
    return stages


def _largest(parts: dict[str, float], cost_us: float) -> str:
    """The parts that are worth a word, in µs; a stage that is one part says it by its name."""
    return ", ".join(
        f"{part.removeprefix('ours: ').removeprefix('kernel: ')} {share * cost_us:.1f}"
        for part, share in parts.items()
        if share >= LEAST_SHARE
    )


def memory_table(result: Result) -> Iterator[str]:
    """Medians over the rounds."""
    yield from head(MEMORY_HEAD)
    for server in dict.fromkeys(point["server"] for point in result.points):
        points = result.of_server(server)
        cells = (middle_of(points, key) for key in ("first_answer_s", "first_pss_mib", "loaded_pss_mib"))
        yield line((server, *("–" if cell is None else f"{cell:.2f}" for cell in cells)))


def middle_of(points: list[Point], key: str) -> float | None:
    known = [point[key] for point in points if key in point]
    return median(known) if known else None


def notes(result: Result) -> Iterator[str]:
    """Memory, who was left out, who failed."""
    if any("pss_mib" in point for point in result.points):
        yield memory_line(result)
    yield from (f"Left out: {name}: {why}." for name, why in result.head["left_out"].items())
    yield from (f"Failed: {failure['failed']}: {_first_line(failure['why'])}" for failure in result.failed)


def _first_line(text: str) -> str:
    return f"{text:.300}".splitlines()[0]


def memory_line(result: Result) -> str:
    last = {point["server"]: point for point in result.points if "pss_mib" in point}
    parts = (f"{name} {point['pss_mib']:.0f} MiB in {point['processes']}" for name, point in last.items())
    return f"Memory (PSS, processes): {'; '.join(parts)}."


def _row(result: Result, clients: int, server: str) -> tuple[str, ...]:
    points = result.of(server, clients)
    fastest = max(points, key=lambda point: float(point["rps"]))
    foreign = least(points, "foreign_cpus")
    return (
        str(clients),
        server,
        f"{least(points, 'cpu_us'):.1f}",
        f"{fastest['rps']:.0f}",
        f"{fastest['p50_ms']:.2f}",
        f"{fastest['p99_ms']:.2f}",
        str(sum(point["errors"] for point in points)),
        f"{foreign:.2f}{_noisy(points)}",
        _times(ratio(result, clients, server, OURS, "cpu_us")),
        _times(ratio(result, clients, server, OURS, "rps")),
    )


def is_noisy(points: list[Point]) -> bool:
    """Whether others used the machine in every one of the rounds."""
    return least(points, "foreign_cpus") > NOISY_CPUS


def _noisy(points: list[Point]) -> str:
    return " noisy" if is_noisy(points) else ""


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def head(cells: tuple[str, ...]) -> Iterator[str]:
    yield line(cells)
    yield "|" + "---|" * len(cells)


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
