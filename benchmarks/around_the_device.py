"""Claim: JPEG in, scores out, the server takes less than about 2 ms around an emulated FPGA that takes next to nothing.

One client POSTs a JPEG to /score, again and again. The network is a global average and one small dense layer, on the
emulated card in MSFP12, so nearly all of the time is the server's: reading, decoding, resizing, normalising, queue,
answer, and the client's own part. What the server tells as computing (`x-accelserve-timing`) is taken off.
usage: python -m benchmarks.around_the_device [--rounds 5] [--requests 500] [--out FILE]
"""

import argparse
import http.client
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, models, record

CLAIM = "Milliseconds of one client's request, JPEG in and scores out, without what the emulated device takes"
PICTURES = {"JPEG of 224 x 224": 224, "JPEG of 427 x 427": 427}  # the larger is the photograph's own height
WAYS = {  # a line each of [preprocessing]
    "stretch": 'resize = "stretch"',
    "azure-accel": 'resize = "azure-accel"\nmean = [123.68, 116.779, 103.939]',
}
CLASSES = 1000
SERVE = ("--threads", "1", "--device", "fpga-emulator")
BACKEND = '\n[backend]\nformat = "msfp12"\n'
TIMING = re.compile(r"queue=(\d+)us, decode=(\d+)us, compute=(\d+)us")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=500, help="of a round, for each picture and way")
    parser.add_argument("--out", type=Path, default=harness.ROOT / "benchmarks/results/around_the_device.json")
    return parser.parse_args()


def build(folder: Path, name: str) -> Path:
    """x float32 [n, 224, 224, 3] -> y float32 [n, 1000], softmax on the host, as the original's networks."""
    graph, random = models.Graph(), np.random.default_rng(0)
    mean = graph.add("ReduceMean", "x", axes=[1, 2], keepdims=0)
    dense = graph.add("Gemm", mean, graph.weight(random.normal(0, 1e-3, (3, CLASSES))), graph.weight(np.zeros(CLASSES)))
    path = folder / f"{name}.onnx"
    graph.save(path, [models.SIDE, models.SIDE, 3], graph.add("Softmax", dense, axis=-1), CLASSES)
    (folder / f"{name}.accelserve.toml").write_text(f"[preprocessing]\n{WAYS[name]}\n{BACKEND}")
    return path


def ask(connection: http.client.HTTPConnection, picture: bytes) -> tuple[float, float, float]:
    """(around the device, decode, compute) of one request, in ms. Raises RuntimeError for any answer but a good one."""
    began = time.perf_counter()
    connection.request("POST", "/score", picture)
    answer = connection.getresponse()
    scores = answer.read()
    took_ms = (time.perf_counter() - began) * 1e3
    emulated = answer.headers.get("x-accelserve-device") == "fpga-emulator:0; emulated"
    found = TIMING.match(answer.headers.get("x-accelserve-timing", ""))
    if answer.status != 200 or not emulated or found is None or scores.count(b",") != CLASSES - 1:
        raise RuntimeError(f"not an answer of the emulated device: {answer.status} {scores[:200]!r}")
    _, decode_us, compute_us = map(int, found.groups())
    return took_ms - compute_us / 1e3, decode_us / 1e3, compute_us / 1e3


def measured(port: int, picture: bytes, requests: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(50):
        ask(connection, picture)
    around, decode, compute = np.array([ask(connection, picture) for _ in range(requests)]).T
    connection.close()
    return {
        "around_p50_ms": float(np.median(around)),
        "around_p99_ms": float(np.percentile(around, 99)),
        "decode_p50_ms": float(np.median(decode)),
        "device_p50_ms": float(np.median(compute)),
    }


def rounds_of(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A card takes one model, so the ways are served one after the other; each round starts them anew."""
    server_core, _ = harness.two_cores()
    pictures = {name: models.jpeg(side) for name, side in PICTURES.items()}
    for number in range(options.rounds):
        for way in harness.rotated(list(WAYS), number):
            port = harness.free_port()
            command = harness.accelserve_command({way: build(folder, way)}, port, harness.free_port(), SERVE)
            with harness.Server("accelserve", command, server_core) as server:
                wait_until_ready(server, port)
                for name, picture in pictures.items():
                    yield {"round": number, "resize": way, "picture": name, **measured(port, picture, options.requests)}


def wait_until_ready(server: harness.Server, port: int) -> None:
    while time.perf_counter() - server.started < harness.START_S:
        if server.process.poll() is not None:
            break
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise harness.ServerFailed(f"{server.name} does not get ready: {server.words()}")


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The best round of each, because noise only adds."""
    result: dict[str, Any] = {}
    for way in WAYS:
        for picture in PICTURES:
            points = [point for point in rounds if (point["resize"], point["picture"]) == (way, picture)]
            best = min(points, key=lambda point: point["around_p50_ms"])
            result[f"{way}, {picture}"] = {key: value for key, value in best.items() if key.endswith("_ms")}
    return result


def main() -> None:
    options = arguments()
    harness.end_cleanly(60 + options.rounds * (60 + options.requests // 10))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rounds = list(rounds_of(folder, options))
    result = summary(rounds)
    record.write_result(options.out, CLAIM, result, rounds)
    for name, best in result.items():
        print(
            f"{name}: {best['around_p50_ms']:.2f} ms around the device (p99 {best['around_p99_ms']:.2f}), of which "
            f"{best['decode_p50_ms']:.2f} decode; the device {best['device_p50_ms']:.2f} ms"
        )


if __name__ == "__main__":
    main()
