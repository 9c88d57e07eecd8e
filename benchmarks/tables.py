"""Raw results (JSONL) to numbers and Markdown tables; pure but for reading the file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

OURS = "accelserve"
NOISY_CPUS = 0.15  # foreign load above which a point is marked
Point = dict[str, Any]
HEAD = (
    "clients", "server", "CPU µs/request", "requests/s", "p50 ms", "p99 ms", "errors", "foreign CPUs",
    "CPU, ours = 1", "rate, ours = 1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """One file. head: claim, command, commit, machine, versions, left_out; failed: lines about who failed."""

    head: dict[str, Any]
    points: list[Point]
    failed: list[dict[str, Any]]

    def of(self, server: str, clients: int) -> list[Point]:
        return [point for point in self.points if (point["server"], point.get("clients")) == (server, clients)]

    def servers(self, clients: int) -> list[str]:
        return list(dict.fromkeys(point["server"] for point in self.points if point.get("clients") == clients))

    def clients(self) -> list[int]:
        return sorted({point["clients"] for point in self.points if "clients" in point})


def read(path: Path) -> Result:
    head, *lines = map(json.loads, path.read_text().splitlines())
    return Result(head, [line for line in lines if "failed" not in line], [line for line in lines if "failed" in line])


def ratio(result: Result, clients: int, server: str, base: str, key: str) -> float | None:
    """The server's value divided by that of `base` in the same round; the median over the rounds."""
    bases = {point["round"]: point[key] for point in result.of(base, clients)}
    ratios = [point[key] / bases[point["round"]] for point in result.of(server, clients) if bases.get(point["round"])]
    return median(ratios) if ratios else None


def least(points: list[Point], key: str) -> float:
    return float(min(point[key] for point in points))


def case_table(path: Path) -> Iterator[str]:
    """The lines of one case's table.

    Over the rounds: the least CPU and the best rate (noise only adds), p50 and p99 of the round with the best rate, the
    sum of the errors, the least foreign load. The last two columns are divided by ours in the same round (median).
    """
    result = read(path)
    yield _line(HEAD)
    yield "|" + "---|" * len(HEAD)
    for clients in result.clients():
        for server in result.servers(clients):
            yield _line(_row(result, clients, server))
    yield ""
    yield memory_line(result)
    yield from (f"Left out: {name}: {why}." for name, why in result.head["left_out"].items())
    yield from (f"Failed: {line['failed']}: {line['why']}" for line in result.failed)


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
        f"{foreign:.2f}{' noisy' if foreign > NOISY_CPUS else ''}",
        _times(ratio(result, clients, server, OURS, "cpu_us")),
        _times(ratio(result, clients, server, OURS, "rps")),
    )


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
