"""Claim: a request to a tiny model costs our server a fraction of the CPU that a plain FastAPI server spends on it.

32 clients, each with one request under way: ours over HTTP/JSON, ours over gRPC Predict, and naive_server.py. Each
server is pinned to one core, the load generator to another. All run at once and take turns, round by round.
usage: python -m benchmarks.tiny_vs_naive [--rounds 5] [--seconds 3] [--clients 32] [--out FILE]
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import harness, models, record
from benchmarks.load import GRPC, Request, predict_url

CLAIM = "CPU of the server per request to a tiny model: ours over HTTP and gRPC against a plain FastAPI server"
HTTP, RPC, NAIVE = "accelserve, HTTP JSON", "accelserve, gRPC", "FastAPI, HTTP JSON"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load per point")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--out", type=Path, default=harness.ROOT / "benchmarks/results/tiny_vs_naive.json")
    return parser.parse_args()


def targets(stack: ExitStack, model: Path, core: int) -> dict[str, tuple[harness.Server, Request]]:
    """Both servers, started and answering rightly: name -> (server, request)."""
    http_port, grpc_port, naive_port = harness.free_port(), harness.free_port(), harness.free_port()
    command = harness.accelserve_command({"tiny": model}, http_port, grpc_port)
    ours = stack.enter_context(harness.Server("accelserve", command, core))
    command = harness.module_command("naive_server", model, naive_port)
    naive = stack.enter_context(harness.Server("naive_server", command, core))
    expected = tuple(models.tiny_answer())
    url = f"http://127.0.0.1:{http_port}/v1/models/tiny:predict"
    naive_url = f"http://127.0.0.1:{naive_port}/predict"
    found = {
        HTTP: (ours, Request(url, models.tiny_json(), "application/json", expected)),
        RPC: (ours, Request(predict_url(grpc_port), models.tiny_predict(), GRPC, expected)),
        NAIVE: (naive, Request(naive_url, models.tiny_json(), "application/json", expected)),
    }
    for server, request in found.values():
        server.wait_for([request])
    return found


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the rounds: the least CPU and the best rate, because noise only adds; ratios: median within the rounds."""
    result: dict[str, Any] = {}
    for name in (HTTP, RPC, NAIVE):
        points = [point for point in rounds if point["server"] == name]
        best = max(points, key=lambda point: point["rps"])
        ratios = [
            other["cpu_us"] / point["cpu_us"]
            for point in points
            for other in rounds
            if other["server"] == NAIVE and other["round"] == point["round"]
        ]
        result[name] = {
            "cpu_us": min(point["cpu_us"] for point in points),
            "times_cheaper_than_fastapi": median(ratios),
            "errors": sum(point["errors"] for point in points),
            **{key: best[key] for key in ("rps", "p50_ms", "p99_ms", "generator", "foreign_cpus")},
        }
    return result


def main() -> None:
    options = arguments()
    server_core, load_core = harness.two_cores()
    harness.end_cleanly(120 + options.rounds * 3 * (options.seconds + 10))
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        asked = targets(stack, models.build("tiny", folder), server_core)
        for number in range(options.rounds):
            for name in harness.rotated(list(asked), number):
                point = harness.measure(*asked[name], options.clients, options.seconds, load_core)
                rounds.append({"round": number, "server": name, **harness.flat(point)})
    result = summary(rounds)
    record.write_result(options.out, CLAIM, result, rounds)
    for name, row in result.items():
        print(
            f"{name:24} {row['cpu_us']:7.1f} µs CPU/request  {row['times_cheaper_than_fastapi']:5.1f} times cheaper  "
            f"{row['rps']:8.0f}/s  p50 {row['p50_ms']:.2f} ms  p99 {row['p99_ms']:.2f} ms  "
            f"{row['errors']} errors  ({row['generator']}, foreign CPUs {row['foreign_cpus']:.2f})"
        )


if __name__ == "__main__":
    main()
