"""The report's pictures (PNG), from the raw results."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.goals import per_byte_ns
from benchmarks.tables import OURS, Result, least

OWN, PEER = "#d62728", "#7f8fa6"
WIDTH = 8.0  # inches


def draw_all(results: dict[str, Result], folder: Path) -> dict[str, Path]:
    """Part -> its picture; parts without results have none."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, result in results.items():
        if name == "connections":
            drawn[name] = curves(result, folder / "clients.png")
        elif name.startswith("overload"):
            drawn[name] = goodput(result, folder / f"{name}.png")
        elif name in ("models", "idle_connections", "body_size", "memory_and_start", "profile"):
            continue
        else:
            drawn[name] = bars(name, result, folder / f"{name}.png")
    if "profile" in results:
        drawn["profile"] = parts(results["profile"], folder / "profile.png")
    if "body_size" in results:
        drawn["body_size"] = per_byte(results["body_size"], folder / "body_size.png")
    return drawn


def bars(name: str, result: Result, path: Path) -> Path:
    """CPU per request by server, at the largest number of clients; logarithmic."""
    clients = max(result.clients())
    costs = {server: least(result.of(server, clients), "cpu_us") for server in result.servers(clients)}
    names = sorted(costs, key=lambda server: costs[server], reverse=True)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.8 + 0.34 * len(names)))
    drawn = axes.barh(names, [costs[server] for server in names], color=[_colour(server) for server in names])
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set(xscale="log", xlabel="µs of CPU per request (log)", title=f"{name}, {clients} clients")
    axes.margins(x=0.15)
    return _saved(figure, path)


def curves(result: Result, path: Path) -> Path:
    """Rate and latency by number of clients, each asking all the time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(1.3 * WIDTH, 3.6))
    for server in dict.fromkeys(point["server"] for point in result.points):
        points = [(clients, result.of(server, clients)) for clients in result.clients()]
        clients = [count for count, found in points if found]
        best = [max(found, key=lambda point: float(point["rps"])) for _, found in points if found]
        left.plot(clients, [point["rps"] for point in best], "o-", label=server, color=_line_colour(server))
        right.plot(
            clients, [point["p50_ms"] for point in best], "o-", color=_line_colour(server), label=f"{server}, p50"
        )
        right.plot(
            clients, [point["p99_ms"] for point in best], "s:", color=_line_colour(server), label=f"{server}, p99"
        )
    left.set(xscale="log", yscale="log", xlabel="clients", ylabel="answers per second", title="tiny model: rate")
    right.set(xscale="log", yscale="log", xlabel="clients", ylabel="ms", title="tiny model: latency")
    for axes in (left, right):
        _lined(axes)
    return _saved(figure, path)


def goodput(result: Result, path: Path) -> Path:
    """Answers within the deadline, as a share of the capacity, by what arrives."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    for server in dict.fromkeys(point["server"] for point in result.points):
        shares: dict[float, list[float]] = {0.0: [0.0]}
        for point in result.points:
            if point["server"] == server and point.get("load"):
                shares.setdefault(point["load"], []).append(point["goodput_rps"] / point["capacity_rps"])
        loads = sorted(shares)
        middle = [sorted(shares[load])[len(shares[load]) // 2] for load in loads]
        axes.plot(loads, middle, "o-", label=server, color=_line_colour(server))
    axes.axhline(0.9, color="grey", linestyle=":", label="goal at 3")
    axes.set(
        xlabel="requests that arrive, of capacity", ylabel="answers in time, of capacity", ylim=(0, 1.1),
        title=f"Goodput under overload, deadline {result.head['deadline_ms']} ms",
    )  # fmt: skip
    _lined(axes)
    return _saved(figure, path)


def parts(result: Result, path: Path) -> Path:
    """Where the time of a request goes, one bar for each profiled case."""
    servers = list(dict.fromkeys(point["server"] for point in result.points))
    figure, every = plt.subplots(len(servers), 1, figsize=(WIDTH, 3.4 * len(servers)), squeeze=False)
    for server, axes in zip(servers, every[:, 0], strict=True):
        found = {point["part"]: point["us"] for point in result.points if point["server"] == server and "part" in point}
        names = sorted(found, key=lambda part: found[part])[-14:]
        drawn = axes.barh(
            names, [found[part] for part in names], color=[OWN if "ours" in part else PEER for part in names]
        )
        axes.bar_label(drawn, fmt="%.2f", padding=3)
        axes.set(title=server, xlabel="µs per request")
        axes.margins(x=0.12)
    return _saved(figure, path)


def per_byte(result: Result, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    costs = per_byte_ns(result)
    axes.plot(list(costs), list(costs.values()), "o-", color=OWN)
    axes.set(xscale="log", ylim=(0, None), xlabel="bytes of the body", ylabel="ns of CPU per byte",
             title="Raw tensor: cost per byte, beyond the cost of 1 KB")  # fmt: skip
    _lined(axes, legend=False)
    return _saved(figure, path)


def _colour(server: str) -> str:
    return OWN if server.startswith(OURS) else PEER


COLOURS = ("#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#17becf")


def _line_colour(server: str) -> str:
    return OWN if server.startswith(OURS) else COLOURS[sum(map(ord, server)) % len(COLOURS)]


def _lined(axes: Axes, legend: bool = True) -> None:
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)


def _saved(figure: plt.Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
