"""The goals, each with what was measured and whether that meets it; pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers.cases import SLOW, TUNED, WITH_JPEG
from benchmarks.tables import OURS, Result, flooded, least, middle_of, ratio, refusal_cpu_us

MET, MISSED, UNKNOWN = "met", "**missed**", "not measured"
Results = Mapping[str, Result]


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table. measured: None where the part was not run."""

    case: str
    goal: str
    measured: float | None
    text: str
    met: bool

    @property
    def verdict(self) -> str:
        return UNKNOWN if self.measured is None else MET if self.met else MISSED


def judge(results: Results) -> list[Goal]:
    return [
        goal for part in (_tiny, _mlp, _jpeg, _resnet50, _large, _overload, _tail, _growth) for goal in part(results)
    ]


def _tiny(results: Results) -> Iterator[Goal]:
    case = "tiny, JSON, 32 clients"
    yield _at_most(case, "CPU per request <= 14 µs", 14, _cpu(results, "tiny", 32), "{:.1f} µs")
    yield _cheaper(results, "tiny", 32, TUNED, 2, "mosec tuned with orjson", case)
    yield _cheaper(results, "tiny", 32, ("mosec",), 3, "mosec as shipped", case)
    yield _cheaper(results, "tiny", 32, SLOW, 12, "every other peer", case)
    yield _cheaper(results, "tiny_ray", 32, ("ray",), 12, "Ray Serve", case)
    rates = _ratios(results, "tiny", 8, "rps", max)
    yield _at_least("tiny, 8 clients", "rate >= 4 x the best peer's", 4, _inverse(rates), "{:.2f} x")
    waits = _ratios(results, "tiny", 1, "p50_ms", min)
    yield _at_most("tiny, 1 client", "p50 <= 2/3 of the best peer's", 2 / 3, _inverse(waits), "{:.2f} of it")


def _mlp(results: Results) -> Iterator[Goal]:
    case = "mlp, JSON, 32 clients"
    yield _cheaper(results, "mlp", 32, TUNED, 2.5, "mosec tuned with orjson", case)
    yield _cheaper(results, "mlp", 32, SLOW, 8, "the other peers", case)


def _jpeg(results: Results) -> Iterator[Goal]:
    case = "JPEG 220 px, uint8, 1000 scores"
    yield _at_most(case, "CPU per request <= 260 µs, 32 clients", 260, _cpu(results, "jpeg220_u8", 32), "{:.0f} µs")
    yield _cheaper(results, "jpeg220_u8", 32, TUNED, 1.6, "mosec tuned", case)
    yield _cheaper(results, "jpeg220_u8", 32, ("mosec", *WITH_JPEG), 6, "peers as usually written", case)
    tuned = max(_each(results, "jpeg220_u8", 8, TUNED, "rps"), default=None)
    yield _at_least(case, "rate >= 2.5 x that of mosec tuned, 8 clients", 2.5, _inverse(tuned), "{:.2f} x")


def _resnet50(results: Results) -> Iterator[Goal]:
    for name in ("resnet50_u8", "resnet50"):
        result = results.get(name)
        for clients, share in ((1, 0.92), (4, 0.95), (8, 0.95)):
            text = f"rate >= {100 * share:.0f} % of the in-process rate"
            measured = result and share_of_bare(result, OURS, clients)
            yield _at_least(f"{name}, JPEG in, {clients} client(s)", text, share, measured, "{:.3f}")


def _large(results: Results) -> Iterator[Goal]:
    for clients in (1, 8):
        case = f"raw tensor 600 KB over HTTP, read by the model, to 1,000 scores, {clients} client(s)"
        yield _at_most(case, "CPU per request <= 80 µs", 80, _cpu(results, "raw_600k", clients), "{:.0f} µs")
    case = "raw tensor 600 KB over HTTP, to four scores, 8 clients"
    sizes = results.get("body_size")
    points = sizes.of(f"{OURS}, 602112 bytes", 8) if sizes else []
    cost = least(points, "cpu_us") if points else None
    yield _at_most(case, "CPU per request <= 80 µs", 80, cost, "{:.0f} µs")
    result = results.get("grpc_600k")
    for clients in (1, 8):
        peers = [name for name in result.servers(clients) if name.startswith("grpcio")] if result else []
        case = f"Predict 600 KB over gRPC, {clients} client(s)"
        yield _cheaper(results, "grpc_600k", clients, peers, 1, "tuned grpcio with the same model", case)


def _overload(results: Results) -> Iterator[Goal]:
    for name, what in (("overload", "a device of 5 ms per batch"), ("overload_resnet50", "ResNet-50 on the same CPU")):
        result = results.get(name)
        points = flooded(result, OURS, 3) if result else []
        shares = [point["goodput_rps"] / point["capacity_rps"] for point in points]
        case = f"overload, 3 x capacity, 100 ms, {what}"
        yield _at_least(case, "goodput >= 90 % of capacity", 0.9, median(shares) if shares else None, "{:.2f}")
        cost = result and refusal_cpu_us(result, OURS)
        yield _at_most(case, "server CPU per refusal < 1 ms", 1000, cost, "{:.0f} µs")


def _tail(results: Results) -> Iterator[Goal]:
    tiny = results.get("tiny")
    tails = [point["p99_ms"] / point["p50_ms"] for point in tiny.of(OURS, 32)] if tiny else []
    yield _at_most(
        "tiny, 32 clients", "p99 <= 3 x p50 in the quietest round", 3, min(tails) if tails else None, "{:.2f} x"
    )
    memory = results.get("memory_and_start")
    beside = memory and memory_beside(memory)
    yield _at_most("memory after JPEGs, less the bare session", "PSS <= 110 MiB", 110, beside, "{:.0f} MiB")


def _growth(results: Results) -> Iterator[Goal]:
    goal = "CPU per request within 1.5 x"
    result = results.get("connections")
    active = result and ratio_of_clients(result, 1000, 32)
    yield _at_most("32 -> 1,000 connections that ask", goal, 1.5, active, "{:.2f} x")
    idle = _between(results, "idle_connections", 32, f"{OURS}, 968 idle")
    yield _at_most("32 connections that ask, and 968 idle ones", goal, 1.5, idle, "{:.2f} x")
    one = _between(results, "models", 32, f"{OURS}, one of 200")
    yield _at_most("1 -> 200 models, one of them asked", goal, 1.5, one, "{:.2f} x")
    turn = _between(results, "models", 32, f"{OURS}, 200 in turn")
    yield _at_most("1 -> 200 models, all asked in turn (no batches)", goal, 1.5, turn, "{:.2f} x")
    sizes = results.get("body_size")
    spread = sizes and per_byte_spread(sizes)
    yield _at_most("1 KB -> 10 MB", "cost per byte flat: 10 MB against 600 KB within 1.5 x", 1.5, spread, "{:.2f} x")


def share_of_bare(result: Result, server: str, clients: int) -> float | None:
    """The server's rate divided by the bare session's best of the same round; the median."""
    best: dict[int, float] = {}
    for point in result.points:
        if "batch" in point:
            best[point["round"]] = max(point["rps"], best.get(point["round"], 0.0))
    shares = [point["rps"] / best[point["round"]] for point in result.of(server, clients) if point["round"] in best]
    return median(shares) if shares else None


def memory_beside(result: Result) -> float | None:
    """MiB of ours after the load, less the bare session's."""
    ours, bare = ([p for p in result.points if (p["server"] == OURS) == own] for own in (True, False))
    loaded, held = middle_of(ours, "loaded_pss_mib"), middle_of(bare, "first_pss_mib")
    return None if loaded is None or held is None else loaded - held


def ratio_of_clients(result: Result, many: int, few: int) -> float | None:
    """CPU of ours with many clients, divided by that with few in the same round; the median."""
    costs = {point["round"]: point["cpu_us"] for point in result.of(OURS, few)}
    ratios = [point["cpu_us"] / costs[point["round"]] for point in result.of(OURS, many) if point["round"] in costs]
    return median(ratios) if ratios else None


def per_byte_ns(result: Result) -> dict[int, float]:
    """Bytes -> ns per byte beyond what the smallest body costs."""
    costs: dict[int, float] = {}
    for server in result.servers(8):
        costs[int(server.split()[1])] = least(result.of(server, 8), "cpu_us")
    smallest = min(costs)
    return {size: 1e3 * (cost - costs[smallest]) / (size - smallest) for size, cost in costs.items() if size > smallest}


def per_byte_spread(result: Result) -> float | None:
    per_byte = per_byte_ns(result)
    if len(per_byte) < 2:
        return None
    *_, smaller, ten = (per_byte[size] for size in sorted(per_byte))
    return max(ten / smaller, smaller / ten) if min(ten, smaller) > 0 else None


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _cpu(results: Results, name: str, clients: int) -> float | None:
    result = results.get(name)
    return least(points, "cpu_us") if result and (points := result.of(OURS, clients)) else None


def _each(results: Results, name: str, clients: int, peers: Sequence[str], key: str) -> list[float]:
    """Each peer's value, ours = 1."""
    result = results.get(name)
    found = [ratio(result, clients, peer, OURS, key) for peer in peers] if result else []
    return [value for value in found if value is not None]


def _ratios(results: Results, name: str, clients: int, key: str, best: Callable[[list[float]], float]) -> float | None:
    result = results.get(name)
    peers = [server for server in result.servers(clients) if not server.startswith(OURS)] if result else []
    values = _each(results, name, clients, peers, key)
    return best(values) if values else None


def _cheaper(
    results: Results, name: str, clients: int, peers: Sequence[str], times: float, who: str, case: str
) -> Goal:
    """How many times the CPU that ours takes the cheapest of the peers needs."""
    values = _each(results, name, clients, peers, "cpu_us")
    return _at_least(case, f"CPU: >= {times:g} x cheaper than {who}", times, min(values, default=None), "{:.2f} x")


def _between(results: Results, name: str, clients: int, server: str) -> float | None:
    result = results.get(name)
    return result and ratio(result, clients, server, OURS, "cpu_us")


def _at_most(case: str, goal: str, limit: float, measured: float | None, form: str) -> Goal:
    text = "–" if measured is None else form.format(measured)
    return Goal(case, goal, measured, text, measured is not None and measured <= limit)


def _at_least(case: str, goal: str, limit: float, measured: float | None, form: str) -> Goal:
    text = "–" if measured is None else form.format(measured)
    return Goal(case, goal, measured, text, measured is not None and measured >= limit)
