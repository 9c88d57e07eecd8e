"""Claim: azmlinfsrv has at least 5 times the rate of the original and at most a third of its p99, and healthy stays it.

Both run the same trivial @rawhttp script (peers/servers/trivial_script.py) in the same number of workers, pinned to
the same core; a body of 100 KB is posted to both in turn, round by round, from another core. Then all workers are kept
busy computing, and `GET /` is asked: ours is to answer within 5 ms, on the core that the workers fill. The same is
asked while nothing computes, since a shared machine has waits of its own.

usage: python -m benchmarks.entry_script [--workers 2] [--rounds 5] [--seconds 4] [--work DIR] [--out FILE]
--work: where the peers' environments are (default: .peers-work); the original's is made there when it is missing.
"""

import argparse
import http.client
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness, record
from benchmarks.load import Request, drive
from benchmarks.peers import environments
from benchmarks.peers.catalog import SERVERS

CLAIM = (
    "An entry script: rate and waits of POSTs of 100 KB, and of GET / while all workers compute, beside the original"
)
OURS, ORIGINAL = "accelserve", "azureml-inference-server-http"
BODY_BYTES = 100_000
CLIENTS = (1, 8, 32)
GOALS = {"rate": 5.0, "p99": 1 / 3, "health_ms": 5.0}  # times the original's, of the original's
GOAL_CLIENTS = 32  # enough to fill the core: a rate is what a server can do
PROBES, PROBE_EVERY_S = 100, 0.02
PROBE_LIMIT_S = 20.0  # of one, and of all of the original's in a round
RESULT = harness.ROOT / "benchmarks/results/entry_script.json"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load per point")
    parser.add_argument("--work", type=Path, default=harness.ROOT / ".peers-work")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args()


def servers(options: argparse.Namespace) -> Iterator[tuple[str, harness.Server, int]]:
    """Name, server and port of each, not started yet."""
    core, _ = harness.two_cores()
    script, workers = str(SERVERS / "trivial_script.py"), str(options.workers)
    port = harness.free_port()
    ours = [sys.executable, "-m", "accelserve", "azmlinfsrv", "--entry_script", script, "--grace-period", "0"]
    yield OURS, harness.Server(OURS, [*ours, "--port", str(port), "--worker_count", workers], core), port
    port = harness.free_port()
    python = environments.python_of("azureml", options.work.resolve() / "venvs")
    original = [str(python), str(SERVERS / "azureml_server.py"), "--entry_script", script]
    command = [*original, "--port", str(port), "--worker_count", workers]
    yield ORIGINAL, harness.Server(ORIGINAL, command, core, {"PYTHONPATH": ""}), port


def request_to(port: int) -> Request:
    body = bytes(range(256)) * (BODY_BYTES // 256) + bytes(BODY_BYTES % 256)
    return Request(f"http://127.0.0.1:{port}/score", body, "application/octet-stream", (float(BODY_BYTES),))


def loaded(server: harness.Server, port: int, seconds: int) -> Iterator[dict[str, Any]]:
    """A point for each number of clients, warmed up with the most."""
    _, core = harness.two_cores()
    request = request_to(port)
    server.pin()
    drive(request, max(CLIENTS), 1, core)
    for clients in CLIENTS:
        point = harness.measured(server, request, partial(drive, request, clients, seconds, core))
        yield {"clients": clients, "cpu_us": point.cpu_us, **asdict(point.load), "foreign_cpus": point.foreign_cpus}


class Busy:
    """Keeps all workers computing for as long as it is entered, each with a client of its own, and one more in line."""

    def __init__(self, port: int, workers: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(workers + 1)]

    def __enter__(self) -> "Busy":
        for thread in self._threads:
            thread.start()
        time.sleep(1)  # until every worker has one
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            ask(self._port, "POST", "/score", b"busy")


def ask(port: int, method: str, path: str, body: bytes = b"") -> float:
    """Seconds of one request on a connection of its own, as a probe makes it. Raises OSError for a bad answer."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_LIMIT_S)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise OSError(f"{method} {path}: {answer.status}")
    finally:
        connection.close()
    return time.perf_counter() - began


def health(port: int, workers: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of GET /: while nothing computes, and while all workers do."""
    yield {"busy": False, **probes(port)}
    with Busy(port, workers):
        yield {"busy": True, **probes(port)}


def probes(port: int) -> dict[str, Any]:
    took_ms: list[float] = []
    until = time.perf_counter() + PROBE_LIMIT_S
    while len(took_ms) < PROBES and time.perf_counter() < until:
        took_ms.append(ask(port, "GET", "/") * 1e3)
        time.sleep(PROBE_EVERY_S)
    took_ms.sort()
    return {
        "health_probes": len(took_ms),
        "health_p50_ms": statistics.median(took_ms),
        "health_p99_ms": took_ms[len(took_ms) * 99 // 100],
        "health_most_ms": took_ms[-1],
    }


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both servers are up all the time and take turns, another one first in each round."""
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        there = {name: (stack.enter_context(server), port) for name, server, port in servers(options)}
        for name, (server, port) in there.items():
            server.wait_for([request_to(port)])
            if reachable := server.tree.open_listeners():
                raise harness.ServerFailed(f"{name} listens beyond loopback: {', '.join(reachable)}")
        for number in range(options.rounds):
            for name in harness.rotated(list(there), number):
                server, port = there[name]
                rounds += [
                    {"round": number, "server": name, **point} for point in loaded(server, port, options.seconds)
                ]
                rounds += [{"round": number, "server": name, **each} for each in health(port, options.workers)]
            harness.say(f"round {number + 1} of {options.rounds} is done")
    return rounds


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """For each number of clients the best of each server, and the median over the rounds of ours to the original's."""
    told: dict[str, Any] = {}
    for clients in CLIENTS:
        points = {name: _of(rounds, name, clients=clients) for name in (OURS, ORIGINAL)}
        pairs = list(zip(points[OURS], points[ORIGINAL], strict=True))
        told[f"{clients} clients"] = {
            **{name: _best(points[name]) for name in points},
            "rate_ratio": statistics.median(ours["rps"] / theirs["rps"] for ours, theirs in pairs),
            "cpu_ratio": statistics.median(theirs["cpu_us"] / ours["cpu_us"] for ours, theirs in pairs),
            "p50_ratio": statistics.median(ours["p50_ms"] / theirs["p50_ms"] for ours, theirs in pairs),
            "p99_ratio": statistics.median(ours["p99_ms"] / theirs["p99_ms"] for ours, theirs in pairs),
        }
    for told_as, busy in (("health", True), ("health of an idle server", False)):
        told[told_as] = {name: _health(_of(rounds, name, busy=busy)) for name in (OURS, ORIGINAL)}
    goal = told[f"{GOAL_CLIENTS} clients"]
    told["goals met"] = {
        "rate": goal["rate_ratio"] >= GOALS["rate"],
        "p99": goal["p99_ratio"] <= GOALS["p99"],
        "health": told["health"][OURS]["p99_ms"] < GOALS["health_ms"],
    }
    return told


def _of(rounds: list[dict[str, Any]], name: str, **wanted: object) -> list[dict[str, Any]]:
    return [each for each in rounds if each["server"] == name and wanted.items() <= each.items()]


def _best(points: list[dict[str, Any]]) -> dict[str, float]:
    """Noise only adds."""
    least = {key: min(point[key] for point in points) for key in ("cpu_us", "p50_ms", "p99_ms")}
    return {"rps": max(point["rps"] for point in points), **least, "errors": sum(point["errors"] for point in points)}


def _health(found: list[dict[str, Any]]) -> Mapping[str, float]:
    """The median of the rounds; most: of all."""
    return {
        "p50_ms": statistics.median(each["health_p50_ms"] for each in found),
        "p99_ms": statistics.median(each["health_p99_ms"] for each in found),
        "most_ms": max(each["health_most_ms"] for each in found),
    }


def main() -> int:
    options = arguments()
    options.work.mkdir(exist_ok=True)
    if missing := environments.prepare(["azureml"], options.work.resolve() / "venvs"):
        sys.exit(f"the original {missing['azureml']}")
    harness.end_cleanly(60 + options.rounds * (2 * len(CLIENTS) * (options.seconds + 4) + 120))
    rounds = measure(options)
    result = summary(rounds)
    record.write_result(options.out, CLAIM, result, rounds)
    for clients in CLIENTS:
        told = result[f"{clients} clients"]
        ours, theirs = told[OURS], told[ORIGINAL]
        print(
            f"{clients} clients: {ours['rps']:.0f} and {theirs['rps']:.0f} per second, {told['rate_ratio']:.1f} x; "
            f"p99 {ours['p99_ms']:.2f} and {theirs['p99_ms']:.2f} ms, {told['p99_ratio']:.2f} of it; "
            f"CPU {ours['cpu_us']:.0f} and {theirs['cpu_us']:.0f} us"
        )
    for told_as, when in (("health", "while all compute"), ("health of an idle server", "while nothing does")):
        for name, told in result[told_as].items():
            print(f"GET / of {name} {when}: p50 {told['p50_ms']:.1f}, p99 {told['p99_ms']:.1f} ms")
    print("goals met:", ", ".join(f"{goal} {'yes' if met else 'NO'}" for goal, met in result["goals met"].items()))
    return 0 if all(result["goals met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
