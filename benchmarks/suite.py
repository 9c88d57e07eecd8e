"""The benchmark suite: our server beside its peers, and what it costs as it grows. Results go to benchmarks/results.

usage: python -m benchmarks.suite [NAME ...] [--quick] [--rounds N] [--seconds S] [--also NAME=CHECKOUT] [--out-dir DIR]

Without a name: everything, and then benchmarks/REPORT.md with its plots and the figures in both READMEs. --quick: few
peers, few rounds, results in .peers-work/results; for work on the code. --also: another checkout of ours, in the same
rounds.
Peers' environments, models and bodies are made in .peers-work when they are missing; a peer that cannot be had is named
and left out. Peers run in a network of their own that has only loopback, where the machine allows it.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import growth, harness, hot_path, memory_and_start, overload, report
from benchmarks.beside import Settings, measure_case
from benchmarks.peers import environments, payloads
from benchmarks.peers.cases import CASES
from benchmarks.peers.catalog import PEERS, environment_of
from benchmarks.tables import OURS, part_table, read

WORK = harness.ROOT / ".peers-work"
LIMIT_S = 5400
PARTS: dict[str, Callable[[Settings], bool]] = {  # each returns whether ours came through
    **{name: partial(measure_case, name, case) for name, case in CASES.items()},
    "overload": overload.overload,
    "overload_resnet50": overload.overload_resnet50,
    "idle_connections": growth.idle_connections_grow,
    "models": growth.models_grow,
    "body_size": growth.body_size_grows,
    "memory_and_start": memory_and_start.memory_and_start,
    "profile": hot_path.profile,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of load per point")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--out-dir", type=Path, help="of the results")
    parser.add_argument("--work", type=Path, default=WORK, help="environments, models, bodies (default: .peers-work)")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def settings_of(options: argparse.Namespace, left_out: dict[str, str], private_network: bool) -> Settings:
    usual = options.work / "results" if options.quick else harness.ROOT / "benchmarks" / "results"
    also = dict(word.split("=", 1) for word in options.also)
    return Settings(
        work=options.work.resolve(),
        results=options.out_dir or usual,
        quick=options.quick,
        rounds=options.rounds,
        seconds=options.seconds,
        also={name: Path(folder).resolve() for name, folder in also.items()},
        left_out=left_out,
        private_network=private_network,
    )


def wanted_peers(names: list[str], quick: bool) -> list[str]:
    cases = [CASES[name] for name in names if name in CASES]
    peers = [peer for case in cases for peer in (case.quick_peers if quick else (*case.peers, *case.slow_peers))]
    return [*peers, *(overload.PEERS if "overload_resnet50" in names and not quick else ())]


def prepared(peers: list[str], work: Path) -> dict[str, str]:
    """Make what is missing; returns {environment: why it is left out}."""
    work.mkdir(exist_ok=True)
    payloads.prepare(work)
    left_out = environments.prepare(map(environment_of, peers), work / "venvs")
    no_network = environments.enter_private_network([sys.executable, "-m", "benchmarks.suite", *sys.argv[1:]])
    if no_network:
        alone = [peer for peer in peers if PEERS[peer].private_network]
        left_out |= {environment_of(peer): no_network for peer in alone}
    for name, why in left_out.items():
        harness.say(f"{name} is left out: {why}")
    return left_out


def main() -> int:
    options = arguments()
    work = options.work.resolve()
    names = options.names or list(PARTS)
    left_out = prepared(wanted_peers(names, options.quick), work)
    harness.end_cleanly(LIMIT_S)
    growth.allow_connections(1000)
    settings = settings_of(options, left_out, environments.is_private_network())
    failed = []
    try:
        for name in names:
            harness.say(name)
            if not PARTS[name](settings):
                failed.append(name)
            print(f"\n### {name}\n", *part_table(read(settings.results / f"{name}.jsonl")), sep="\n", flush=True)
    finally:  # a run that is ended too early has its report of what was measured
        if not options.names:
            written(settings.results)
    if failed:
        print(f"{OURS} failed in: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def written(results: Path) -> None:
    """The report beside the results; of the committed ones the READMEs' figures too."""
    if results.resolve() == report.RESULTS:
        harness.say(f"{report.write(results, report.FOLDER)} is written")
        report.write_blocks()
    else:
        harness.say(f"{report.write(results, results)} is written")


if __name__ == "__main__":
    sys.exit(main())
