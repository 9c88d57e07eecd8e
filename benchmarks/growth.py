"""What a request costs as things grow: idle connections, models, bytes in a body. Parts of benchmarks.suite."""

import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import harness, models
from benchmarks.beside import Results, Served, Settings, take_turns
from benchmarks.clients import asked_for
from benchmarks.figures import IDLE, MODELS
from benchmarks.load import Request
from benchmarks.tables import OURS

WIDTHS = (256, 2_560, 25_600, 150_528, 2_560_000)  # float32: 1 KB to 10 MB, with the 600 KB of a picture
CLAIMS = {
    "idle_connections": f"What a request among 32 costs when {IDLE} other connections are open and idle",
    "models": f"What a request costs when {MODELS} models are served, one of them asked or all in turn",
    "body_size": "What a raw tensor costs, from 1 KB to 10 MB",
}


@dataclass(frozen=True, slots=True)
class BesideIdle(Served):
    """Measured while other connections are open, which have asked once and wait."""

    def measure(self) -> Iterator[dict[str, Any]]:
        with idle_connections(self.request, IDLE):
            yield from Served.measure(self)


@contextmanager
def idle_connections(request: Request, count: int) -> Iterator[None]:
    """Open connections that the server keeps, because each has been answered once. Raises OSError."""
    place = urlsplit(request.url)
    head = f"POST {asked_for(place)} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {request.content_type}\r\n"
    message = f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body
    with ExitStack() as stack:
        for _ in range(count):
            opened = stack.enter_context(socket.create_connection((place.hostname or "", place.port or 0), 10))
            opened.sendall(message)
            if b" 200 " not in opened.recv(65536):
                raise OSError("a connection that is to be idle was not answered")
        yield


def allow_connections(count: int) -> None:
    """Raise this process's limit of open files, which the servers inherit, as far as it may go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(hard, 2 * count)) if hard != resource.RLIM_INFINITY else max(soft, 2 * count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def idle_connections_grow(settings: Settings) -> bool:
    seconds, rounds = settings.seconds_of(2), settings.rounds_of(5)
    with started(settings, {"tiny": ("tiny",)}) as (servers, _):
        server, url = servers["tiny"]
        request = tiny_request(f"{url}/v1/models/tiny:predict")
        server.wait_for([request])
        alone = Served(OURS, rounds, server, request, (32,), seconds)
        beside = BesideIdle(f"{OURS}, {IDLE} idle", rounds, server, request, (32,), seconds)
        return _measured("idle_connections", settings, [alone, beside], rounds)


def models_grow(settings: Settings) -> bool:
    """One of two servers has one model, the other 200; requests to all in turn cannot share batches."""
    seconds, rounds = settings.seconds_of(2), settings.rounds_of(5)
    many = [f"tiny{number:03}" for number in range(MODELS)]
    with started(settings, {"one": ("tiny",), "many": many}) as (servers, _):
        (one, one_url), (other, many_url) = servers["one"], servers["many"]
        first = tiny_request(f"{many_url}/v1/models/{many[0]}:predict")
        everyone = tiny_request(first.url, tuple(f"/v1/models/{name}:predict" for name in many))
        alone = tiny_request(f"{one_url}/v1/models/tiny:predict")
        one.wait_for([alone])
        other.wait_for([tiny_request(f"{many_url}/v1/models/{name}:predict") for name in many])
        contenders = [
            Served(OURS, rounds, one, alone, (8, 32), seconds),
            Served(f"{OURS}, one of {MODELS}", rounds, other, first, (8, 32), seconds),
            Served(f"{OURS}, {MODELS} in turn", rounds, other, everyone, (8, 32), seconds),
        ]
        if not shutil.which("wrk"):
            settings = replace(settings, left_out={**settings.left_out, contenders.pop().name: "wrk is missing"})
        return _measured("models", settings, contenders, rounds)


def body_size_grows(settings: Settings) -> bool:
    seconds, rounds = settings.seconds_of(2), settings.rounds_of(3)
    with started(settings, {"heads": [f"head_{width}" for width in WIDTHS]}) as (servers, _):
        server, url = servers["heads"]
        contenders = []
        for width in WIDTHS:
            row = np.random.default_rng(0).normal(size=width).astype(np.float32)
            expected = tuple(row[:4].tolist())
            request = Request(f"{url}/score?model=head_{width}", row.tobytes(), "application/octet-stream", expected)
            server.wait_for([request])
            contenders.append(Served(f"{OURS}, {4 * width} bytes", rounds, server, request, (8,), seconds))
        return _measured("body_size", settings, contenders, rounds, widths=list(WIDTHS))


@contextmanager
def started(
    settings: Settings, served: dict[str, Sequence[str]]
) -> Iterator[tuple[dict[str, tuple[harness.Server, str]], Path]]:
    """Servers of ours with the models named: name -> (server, base URL)."""
    core, _ = harness.two_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for name, wanted in served.items():
            port = harness.free_port()
            command = harness.accelserve_command(
                {model: model_file(model, folder) for model in wanted}, port, harness.free_port()
            )
            server = stack.enter_context(harness.Server(name, command, core))
            servers[name] = server, f"http://127.0.0.1:{port}"
        yield servers, folder


def model_file(name: str, folder: Path) -> Path:
    if name.startswith("head_"):
        return models.build_head(int(name.removeprefix("head_")), folder)
    return models.build("tiny", folder)


def tiny_request(url: str, paths: tuple[str, ...] = ()) -> Request:
    return Request(url, models.tiny_json(), "application/json", tuple(models.tiny_answer()), paths=paths)


def _measured(name: str, settings: Settings, contenders: Sequence[Served], rounds: int, **more: Any) -> bool:
    out = Results(settings.results / f"{name}.jsonl", CLAIMS[name], settings, case=name, **more)
    return not take_turns(contenders, rounds, out)
