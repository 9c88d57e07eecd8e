"""azmlinfsrv in a process of its own, ours or the original, on loopback; ended by its pid."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server_process import Server, end, environment_of, line_of

READY = re.compile(r"is ready: (?P<http>https?://\S+) \(HTTP\)(?: (?P<health>https?://\S+) \(health\))?")


def start_azml(arguments, log: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen:
    """`accelserve azmlinfsrv` on a free port, without a grace period unless the arguments say so."""
    command = [sys.executable, "-m", "accelserve", "azmlinfsrv", "--port", "0", "--grace-period", "0"]
    with log.open("wb") as errors:
        return subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment_of(environ),
        )


@contextmanager
def azml_serving(
    script: Path, *arguments: object, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Ready; ended at the end, by force if need be. grpc: the separate health endpoint, "" without one."""
    process = start_azml(["--entry_script", script, *arguments], log, environ)
    try:
        ready = line_of(process)
        found = READY.search(ready)
        assert found, f"azmlinfsrv did not get ready:\n{log.read_text()}"
        yield Server(process, found["http"], found["health"] or "", log, ready)
    finally:
        end(process)
