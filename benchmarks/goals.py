"""The goals, each with what was measured and whether that meets it; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import (
    IDLE,
    MODELS,
    Beside,
    Results,
    cheapest_us,
    compared,
    goodput,
    grown,
    memory_beside,
    per_byte_ns,
    quietest,
    share_of_bare,
    spread,
)
from benchmarks.peers.cases import SLOW, TUNED, WITH_JPEG
from benchmarks.tables import OURS, refusal_cpu_us

MET, MISSED, UNKNOWN = "met", "**not met**", "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table. topic: the heading of README.md under which a miss is explained.

    limit: measured may be at most that, or at least where `floor`. measured: None where the part was not run.
    """

    topic: str
    case: str
    goal: str
    limit: float
    measured: float | None
    text: str
    floor: bool

    @property
    def met(self) -> bool:
        return self.measured is not None and (
            self.measured >= self.limit if self.floor else self.measured <= self.limit
        )

    @property
    def verdict(self) -> str:
        return UNKNOWN if self.measured is None else MET if self.met else MISSED


def judge(results: Results) -> list[Goal]:
    parts = (_tiny, _mlp, _jpeg, _resnet50, _raw, _grpc, _overload, _tail, _memory, _growth)
    return [goal for part in parts for goal in part(results)]


def _tiny(results: Results) -> Iterator[Goal]:
    case = "tiny model, JSON, 32 clients"
    yield _cheaper(results, "tiny", 32, TUNED, 2, "mosec tuned with orjson", case)
    yield _cheaper(results, "tiny", 32, ("mosec",), 3, "mosec as shipped", case)
    yield _cheaper(results, "tiny", 32, SLOW, 12, "every other peer", case)
    yield _cheaper(results, "tiny_ray", 32, ("ray",), 12, "Ray Serve", case, topic="tiny")
    yield _cost("tiny", case, 14, cheapest_us(results, "tiny", 32))
    rates = compared(results, "tiny", 8, None, "rps")
    fastest = max(rates, key=lambda peer: peer.times, default=None)
    yield _rate("tiny", "tiny model, JSON, 8 clients", "the best peer's", 4, fastest)
    waits = compared(results, "tiny", 1, None, "p50_ms")
    quickest = min(waits, key=lambda peer: peer.times, default=None)
    text = quickest and (
        f"{1 / quickest.times:.2f} of it ({quickest.ours:.3f} ms; {quickest.server} {quickest.theirs:.3f} ms)"
    )
    yield _at_most(
        "tiny", "tiny model, JSON, 1 client", "p50 <= 2/3 of the best peer's", 2 / 3, _inverse(quickest), text
    )


def _mlp(results: Results) -> Iterator[Goal]:
    case = "mlp 784-300-100-10, JSON, 32 clients"
    yield _cheaper(results, "mlp", 32, TUNED, 2.5, "mosec tuned with orjson", case)
    yield _cheaper(results, "mlp", 32, ("mosec",), 8, "mosec as shipped", case)
    yield _cheaper(results, "mlp", 32, SLOW, 8, "the other peers", case)


def _jpeg(results: Results) -> Iterator[Goal]:
    name, case = "jpeg220_u8", "JPEG 220 px, near-free uint8 model, 1000 scores"
    yield _cost(name, f"{case}, 32 clients", 260, cheapest_us(results, name, 32))
    yield _cheaper(results, name, 32, TUNED, 1.6, "mosec tuned", f"{case}, 32 clients")
    yield _cheaper(results, name, 32, ("mosec", *WITH_JPEG), 6, "peers as usually written", f"{case}, 32 clients")
    tuned = max(compared(results, name, 8, TUNED, "rps"), key=lambda peer: peer.times, default=None)
    yield _rate(name, f"{case}, 8 clients", "that of mosec tuned", 2.5, tuned)


def _resnet50(results: Results) -> Iterator[Goal]:
    for name, what in (("resnet50_u8", "uint8"), ("resnet50", "float32")):
        result = results.get(name)
        for clients, share in ((1, 0.92), (4, 0.95), (8, 0.95)):
            found = share_of_bare(result, OURS, clients) if result else None
            text = found and f"{100 * found.times:.1f} % ({found.ours:.2f} of {found.theirs:.2f} images/s)"
            case = f"ResNet-50 on the CPU ({what}), JPEG in, {_clients(clients)}"
            goal = f"rate >= {100 * share:.0f} % of the in-process rate"
            yield _at_least("resnet50", case, goal, share, found and found.times, text)


def _raw(results: Results) -> Iterator[Goal]:
    for clients in (1, 8):
        case = f"raw tensor 600 KB over HTTP, which the model reads, to 1000 scores, {_clients(clients)}"
        yield _cost("raw_600k", case, 80, cheapest_us(results, "raw_600k", clients))
    cost = cheapest_us(results, "body_size", 8, f"{OURS}, 602112 bytes")
    yield _cost("raw_600k", "raw tensor 600 KB over HTTP, of which the model reads four numbers, 8 clients", 80, cost)


def _grpc(results: Results) -> Iterator[Goal]:
    for clients in (1, 8):
        case = f"Predict 600 KB over gRPC, {_clients(clients)}"
        yield _cheaper(results, "grpc_600k", clients, None, 1, "a tuned grpcio server with the same model", case)


def _overload(results: Results) -> Iterator[Goal]:
    for name, what in (("overload", "a device of 5 ms per batch"), ("overload_resnet50", "ResNet-50 on the same CPU")):
        result = results.get(name)
        case = f"overload at 3 x capacity, 100 ms deadlines: {what}"
        found = goodput(result, OURS, 3) if result else None
        text = found and f"{100 * found.times:.1f} % ({found.ours:.0f} of {found.theirs:.0f} answers/s)"
        yield _at_least("overload", case, "goodput >= 90 % of capacity", 0.9, found and found.times, text)
        cost = refusal_cpu_us(result, OURS) if result else None
        yield _at_most("overload", case, "server CPU per refusal < 1 ms", 1000, cost, cost and f"{cost:.0f} µs")


def _tail(results: Results) -> Iterator[Goal]:
    for name, case in (("tiny", "tiny model"), ("mlp", "mlp"), ("jpeg220_u8", "JPEG 220 px")):
        result = results.get(name)
        point = quietest(result.of(OURS, 32)) if result else None
        times = point and point["p99_ms"] / point["p50_ms"]
        text = point and f"{times:.2f} x ({point['p99_ms']:.2f} of {point['p50_ms']:.2f} ms)"
        yield _at_most("tail", f"{case}, 32 clients", "p99 <= 3 x p50 in the quietest of five rounds", 3, times, text)


def _memory(results: Results) -> Iterator[Goal]:
    result = results.get("memory_and_start")
    found = memory_beside(result) if result else None
    measured = found and found[0] - found[1]
    text = found and f"{measured:.0f} MiB ({found[0]:.0f}, bare session {found[1]:.0f})"
    goal = "PSS <= 110 MiB, less the bare session"
    yield _at_most("memory", "memory beside the model, after JPEGs", goal, 110, measured, text)


def _growth(results: Results) -> Iterator[Goal]:
    for few in (1, 32):
        found = grown(results, "connections", (OURS, 1000), (OURS, few))
        yield _within("connections", f"{few} -> 1,000 connections, all ask", found)
    idle = grown(results, "idle_connections", (f"{OURS}, {IDLE} idle", 32), (OURS, 32))
    yield _within("connections", f"32 -> 1,000 connections, 32 ask, {IDLE} are idle", idle)
    for who, what in ((f"one of {MODELS}", "one is asked"), (f"{MODELS} in turn", "all are asked in turn")):
        found = grown(results, "models", (f"{OURS}, {who}", 32), (OURS, 32))
        yield _within("models", f"1 -> {MODELS} models, {what}, 32 clients", found)
    result = results.get("body_size")
    per_byte = per_byte_ns(result) if result else {}
    for case, sizes in (("1 KB -> 10 MB", list(per_byte)), ("600 KB -> 10 MB", list(per_byte)[-2:])):
        times = spread(per_byte[size] for size in sizes)
        text = times and f"{times:.2f} x ({', '.join(f'{per_byte[size]:.2f}' for size in sizes)} ns per byte)"
        yield _at_most("body_size", case, "cost per byte beyond the first KB within 1.5 x", 1.5, times, text)


def _cheaper(
    results: Results,
    name: str,
    clients: int,
    peers: Sequence[str] | None,
    times: float,
    who: str,
    case: str,
    topic: str = "",
) -> Goal:
    """How many times the CPU that ours takes the cheapest of the peers needs. topic: the part's name if empty."""
    found = min(compared(results, name, clients, peers, "cpu_us"), key=lambda peer: peer.times, default=None)
    text = found and f"{found.times:.2f} x ({found.server} {found.theirs:.1f} µs, ours {found.ours:.1f} µs)"
    goal = f"CPU >= {times:g} x cheaper than {who}" if times > 1 else f"CPU cheaper than {who}"
    return _at_least(topic or name, case, goal, times, found and found.times, text)


def _rate(topic: str, case: str, whose: str, times: float, peer: Beside | None) -> Goal:
    text = peer and f"{1 / peer.times:.2f} x ({peer.ours:.0f}/s; {peer.server} {peer.theirs:.0f}/s)"
    return _at_least(topic, case, f"rate >= {times:g} x {whose}", times, _inverse(peer), text)


def _cost(topic: str, case: str, limit: float, cost: float | None) -> Goal:
    return _at_most(topic, case, f"CPU per request <= {limit:g} µs", limit, cost, cost and f"{cost:.1f} µs")


def _within(topic: str, case: str, found: Beside | None) -> Goal:
    text = found and f"{found.times:.2f} x ({found.ours:.1f} -> {found.theirs:.1f} µs)"
    return _at_most(topic, case, "CPU per request within 1.5 x", 1.5, found and found.times, text)


def _inverse(peer: Beside | None) -> float | None:
    return 1 / peer.times if peer else None


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


def _at_most(topic: str, case: str, goal: str, limit: float, measured: float | None, text: str | float | None) -> Goal:
    return Goal(topic, case, goal, limit, measured, str(text) if text else "–", floor=False)


def _at_least(topic: str, case: str, goal: str, limit: float, measured: float | None, text: str | float | None) -> Goal:
    return Goal(topic, case, goal, limit, measured, str(text) if text else "–", floor=True)
