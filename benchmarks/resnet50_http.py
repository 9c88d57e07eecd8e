"""Claim: ResNet-50 served over HTTP from JPEGs reaches nearly the rate of the bare model in a process of its own.

8 clients POST a 220-pixel JPEG to /score. The server is pinned to one core, the load generator to another. In turn with
it a bare ONNX Runtime session with one thread runs on the server's core, with decoded pixels, batches of 1 to 8; its
best rate is the mark.
usage: python -m benchmarks.resnet50_http [--rounds 5] [--seconds 8] [--clients 8] [--input uint8|float32] [--out FILE]
"""

import argparse
import json
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import harness, models, record
from benchmarks.load import Request

CLAIM = "ResNet-50 over HTTP from JPEGs, 8 clients, one core: images per second against the bare session's best"
BATCHES = (1, 2, 4, 8)
TOLERANCE = 0.02  # another way of resizing moves the answer by 0.002, channels the wrong way round by 0.04


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of load per point")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--input", choices=("uint8", "float32"), default="uint8", help="uint8: the graph normalises")
    parser.add_argument("--out", type=Path, default=harness.ROOT / "benchmarks/results/resnet50_http.json")
    return parser.parse_args()


def bare(core: int, what: str, *words: object) -> list[Any]:
    """What bare_session.py prints."""
    command = ["taskset", "-c", str(core), *harness.module_command("bare_session", what, *words)]
    done = subprocess.run(command, cwd=harness.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300)
    if done.returncode:
        raise harness.ServerFailed(f"bare_session ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the rounds: the best rates and least CPU, because noise only slows; ratios: median within the rounds."""
    best = max((point["served"] for point in rounds), key=lambda served: served["rps"])
    return {
        "served_rps": best["rps"],
        "bare_rps": max(point["bare"]["rps"] for point in rounds),
        "served_share_of_bare_rate": median(point["served"]["rps"] / point["bare"]["rps"] for point in rounds),
        "served_cpu_us": min(point["served"]["cpu_us"] for point in rounds),
        "bare_cpu_us": min(point["bare"]["cpu_us"] for point in rounds),
        "cpu_times_bare": median(point["served"]["cpu_us"] / point["bare"]["cpu_us"] for point in rounds),
        "errors": sum(point["served"]["errors"] for point in rounds),
        **{key: best[key] for key in ("p50_ms", "p99_ms", "generator", "foreign_cpus")},
    }


def main() -> None:
    options = arguments()
    server_core, load_core = harness.two_cores()
    harness.end_cleanly(180 + options.rounds * (3 * options.seconds + 30))
    name = "resnet50_u8" if options.input == "uint8" else "resnet50"
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, picture = models.build(name, folder), folder / "picture.jpg"
        picture.write_bytes(models.jpeg())
        answer = bare(server_core, "answer", model, picture)[0]
        port = harness.free_port()
        command = harness.accelserve_command({name: model}, port, harness.free_port())
        server = stack.enter_context(harness.Server("accelserve", command, server_core))
        url = f"http://127.0.0.1:{port}/score"
        request = Request(url, picture.read_bytes(), "image/jpeg", tuple(answer), TOLERANCE)
        server.wait_for([request])
        for number in range(options.rounds):
            seconds = options.seconds / len(BATCHES)
            rates = bare(server_core, "rate", model, picture, seconds, ",".join(map(str, BATCHES)))
            point = harness.measure(server, request, options.clients, options.seconds, load_core, 2, patient=True)
            rounds.append(
                {
                    "round": number,
                    "bare": max(rates, key=lambda rate: rate["rps"]),
                    "bare_by_batch": rates,
                    "served": harness.flat(point),
                }
            )
    result = {"input": options.input, **summary(rounds)}
    record.write_result(options.out, CLAIM, result, rounds)
    print(
        f"served {result['served_rps']:.2f}/s, bare session {result['bare_rps']:.2f}/s, ratio "
        f"{result['served_share_of_bare_rate']:.3f} (median over {options.rounds} rounds)\n"
        f"CPU per image: served {result['served_cpu_us']:.0f} µs, bare {result['bare_cpu_us']:.0f} µs, ratio "
        f"{result['cpu_times_bare']:.3f}\n"
        f"p50 {result['p50_ms']:.0f} ms, p99 {result['p99_ms']:.0f} ms, {result['errors']} errors "
        f"({result['generator']}, foreign CPUs {result['foreign_cpus']:.2f})"
    )


if __name__ == "__main__":
    main()
