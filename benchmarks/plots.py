"""The report's pictures (PNG), from the raw results. Ours is orange and first, peers are grey or marked otherwise."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from benchmarks.figures import per_byte_ns
from benchmarks.flames import flames
from benchmarks.tables import OURS, Point, Result, is_noisy, least, stages_of

OWN, PEER = "#d55e00", "#8c96a3"
PEERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito's, which colour-blind eyes tell apart
MARKERS = "osD^v"
NOISY = "///"
WIDTH = 8.0  # inches


def draw_all(results: dict[str, Result], folder: Path) -> dict[str, list[Path]]:
    """Part -> its pictures; parts without results have none."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = {name: result for name, result in results.items() if result.points}
    drawn = {name: [_drawing(name)(result, folder / f"{name}.png")] for name, result in measured.items()}
    if "profile" in drawn:
        drawn["profile"] += flames(results["profile"], folder)
    return drawn


def _drawing(name: str) -> Callable[[Result, Path], Path]:
    if name.startswith("overload"):
        return goodput
    others = {
        "connections": curves,
        "body_size": per_byte,
        "models": grown,
        "idle_connections": grown,
        "memory_and_start": memory,
        "profile": parts,
    }
    return others.get(name, partial(bars, name))


def bars(name: str, result: Result, path: Path) -> Path:
    """CPU per request by server, at the largest number of clients; logarithmic."""
    clients = max(result.clients())
    points = {server: result.of(server, clients) for server in result.servers(clients)}
    title = f"{name}: {clients} clients"
    return _bars({server: least(found, "cpu_us") for server, found in points.items()}, points, title, path)


def grown(result: Result, path: Path) -> Path:
    """What ours costs at each number of clients; linear, because factors of one to five are to be seen."""
    points = {
        f"{server}, {clients} clients": result.of(server, clients)
        for clients in result.clients()
        for server in result.servers(clients)
    }
    costs = {who: least(found, "cpu_us") for who, found in points.items()}
    return _bars(costs, points, result.head["case"], path, log=False)


def _bars(costs: dict[str, float], points: dict[str, list[Point]], title: str, path: Path, log: bool = True) -> Path:
    """Ours at the top, the others by increasing cost."""
    names = sorted(costs, key=lambda who: (who.startswith(OURS), -costs[who]))
    figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.34 * len(names)))
    hatches = [NOISY if is_noisy(points[who]) else "" for who in names]
    colours = [OWN if who.startswith(OURS) else PEER for who in names]
    drawn = axes.barh(names, [costs[who] for who in names], color=colours, hatch=hatches, edgecolor="white")
    axes.bar_label(drawn, labels=[_figures(costs[who]) for who in names], padding=3)
    scale = "log" if log else "linear"
    axes.set(xscale=scale, xlabel=f"µs of server CPU per request{' (logarithmic)' if log else ''}", title=title)
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)
    axes.margins(x=0.18 if log else 0.12)
    _plain(axes, "x")
    return _saved(figure, path, noisy=any(hatches))


def curves(result: Result, path: Path) -> Path:
    """Rate, waits and CPU by number of clients, each asking all the time."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(1.6 * WIDTH, 3.9))
    for number, server in enumerate(dict.fromkeys(point["server"] for point in result.points)):
        found = {clients: points for clients in result.clients() if (points := result.of(server, clients))}
        best = [max(points, key=lambda point: float(point["rps"])) for points in found.values()]
        look = _look(server, number)
        left.plot(list(found), [point["rps"] for point in best], label=server, **look)
        middle.plot(list(found), [point["p50_ms"] for point in best], label=f"{server}, p50", **look)
        middle.plot(
            list(found), [point["p99_ms"] for point in best], label=f"{server}, p99",
            **{**look, "linestyle": ":", "fillstyle": "none"},
        )  # fmt: skip
        right.plot(list(found), [least(points, "cpu_us") for points in found.values()], label=server, **look)
    left.set(ylabel="answers per second", title="rate")
    middle.set(ylabel="ms", title="time to the answer")
    right.set(ylabel="µs of server CPU per request", title="cost")
    for axes in (left, middle, right):
        axes.set(xscale="log", yscale="log", xlabel="clients that ask all the time")
        _plain(axes, "x")
        _plain(axes, "y")
        _lined(axes)
    return _saved(figure, path)


def goodput(result: Result, path: Path) -> Path:
    """Answers within the deadline, as a share of the capacity, by what arrives."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    for number, server in enumerate(dict.fromkeys(point["server"] for point in result.points)):
        shares: dict[float, list[float]] = {0.0: [0.0]}
        for point in result.of_server(server):
            if point.get("load"):
                shares.setdefault(point["load"], []).append(point["goodput_rps"] / point["capacity_rps"])
        loads = sorted(shares)
        middle = [sorted(shares[load])[len(shares[load]) // 2] for load in loads]
        axes.plot(loads, middle, label=server, **_look(server, number))
    axes.plot([0, 1, 3], [0, 1, 1], color="grey", linewidth=1, linestyle="--", label="all that can be")
    axes.plot([3], [0.9], color="black", marker="_", markersize=16, linestyle="", label="goal")
    axes.set(
        xlabel="requests that arrive, in multiples of the capacity", ylabel="answers in time, of capacity",
        ylim=(0, 1.1), title=f"{result.head['case']}: deadline {result.head['deadline_ms']} ms",
    )  # fmt: skip
    _lined(axes)
    return _saved(figure, path)


def parts(result: Result, path: Path) -> Path:
    """Where the time of a request goes, by stage, for each profiled case."""
    servers = list(dict.fromkeys(point["server"] for point in result.points))
    heights = [len(stages_of(result.of_server(server))) for server in servers]
    figure, every = plt.subplots(
        len(servers), 1, figsize=(WIDTH, sum(0.27 * height + 0.9 for height in heights)), squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    for server, axes in zip(servers, every[:, 0], strict=True):
        points = result.of_server(server)
        cost = next(point["cpu_us"] for point in points if "clients" in point)
        stages = {stage: cost * sum(shares.values()) for stage, shares in stages_of(points).items()}
        names = list(stages)[::-1]
        drawn = axes.barh(names, [stages[name] for name in names], color=OWN)
        axes.bar_label(drawn, labels=[f"{stages[name]:.1f}" for name in names], padding=3)
        axes.set(title=f"{server}: {cost:.1f} µs of CPU per request", xlabel="µs")
        axes.margins(x=0.12)
    return _saved(figure, path)


def per_byte(result: Result, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    costs = per_byte_ns(result)
    axes.plot(list(costs), list(costs.values()), "o-", color=OWN)
    for size, cost in costs.items():
        axes.annotate(f"{cost:.2f}", (size, cost), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=9)
    axes.set(
        xscale="log", ylim=(0, 1.2 * max(costs.values(), default=1)), xlabel="bytes of the body",
        ylabel="ns of server CPU per byte", title="raw tensor over HTTP: cost per byte, beyond that of 1 KB",
    )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _bytes(size)))
    axes.grid(alpha=0.3)
    return _saved(figure, path)


def memory(result: Result, path: Path) -> Path:
    """The bare session, and ours at first and after JPEGs: medians."""
    found = {
        f"{server}, {when}": sorted(values)[len(values) // 2]
        for server in dict.fromkeys(point["server"] for point in result.points)
        for key, when in (("first_pss_mib", "after the first answer"), ("loaded_pss_mib", "after JPEGs"))
        if (values := [point[key] for point in result.of_server(server) if key in point])
    }
    names = sorted(found, key=lambda who: found[who], reverse=True)
    figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.4 * len(names)))
    colours = [OWN if who.startswith(OURS) else PEER for who in names]
    axes.bar_label(axes.barh(names, [found[who] for who in names], color=colours), fmt="%.0f", padding=3)
    axes.set(xlabel="MiB (PSS)", title="memory of a server with a JPEG model")
    axes.margins(x=0.12)
    return _saved(figure, path)


def _look(server: str, number: int) -> dict[str, Any]:
    """number: of the server in the picture; ours is the first."""
    own = server.startswith(OURS)
    colour = OWN if own else PEERS[(number - 1) % len(PEERS)]
    return {
        "color": colour,
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-",
        "linewidth": 2.4 if own else 1.4,
    }


def _plain(axes: Axes, which: str) -> None:
    """1,000 in place of a power of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _figures(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _bytes(size: float) -> str:
    return f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} KB"


def _lined(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _saved(figure: plt.Figure, path: Path, noisy: bool = False) -> Path:
    if noisy:
        figure.text(0.99, 0.99, "hatched: others used\nthe machine meanwhile", ha="right", va="top", fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
