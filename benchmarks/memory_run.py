"""Claim: whatever is asked for however long, memory stays where it is after the first minute.

Eight clients send at random what a busy port meets: small and large JSON, JPEGs, raw tensors of 0.6 and 6 MB, gRPC,
requests that are wrong, clients that leave in mid-body, while a model's version is replaced again and again. PSS and
RSS are read once a second; told are their slope after the warm-up, what a thousand idle connections add, and what is
left when all is quiet, beside a bare ONNX Runtime session on one of the models.
usage: python -m benchmarks.memory_run [--minutes 6] [--warm-up-s 60] [--out FILE] [--plot FILE.png]
"""

import argparse
import contextlib
import http.client
import json
import random
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import harness, models, record
from benchmarks.clients import PREDICT
from benchmarks.load import Request

CLAIM = "Memory of the server under mixed requests, wrong ones, clients that leave and version changes, after a warm-up"
CLIENTS = 8
SWAP_S = 10.0
IDLE_CONNECTIONS = 1000
QUIET_S = 10.0
JPEGS = 500
RESULTS = harness.ROOT / "benchmarks/results"
JSON, OCTETS, JPEG = "application/json", "application/octet-stream", "image/jpeg"
# How often each is sent, of 100.
SHARES = {
    "json": 40, "json_large": 8, "jpeg": 20, "raw_600_kb": 10, "raw_6_mb": 3, "grpc": 9, "wrong": 7, "leaves": 3
}  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--warm-up-s", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "memory_run.json")
    parser.add_argument("--plot", type=Path, default=RESULTS / "memory_run.png")
    return parser.parse_args()


class Traffic:
    """What the clients send, and how it was answered: a status, "OK" of gRPC, or the name of a connection's error."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        numbers = np.random.default_rng(0)
        image = numbers.random((1, 3, models.SIDE, models.SIDE), np.float32)
        rows = numbers.random((400, 784), np.float32)
        self.ports = http_port, grpc_port
        self.sends: dict[str, tuple[str, bytes, str]] = {
            "json": ("/v1/models/tiny:predict", models.tiny_json(), JSON),
            "json_large": ("/v1/models/mlp:predict", json.dumps({"instances": rows.tolist()}).encode(), JSON),
            "jpeg": ("/score?model=gap", models.jpeg(), JPEG),
            "raw_600_kb": ("/score?model=gap", image.tobytes(), OCTETS),
            "raw_6_mb": ("/score?model=gap", np.repeat(image, 10, axis=0).tobytes(), OCTETS),
        }
        self.wrong = [
            ("/v1/models/tiny:predict", b'{"instances": [[1, 2', JSON),
            ("/v1/models/tiny:predict", b'{"instances": [["a", 2, 3, 4]]}', JSON),
            ("/v1/models/none:predict", models.tiny_json(), JSON),
            ("/score?model=gap", models.jpeg()[:9000], JPEG),
            ("/score?model=gap", image.tobytes()[:-4], OCTETS),
        ]
        self.answers: Counter[str] = Counter()
        self.over = threading.Event()

    def client(self, seed: int) -> None:
        import grpc

        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=30)
        with grpc.insecure_channel(f"127.0.0.1:{self.ports[1]}") as channel:
            predict: Callable[..., bytes] = channel.unary_unary(PREDICT)
            while not self.over.is_set():
                (kind,) = chance.choices(list(SHARES), list(SHARES.values()))
                if kind == "grpc":
                    predict(models.tiny_predict(), timeout=30)
                    said: object = "OK"
                elif kind == "leaves":
                    said = self._leave(chance)
                else:
                    said = _post(connection, *(chance.choice(self.wrong) if kind == "wrong" else self.sends[kind]))
                self.answers[f"{kind}: {said}"] += 1
        connection.close()

    def _leave(self, chance: random.Random) -> str:
        """Some of a body, and away."""
        path, body, content_type = self.sends[chance.choice(("raw_600_kb", "raw_6_mb", "json_large"))]
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.ports[0]), timeout=30) as client:
            client.sendall(head.encode() + body[: chance.randrange(len(body))])
        return "left"


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, content_type: str) -> object:
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__
    return response.status


def memory_mib(pid: int) -> dict[str, float]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    return {"rss_mib": int(fields["Rss"]) / 1024, "pss_mib": int(fields["Pss"]) / 1024}


@contextlib.contextmanager
def traffic(http_port: int, grpc_port: int) -> Iterator[Traffic]:
    sent = Traffic(http_port, grpc_port)
    clients = [threading.Thread(target=sent.client, args=(seed,)) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield sent
    finally:
        sent.over.set()
        for client in clients:
            client.join(40)


def watch(pid: int, base: Path, seconds: float) -> list[dict[str, float]]:
    """A sample each second, and a new version of the model in `base` every SWAP_S."""
    samples, began, swaps = list[dict[str, float]](), time.monotonic(), 1
    while (now := time.monotonic() - began) < seconds:
        samples.append({"at_s": now, **memory_mib(pid), "versions": swaps})
        if now > swaps * SWAP_S:
            swaps += 1
            shutil.copytree(base / str(swaps - 1), base / f"new.{swaps}")
            (base / f"new.{swaps}").rename(base / str(swaps))
            if swaps > 2:
                shutil.rmtree(base / str(swaps - 2))
        time.sleep(1.0)
    return samples


def slope_mib_per_minute(samples: list[dict[str, float]], what: str) -> float:
    """Of the line of least squares."""
    line = np.polyfit([sample["at_s"] / 60 for sample in samples], [sample[what] for sample in samples], 1)
    return float(line[0])


def idle_connections_kib(pid: int, port: int) -> float:
    """What each of many kept connections adds that have had one answer."""
    before, connections = memory_mib(pid)["pss_mib"], list[http.client.HTTPConnection]()
    for _ in range(IDLE_CONNECTIONS):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        _post(connection, "/v1/models/tiny:predict", models.tiny_json(), JSON)
        connections.append(connection)
    added = memory_mib(pid)["pss_mib"] - before
    for connection in connections:
        connection.close()
    return added * 1024 / IDLE_CONNECTIONS


def after_jpegs(pid: int, sent: Traffic) -> dict[str, float]:
    """The memory when a few JPEGs are all that was ever asked."""
    connection = http.client.HTTPConnection("127.0.0.1", sent.ports[0], timeout=30)
    for _ in range(JPEGS):
        _post(connection, *sent.sends["jpeg"])
    connection.close()
    return memory_mib(pid)


def least_by_minute(samples: list[dict[str, float]], what: str) -> list[float]:
    """What is left each time that malloc gave back what it keeps."""
    minutes = int(samples[-1]["at_s"] // 60) + 1
    return [min(sample[what] for sample in samples if sample["at_s"] // 60 == minute) for minute in range(minutes)]


def bare_mib(model: Path, core: int) -> float:
    with harness.Server("bare_session", harness.module_command("bare_session", "hold", model), core) as session:
        while "{}" not in session.words():
            if session.process.poll() is not None or time.perf_counter() - session.started > harness.START_S:
                raise harness.ServerFailed("bare_session did not answer")
            time.sleep(0.05)
        return session.tree.pss_mib()


def draw(samples: list[dict[str, float]], warm_up_s: float, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    for what, name in (("rss_mib", "RSS"), ("pss_mib", "PSS")):
        axes.plot([s["at_s"] / 60 for s in samples], [s[what] for s in samples], label=name, linewidth=1)
    axes.axvspan(0, warm_up_s / 60, color="0.92", label="warm-up")
    axes.set(xlabel="minutes", ylabel="MiB", ylim=(0, None), title="Memory of the server under mixed traffic")
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=120)


def main() -> None:
    options = arguments()
    core, _ = harness.two_cores()
    harness.end_cleanly(int(options.minutes * 60) + 300)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served = {model: models.build(model, folder) for model in ("tiny", "mlp", "gap")}
        base = folder / "changing"
        (base / "1").mkdir(parents=True)
        shutil.copy(served["mlp"], base / "1" / "model.onnx")
        ports = harness.free_port(), harness.free_port()
        command = harness.accelserve_command(
            {**served, "changing": base}, *ports, options=("--threads", "1", "--poll-interval", "1")
        )
        url = f"http://127.0.0.1:{ports[0]}/v1/models/tiny:predict"
        request = Request(url, models.tiny_json(), JSON, tuple(models.tiny_answer()))
        with harness.Server("accelserve", command, core) as server:
            server.wait_for([request])
            started = memory_mib(server.process.pid)
            jpegs = after_jpegs(server.process.pid, Traffic(*ports))
            with traffic(*ports) as sent:
                samples = watch(server.process.pid, base, options.minutes * 60)
            request.check()
            time.sleep(QUIET_S)
            quiet = memory_mib(server.process.pid)
            idle_kib = idle_connections_kib(server.process.pid, ports[0])
        bare = bare_mib(served["mlp"], core)
    steady = [sample for sample in samples if sample["at_s"] >= options.warm_up_s]
    result = {
        "requests": sum(sent.answers.values()),
        "answers": dict(sorted(sent.answers.items())),
        "versions_changed": samples[-1]["versions"] - 1,
        "started": started,
        "after_jpegs": jpegs,
        "least_rss_mib_by_minute": least_by_minute(samples, "rss_mib"),
        "quiet": quiet,
        "most_rss_mib": max(sample["rss_mib"] for sample in samples),
        "pss_slope_mib_per_minute": slope_mib_per_minute(steady, "pss_mib"),
        "rss_slope_mib_per_minute": slope_mib_per_minute(steady, "rss_mib"),
        "kib_per_idle_connection": idle_kib,
        "bare_session_pss_mib": bare,
    }
    record.write_result(options.out, CLAIM, result, samples)
    draw(samples, options.warm_up_s, options.plot)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
