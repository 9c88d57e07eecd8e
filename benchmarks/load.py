"""Requests, right answers, and load: wrk for HTTP and h2load for gRPC where they are installed, else clients.py."""

import http.client
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.clients import PREDICT, asked_for

JOIN_S = 1.5  # in which load generators that begin together have started
SPARE_S = 30  # how long after its end a load generator may still hang
GRPC = "application/grpc"
_PIN = "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); os.execvp(sys.argv[2], sys.argv[2:])"


class WrongAnswer(Exception):
    """The server answered, but not what it should."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request and the numbers that it must be answered with.

    body: for gRPC the message without gRPC's five bytes in front. tolerance: |answer - expected| / |expected|.
    paths: asked in turn under load, in place of the URL's own; only wrk can.
    """

    url: str
    body: bytes
    content_type: str
    expected: tuple[float, ...]
    tolerance: float = 1e-4
    paths: tuple[str, ...] = ()

    def check(self) -> None:
        """Send it once; raises OSError while nobody answers, WrongAnswer when the answer is wrong."""
        numbers: Sequence[float] = _ask_grpc(self) if self.content_type == GRPC else _ask_http(self)
        if math.dist(numbers, self.expected) > self.tolerance * math.hypot(*self.expected):
            raise WrongAnswer(f"{self.url}: want about {self.expected[:4]}..., got {numbers[:4]}...")


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator saw. errors: statuses other than 200 or 0, lost connections, time-outs."""

    generator: str
    answered: int
    errors: int
    rps: float
    p50_ms: float
    p99_ms: float


def pinned(cores: int | str, command: Sequence[str]) -> list[str]:
    """The command on a core, or "0,2"; by taskset where it is, because it takes no time to start."""
    if shutil.which("taskset"):
        return ["taskset", "-c", str(cores), *command]
    return [sys.executable, "-c", _PIN, str(cores), *command]


def predict_url(port: int) -> str:
    return f"http://127.0.0.1:{port}{PREDICT}"


def drive(request: Request, clients: int, seconds: int, core: int, patient: bool = False) -> Load:
    """Keep `clients` requests under way for `seconds`, from one core.

    patient: count what is under way at the end too, which wrk and h2load drop. It matters where requests take long.
    """
    tool, run = ("h2load", _h2load) if request.content_type == GRPC else ("wrk", _wrk)
    with tempfile.TemporaryDirectory() as folder:
        with_tool = shutil.which(tool) is not None and not patient
        if request.paths and not with_tool:
            raise OSError("wrk is missing, and only it asks several paths in turn")
        return (run if with_tool else _python_client)(request, clients, seconds, core, Path(folder))


def drive_from(request: Request, clients: int, seconds: float, cores: Sequence[int]) -> Load:
    """As a patient `drive`, from a process on each of several cores (no more than clients), which begin together."""
    shares = [share for share in (len(range(at, clients, len(cores))) for at in range(len(cores))) if share]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(len(shares)) as pool:
        folder, start = Path(name), time.time() + JOIN_S
        files = [folder / f"times.{at}" for at in range(len(shares))]
        jobs = [
            pool.submit(_python_said, request, share, seconds, core, folder, str(start), str(file))
            for share, core, file in zip(shares, cores, files, strict=False)
        ]
        said = [job.result() for job in jobs]
        took_ms = sorted(1e3 * took for file in files for took in array("d", file.read_bytes()))
    answered, errors, rps = (sum(part[what] for part in said) for what in ("answered", "errors", "rps"))
    if not took_ms:
        raise WrongAnswer(f"{len(shares)} load generators saw no answer from {request.url}, but {errors} errors")
    p50_ms, p99_ms = (took_ms[len(took_ms) * percent // 100] for percent in (50, 99))
    return Load(f"{len(shares)} of benchmarks.clients", answered, errors, rps, p50_ms, p99_ms)


def _wrk(request: Request, clients: int, seconds: int, core: int, folder: Path) -> Load:
    (folder / "body").write_bytes(request.body)
    (folder / "request.lua").write_text(
        f'local file = io.open("{folder / "body"}", "rb")\n'
        'wrk.method = "POST"\n'
        'wrk.body = file:read("*all")\n'
        f'wrk.headers["Content-Type"] = "{request.content_type}"\n'
        "file:close()\n" + (_in_turn(request.paths) if request.paths else "")
    )
    options = ["-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    text = _output(["wrk", *options, "-s", str(folder / "request.lua"), request.url], seconds, core)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        generator="wrk",
        answered=int(_found(r"(\d+) requests in", text)),
        errors=sum(map(int, sockets.groups() if sockets else ())) + (int(statuses[1]) if statuses else 0),
        rps=float(_found(r"Requests/sec:\s+([\d.]+)", text)),
        p50_ms=_ms(_found(r"\s50%\s+(\S+)", text)),
        p99_ms=_ms(_found(r"\s99%\s+(\S+)", text)),
    )


def _in_turn(paths: Sequence[str]) -> str:
    """Lua that formats a request for each path once, and sends them in turn."""
    named = ", ".join(f'"{path}"' for path in paths)
    return (
        f"local paths, requests, at = {{{named}}}, {{}}, 0\n"
        "init = function() for i, path in ipairs(paths) do requests[i] = wrk.format(nil, path) end end\n"
        "request = function() at = at % #requests + 1; return requests[at] end\n"
    )


def _h2load(request: Request, clients: int, seconds: int, core: int, folder: Path) -> Load:
    """One stream per connection. h2load does not read grpc-status, so answers without data count as errors."""
    (folder / "body").write_bytes(b"\0" + len(request.body).to_bytes(4, "big") + request.body)
    log = folder / "requests.log"
    options = ["-t1", f"-c{clients}", "-m1", "-D", str(seconds), f"--log-file={log}", "-d", str(folder / "body")]
    headers = ["-H", f"content-type: {GRPC}", "-H", "te: trailers"]
    text = _output(["h2load", *options, *headers, request.url], seconds, core)
    answered = int(_found(r"(\d+) succeeded", text))
    lost = sum(int(_found(rf"(\d+) {what}", text)) for what in ("failed", "errored", "timeout"))
    least_bytes = 5 + 4 * len(request.expected)
    empty = max(0, answered - int(_found(r"\((\d+)\) data", text)) // least_bytes)
    took_ms = sorted(int(line.split()[2]) / 1000 for line in log.read_text().splitlines() if line.strip())
    if not took_ms:
        raise WrongAnswer(f"h2load saw no answer from {request.url}")
    p50_ms, p99_ms = (took_ms[len(took_ms) * percent // 100] for percent in (50, 99))
    return Load("h2load", answered, lost + empty, answered / seconds, p50_ms, p99_ms)


def _python_client(request: Request, clients: int, seconds: int, core: int, folder: Path) -> Load:
    said = _python_said(request, clients, seconds, core, folder)
    return Load(generator=f"benchmarks.clients {_protocol(request)}", **said)


def _python_said(
    request: Request, clients: int, seconds: float, core: int, folder: Path, *together: str
) -> dict[str, Any]:
    """What one process of clients.py prints."""
    (folder / "body").write_bytes(request.body)
    arguments = [_protocol(request), request.url, str(folder / "body"), request.content_type, str(clients)]
    command = [sys.executable, "-m", "benchmarks.clients", *arguments, str(seconds), *together]
    said: dict[str, Any] = json.loads(_output(command, seconds, core))
    return said


def _protocol(request: Request) -> str:
    return "grpc" if request.content_type == GRPC else "http"


def _output(command: list[str], seconds: float, core: int) -> str:
    done = subprocess.run(
        pinned(core, command),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds + SPARE_S,
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise WrongAnswer(f"the load generator's words hold no {pattern!r}: {text[-300:]}")
    return match[1]


def _ms(text: str) -> float:
    return float(_found(r"([\d.]+)", text)) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 60e3}[text.lstrip("0123456789.")]


def _ask_http(request: Request) -> list[float]:
    place = urlsplit(request.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    try:
        connection.request("POST", asked_for(place), request.body, {"Content-Type": request.content_type})
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"status {response.status}: {body[:200]!r}")
    numbers = _first_numbers(json.loads(body), len(request.expected))
    if numbers is None:
        raise WrongAnswer(f"{request.url}: want {len(request.expected)} numbers, got {body[:120]!r}")
    return numbers


def _first_numbers(value: Any, count: int) -> list[float] | None:
    """The first list of `count` numbers anywhere inside `value`."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return None
    if len(value) == count and all(isinstance(item, int | float) for item in value):
        return value
    return next((found for item in value if (found := _first_numbers(item, count)) is not None), None)


def _ask_grpc(request: Request) -> Sequence[float]:
    """The float32 numbers nearest to the expected ones, wherever the answer holds them (`float_val` is packed)."""
    import grpc

    with grpc.insecure_channel(urlsplit(request.url).netloc) as channel:
        predict: Callable[..., bytes] = channel.unary_unary(PREDICT)
        try:
            answer = predict(request.body, timeout=20)
        except grpc.RpcError as error:
            raise OSError(str(error)) from error
    windows = _float_windows(answer, len(request.expected))
    if not windows:
        raise WrongAnswer(f"{request.url}: want {len(request.expected)} floats, got {len(answer)} bytes")
    return min(windows, key=lambda numbers: math.dist(numbers, request.expected))


def _float_windows(data: bytes, count: int) -> list[tuple[float, ...]]:
    windows = (struct.unpack_from(f"<{count}f", data, at) for at in range(len(data) - 4 * count + 1))
    return [numbers for numbers in windows if all(map(math.isfinite, numbers))]
