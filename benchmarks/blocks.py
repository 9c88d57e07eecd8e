"""Blocks of the two READMEs that are made from the committed results, between marks, so they cannot drift; pure."""

from collections.abc import Iterator

from benchmarks.figures import Beside, Results, compared, goodput, grown, memory_beside, share_of_bare
from benchmarks.goals import MET, MISSED, UNKNOWN, Goal, judge
from benchmarks.peers.cases import TUNED
from benchmarks.tables import OURS, head, is_noisy, least, line, middle_of, refusal_cpu_us

NOT_YET = (
    "Not measured yet on a quiet machine: `make bench` measures (half an hour) and writes the figures here, from its "
    "raw results."
)
SPEED_HEAD = ("request", "clients", "accelserve", "mosec tuned", "mosec as shipped", "the others", "repeat it")
OTHER_HEAD = ("", "measured", "repeat it")
UNMET_HEAD = ("case", "goal", "measured", "measured ÷ goal", "reason")
COMPARED = (  # case, clients, what is asked
    ("tiny", 1, "tiny model, JSON"),
    ("tiny", 8, "tiny model, JSON"),
    ("tiny", 32, "tiny model, JSON"),
    ("mlp", 32, "784 numbers as JSON, three dense layers"),
    ("jpeg220_u8", 8, "JPEG of 220 px to 1,000 scores, near-free model"),
    ("jpeg220_u8", 32, "JPEG of 220 px to 1,000 scores, near-free model"),
    ("raw_600k", 8, "raw tensor of 600 KB"),
    ("grpc_1k", 32, "gRPC Predict of 1 KB"),
    ("grpc_600k", 8, "gRPC Predict of 600 KB"),
)


def with_block(text: str, name: str, lines: Iterator[str]) -> str:
    """The text with the block between its marks replaced. Raises ValueError if the marks are not there once."""
    begin, end = f"<!-- {name}: made by scripts/bench report -->\n", f"<!-- end of {name} -->"
    before, *rest = text.split(begin)
    if len(rest) != 1 or end not in rest[0]:
        raise ValueError(f"want the marks of the block {name} once")
    return "".join((before, begin, *(f"{line}\n" for line in lines), end, rest[0].partition(end)[2]))


def speed(results: Results) -> Iterator[str]:
    """For the project's README: every claim with the command that repeats it and the raw result behind it."""
    if not results:
        yield NOT_YET
        return
    first = next(iter(results.values())).head
    yield "CPU of all of a server's processes per request, the model's work included; server on one core, load on the"
    yield f"other ({first['machine']['cpu']}, {first['date']}). Of the others: how many times what accelserve takes."
    yield ""
    yield from head(SPEED_HEAD)
    yield from (line(row) for case, clients, what in COMPARED for row in _costs(results, case, clients, what))
    yield ""
    yield from head(OTHER_HEAD)
    yield from (line((what, measured, _repeated(name))) for name, what, measured in _others(results))
    yield ""
    goals = judge(results)
    yield f"{counted(goals)} [REPORT.md](benchmarks/REPORT.md) has them all, with plots, machine,"
    yield "versions and a profile; [benchmarks/README.md](benchmarks/README.md#goals-not-met) says why some are not,"
    yield "and what was tried. `make bench` repeats everything in about half an hour."


def unmet(results: Results) -> Iterator[str]:
    """For benchmarks/README.md: the goals that are not met, each with a link to its reason."""
    if not results:
        yield NOT_YET
        return
    goals = judge(results)
    yield counted(goals)
    missed = [goal for goal in goals if goal.verdict == MISSED]
    if missed:
        yield ""
        yield from head(UNMET_HEAD)
        yield from (line((g.case, g.goal, g.text, over_goal(g), f"[{g.topic}](#{g.topic})")) for g in missed)


def counted(goals: list[Goal]) -> str:
    met, missed, unknown = (sum(goal.verdict == verdict for goal in goals) for verdict in (MET, MISSED, UNKNOWN))
    return f"Of {len(goals)} goals {met} are met, {missed} are not, and {unknown} were not measured."


def over_goal(goal: Goal) -> str:
    return "–" if goal.measured is None else f"{goal.measured / goal.limit:.2f}"


def _costs(results: Results, name: str, clients: int, what: str) -> Iterator[tuple[str, ...]]:
    """One row, or none where that was not measured."""
    result = results.get(name)
    if result is None or not (ours := result.of(OURS, clients)):
        return
    peers = compared(results, name, clients, None, "cpu_us")
    if name == "tiny":
        peers += compared(results, "tiny_ray", clients, ("ray",), "cpu_us")
    tuned = sorted((peer for peer in peers if peer.server in TUNED), key=lambda peer: peer.times)
    shipped = [peer for peer in peers if peer.server == "mosec"]
    others = [peer for peer in peers if not peer.server.startswith("mosec")]
    cost = f"{least(ours, 'cpu_us'):.1f} µs{' (noisy)' if is_noisy(ours) else ''}"
    yield what, str(clients), cost, _times(tuned[:1]), _times(shipped), _times(others), _repeated(name)


def _times(peers: list[Beside]) -> str:
    if not peers:
        return "–"
    peers = sorted(peers, key=lambda peer: peer.times)
    least, most = peers[0], peers[-1]
    if least is most:
        return f"{least.times:.2f} x" if least.server.startswith("mosec") else f"{least.times:.2f} x ({least.server})"
    return f"{least.times:.2f} x ({least.server}) to {most.times:.2f} x ({most.server})"


def _others(results: Results) -> Iterator[tuple[str, str, str]]:
    """(part, what, measured) of what is not a cost beside the peers'."""
    resnet50 = results.get("resnet50_u8")
    if resnet50 and (share := share_of_bare(resnet50, OURS, 8)):
        what = "ResNet-50 on the CPU, JPEGs from 8 clients, of the rate of the bare session in a process of its own"
        yield "resnet50_u8", what, f"{100 * share.times:.1f} %"
    for name, what in (("overload", "a device that takes 5 ms"), ("overload_resnet50", "ResNet-50 on the CPU")):
        flood = results.get(name)
        if flood and (good := goodput(flood, OURS, 3)):
            refusal = refusal_cpu_us(flood, OURS)
            cost = "" if refusal is None else f"; a refusal costs {refusal:.0f} µs"
            what = (
                f"Three times what {what} can do arrives, with deadlines of 100 ms: answered in time, of that capacity"
            )
            yield name, what, f"{100 * good.times:.0f} %{cost}"
    if crowd := grown(results, "connections", (OURS, 1000), (OURS, 32)):
        what = "1,000 connections that all ask: CPU per request, against 32"
        yield "connections", what, f"{crowd.times:.2f} x"
    memory = results.get("memory_and_start")
    if memory and (held := memory_beside(memory)):
        started = middle_of(memory.of_server(OURS), "first_answer_s")
        yield "memory_and_start", "Memory (PSS) beside the model, after JPEGs", f"{held[0] - held[1]:.0f} MiB"
        yield "memory_and_start", "From the start of the process to the first right answer", f"{started:.2f} s"


def _repeated(name: str) -> str:
    return f"`scripts/bench {name}` ([raw](benchmarks/results/{name}.jsonl))"
