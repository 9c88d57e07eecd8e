"""What the benchmarks share: servers started and ended by process id, what /proc says of them."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.load import Load, Request, drive, pinned
from benchmarks.processes import ProcessTree, children_s, machine_busy_s

ROOT = Path(__file__).resolve().parents[1]
START_S = 60.0
STOP_S = 6.0


class ServerFailed(Exception):
    """The server did not start, or ended."""


def two_cores() -> tuple[int, int]:
    """(for the server, for the load)"""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("The benchmarks need two cores, one for the server and one for the load.")
    return cores[0], cores[1]


def end_cleanly(limit_s: int) -> None:
    """Turn SIGTERM and the time limit into SystemExit, so that every server is ended on the way out."""

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        sys.exit(f"ended after {limit_s} s" if number == signal.SIGALRM else 128 + number)

    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, leave)
    signal.alarm(limit_s)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def accelserve_command(
    models: dict[str, Path], http_port: int, grpc_port: int, options: Sequence[str] = ("--threads", "1")
) -> list[str]:
    """Our server on 127.0.0.1; where nothing else is said, with one thread for each model."""
    served = [word for name, path in models.items() for word in ("--model", f"{name}={path}")]
    ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    return [sys.executable, "-m", "accelserve", "serve", *served, *ports, *options, "--grace-period", "0"]


def module_command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


class Server:
    """A process pinned to a core, or "0,2", and all that it starts; a failure shows what it wrote, from a file."""

    def __init__(
        self, name: str, command: list[str], cores: int | str, env: Mapping[str, str] | None = None, folder: Path = ROOT
    ) -> None:
        self.name = name
        self._cores = cores
        self._command = pinned(cores, command)
        self._env = {**os.environ, **(env or {})}
        self._folder = folder

    def __enter__(self) -> "Server":
        self._log = tempfile.NamedTemporaryFile()
        self._folder.mkdir(parents=True, exist_ok=True)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, cwd=self._folder, env=self._env,
            start_new_session=True,
        )  # fmt: skip
        self.tree = ProcessTree(self.process.pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end()
        self._log.close()

    def end(self) -> None:
        """End it; nothing happens if it has ended."""
        if self.process.poll() is None:
            self.tree.stop(STOP_S)
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for(self, requests: Iterable[Request], poll_s: float = 0.2, limit_s: float = START_S) -> float:
        """Ask until all are answered rightly; returns the seconds since the start. Raises ServerFailed, WrongAnswer."""
        for request in requests:
            why: OSError | None = None
            while time.perf_counter() - self.started < limit_s:
                if self.process.poll() is not None:
                    raise ServerFailed(f"{self.name} ended with {self.process.returncode}: {self.words()}")
                try:
                    request.check()
                    break
                except OSError as error:
                    why = error
                    time.sleep(poll_s)
            else:
                raise ServerFailed(f"{self.name} gave no answer in {limit_s:g} s ({why}): {self.words()}")
        return time.perf_counter() - self.started

    def words(self) -> str:
        """The end of what it wrote."""
        return Path(self._log.name).read_text(errors="replace")[-1500:]

    def pin(self) -> None:
        """Bind the threads that chose other cores since the start."""
        self.tree.pin({int(core) for core in str(self._cores).split(",")})


@dataclass(frozen=True, slots=True)
class Point:
    """One server under one load. cpu_us: of the server, per answer; foreign_cpus: what neither it nor the load used."""

    cpu_us: float
    load: Load
    foreign_cpus: float


def measure(
    server: Server,
    request: Request,
    clients: int,
    seconds: float,
    core: int,
    warm_up_s: float = 1,
    patient: bool = False,
) -> Point:
    """Warm up, check the answer, measure, check it again."""
    drive(request, clients, warm_up_s, core, patient)
    return measured(server, request, lambda: drive(request, clients, seconds, core, patient))


def measured(server: Server, request: Request, load: Callable[[], Load]) -> Point:
    """Check the answer, measure under the load, check it again."""
    request.check()
    began, cpu, busy, generator = time.perf_counter(), server.tree.cpu_s(), machine_busy_s(), children_s()
    seen = load()
    wall, cpu = time.perf_counter() - began, server.tree.cpu_s() - cpu
    foreign = (machine_busy_s() - busy - cpu - (children_s() - generator)) / wall
    request.check()
    return Point(cpu / max(seen.answered, 1) * 1e6, seen, round(max(0.0, foreign), 3))


def rotated(names: list[str], by: int) -> list[str]:
    """Another one begins each round, so that none always comes after the same neighbour."""
    start = by % len(names)
    return names[start:] + names[:start]


def flat(point: Point) -> dict[str, Any]:
    return {"cpu_us": point.cpu_us, **asdict(point.load), "foreign_cpus": point.foreign_cpus}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
