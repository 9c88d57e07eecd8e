"""A real server in a process of its own: started by the command users type, ended by its pid."""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY = re.compile(r"ready: (?P<http>https?://\S+) \(HTTP\) (?P<grpc>\S+) \(gRPC(, TLS)?\)")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0


@dataclass(frozen=True)
class Server:
    """A ready server. http: "http://127.0.0.1:PORT"; grpc: "127.0.0.1:PORT"; log: its standard error so far.

    ready: the line that says so.
    """

    process: subprocess.Popen
    http: str
    grpc: str
    log: Path
    ready: str = ""

    @property
    def http_port(self) -> int:
        return int(self.http.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)


def start(arguments, log: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen:
    """`accelserve serve` on free ports, without a grace period unless the arguments say so."""
    command = [
        sys.executable,
        "-m",
        "accelserve",
        "serve",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--grace-period",
        "0",
    ]
    with log.open("wb") as errors:
        return subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment_of(environ),
        )


def environment_of(environ: Mapping[str, str] | None) -> dict[str, str]:
    """The test's own, and what is added to it."""
    return {**os.environ, **(environ or {})}


@contextmanager
def serving(*arguments, log: Path, environ: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that is ready; ended at the end, by force if need be."""
    process = start(arguments, log, environ)
    try:
        ready = line_of(process)
        found = READY.search(ready)
        assert found, f"the server did not get ready:\n{log.read_text()}"
        yield Server(process, found["http"], found["grpc"], log, ready)
    finally:
        end(process)


def line_of(process: subprocess.Popen, limit_s: float = START_LIMIT_S) -> str:
    """The next line of its standard output; "" when it ends first."""
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    assert selector.select(limit_s), "nothing printed in time"
    return process.stdout.readline()


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process.stdout.close()


def run_to_end(arguments, log: Path, environ: Mapping[str, str] | None = None) -> int:
    """The exit code of a server that is expected to give up by itself."""
    process = start(arguments, log, environ)
    try:
        return process.wait(START_LIMIT_S)
    finally:
        end(process)


def wait_until(condition, limit_s: float = 20.0):
    """Poll a condition; its first true value."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
    return value
