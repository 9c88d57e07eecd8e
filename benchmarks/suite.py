"""The benchmark suite: our server beside its peers, and what it costs as it grows. Results go to benchmarks/results.

usage: python -m benchmarks.suite [NAME ...] [--quick] [--rounds N] [--seconds S] [--also NAME=CHECKOUT] [--out-dir DIR]

Without a name: everything, and then benchmarks/REPORT.md with its plots. --quick: few peers, few rounds, results in
.peers-work/results; for work on the code. --also: another checkout of ours, measured in the same rounds.
Peers' environments, models and bodies are made in .peers-work when they are missing; a peer that cannot be had is named
and left out. Peers run in a network of their own that has only loopback, where the machine allows it.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.beside import OURS, Settings, measure_case
from benchmarks.peers import environments, payloads
from benchmarks.peers.cases import CASES
from benchmarks.peers.catalog import PEERS, environment_of
from benchmarks.tables import case_table

WORK = harness.ROOT / ".peers-work"
LIMIT_S = 3600


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of load per point")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--out-dir", type=Path)
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in CASES]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CASES)}")
    return options


def settings_of(options: argparse.Namespace, left_out: dict[str, str], private_network: bool) -> Settings:
    usual = WORK / "results" if options.quick else harness.ROOT / "benchmarks" / "results"
    also = dict(word.split("=", 1) for word in options.also)
    return Settings(
        work=WORK,
        results=options.out_dir or usual,
        quick=options.quick,
        rounds=options.rounds,
        seconds=options.seconds,
        also={name: Path(folder).resolve() for name, folder in also.items()},
        left_out=left_out,
        private_network=private_network,
    )


def wanted_peers(names: list[str], quick: bool) -> list[str]:
    cases = [CASES[name] for name in names]
    return [peer for case in cases for peer in (case.quick_peers if quick else (*case.peers, *case.slow_peers))]


def prepared(peers: list[str]) -> dict[str, str]:
    """Make what is missing; returns {environment: why it is left out}."""
    WORK.mkdir(exist_ok=True)
    payloads.prepare(WORK)
    left_out = environments.prepare(map(environment_of, peers), WORK / "venvs")
    no_network = environments.enter_private_network([sys.executable, "-m", "benchmarks.suite", *sys.argv[1:]])
    if no_network:
        alone = [peer for peer in peers if PEERS[peer].private_network]
        left_out |= {environment_of(peer): no_network for peer in alone}
    for name, why in left_out.items():
        harness.say(f"{name} is left out: {why}")
    return left_out


def main() -> int:
    options = arguments()
    names = options.names or list(CASES)
    left_out = prepared(wanted_peers(names, options.quick))
    harness.end_cleanly(LIMIT_S)
    settings = settings_of(options, left_out, environments.is_private_network())
    failed = []
    for name in names:
        harness.say(f"{name}: {CASES[name].claim}")
        if not measure_case(name, CASES[name], settings):
            failed.append(name)
        print(f"\n### {name}\n", *case_table(settings.results / f"{name}.jsonl"), sep="\n", flush=True)
    if failed:
        print(f"{OURS} failed in: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
