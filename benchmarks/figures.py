"""Numbers of the results that goals, plots and the README share; pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.tables import BARE, OURS, Point, Result, flooded, least, middle_of, ratio

Results = Mapping[str, Result]

IDLE = 968  # connections that ask nothing, beside 32 that do: 1,000
MODELS = 200


@dataclass(frozen=True, slots=True)
class Beside:
    """Another server's value and ours, each the best of its rounds. times: theirs / ours within a round, the median."""

    server: str
    times: float
    theirs: float
    ours: float


def compared(results: Results, name: str, clients: int, servers: Iterable[str] | None, key: str) -> list[Beside]:
    """Those of the servers (None: all peers) that were measured beside ours. key: cpu_us, p50_ms or rps."""
    result = results.get(name)
    if result is None:
        return []
    peers = [server for server in result.servers(clients) if not server.startswith(OURS)]
    return list(_compared(result, clients, peers if servers is None else servers, key))


def _compared(result: Result, clients: int, servers: Iterable[str], key: str) -> Iterator[Beside]:
    best = max if key == "rps" else min
    ours = [point[key] for point in result.of(OURS, clients)]
    for server in servers:
        times = ratio(result, clients, server, OURS, key)
        if times:
            yield Beside(server, times, best(point[key] for point in result.of(server, clients)), best(ours))


def cheapest_us(results: Results, name: str, clients: int, server: str = OURS) -> float | None:
    """CPU per request, the least of the rounds."""
    result = results.get(name)
    points = result.of(server, clients) if result else []
    return least(points, "cpu_us") if points else None


def grown(results: Results, name: str, many: tuple[str, int], few: tuple[str, int]) -> Beside | None:
    """CPU per request of one (server, clients) beside that of another, both ours: within a round, the median."""
    result = results.get(name)
    if result is None:
        return None
    bases = {point["round"]: point["cpu_us"] for point in result.of(*few)}
    points = [point for point in result.of(*many) if point["round"] in bases]
    if not points:
        return None
    times = median(point["cpu_us"] / bases[point["round"]] for point in points)
    return Beside(many[0], times, least(points, "cpu_us"), min(bases.values()))


def share_of_bare(result: Result, server: str, clients: int) -> Beside | None:
    """The server's rate beside the bare session's best of the same round; each value is the median."""
    bare: dict[int, float] = {}
    for point in result.points:
        if "batch" in point:
            bare[point["round"]] = max(point["rps"], bare.get(point["round"], 0.0))
    points = [point for point in result.of(server, clients) if point["round"] in bare]
    if not points:
        return None
    times = median(point["rps"] / bare[point["round"]] for point in points)
    return Beside(BARE, times, median(bare.values()), median(point["rps"] for point in points))


def goodput(result: Result, server: str, load: float) -> Beside | None:
    """Answers in time per second beside the capacity of the same round; each value is the median."""
    points = flooded(result, server, load)
    if not points:
        return None
    times = median(point["goodput_rps"] / point["capacity_rps"] for point in points)
    capacity, good = (median(point[key] for point in points) for key in ("capacity_rps", "goodput_rps"))
    return Beside(server, times, capacity, good)


def quietest(points: list[Point]) -> Point | None:
    """The round in which others used least of the machine."""
    return min(points, key=lambda point: float(point["foreign_cpus"]), default=None)


def memory_beside(result: Result) -> tuple[float, float] | None:
    """MiB of ours after the load, and of the bare session."""
    ours, bare = ([p for p in result.points if (p["server"] == OURS) == own] for own in (True, False))
    loaded, held = middle_of(ours, "loaded_pss_mib"), middle_of(bare, "first_pss_mib")
    return None if loaded is None or held is None else (loaded, held)


def per_byte_ns(result: Result) -> dict[int, float]:
    """Bytes -> ns per byte beyond what the smallest body costs, by increasing size."""
    costs = {int(server.split()[1]): least(result.of(server, 8), "cpu_us") for server in result.servers(8)}
    smallest = min(costs, default=0)
    return {size: 1e3 * (costs[size] - costs[smallest]) / (size - smallest) for size in sorted(costs)[1:]}


def spread(values: Iterable[float]) -> float | None:
    """The largest divided by the smallest; None where that says nothing."""
    known = sorted(values)
    return known[-1] / known[0] if len(known) > 1 and known[0] > 0 else None
