"""The original azureml-inference-server-http on loopback, in its own environment, ended by its pid."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

from server_process import wait_until

from azure_probes import PROBES, SCRIPTS, Outcome, Probe, ask

ROOT = Path(__file__).parents[2]
ORIGINAL_PYTHON = ROOT / ".venv-azml" / "bin" / "python"
# It binds every interface and has no option for it, so its constant is changed first.
_START = """
from azureml_inference_server_http import constants

constants.DEFAULT_HOST = "127.0.0.1"

from azureml_inference_server_http.amlserver import run

run()
"""


@contextmanager
def original_serving(
    python: Path, script: str, folder: Path, environ: Mapping[str, str], *arguments: object
) -> Iterator[int]:
    """Its port, once it answers. script: of SCRIPTS."""
    (folder / "score.py").write_text(SCRIPTS[script])
    (folder / "start.py").write_text(_START)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "start.py", "--entry_script", "score.py", "--port", str(port), *map(str, arguments)]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "original.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**own, **environ}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, 60)
        assert process.poll() is None, (folder / "original.log").read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(64).startswith(b"HTTP/1.1 200")
    return False


def by_server() -> Iterator[tuple[str, Mapping[str, str], list[Probe]]]:
    """Script, environment, and the probes for a server with these."""

    def kind(probe: Probe) -> tuple[str, list[tuple[str, str]]]:
        return probe.script, sorted(probe.environ.items())

    for (script, environ), probes in groupby(sorted(PROBES, key=kind), kind):
        yield script, dict(environ), list(probes)


def original_outcomes(python: Path, folder: Path) -> dict[str, Outcome]:
    """Its answer to every probe, by key."""
    outcomes = {}
    for number, (script, environ, probes) in enumerate(by_server()):
        place = folder / str(number)
        place.mkdir()
        with original_serving(python, script, place, environ) as port:
            for probe in probes:
                outcomes[probe.key] = ask(port, probe)
                print(probe.key, outcomes[probe.key].status, file=sys.stderr)
    return {probe.key: outcomes[probe.key] for probe in PROBES}
