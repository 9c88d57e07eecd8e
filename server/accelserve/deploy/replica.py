"""A replica as a process: how it is started, asked and ended."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.descendants import MARK, family, kill_marked
from accelserve.deploy.processes import Report
from accelserve.deploy.serve_options import Place, serve_words
from accelserve.supervised import MOST_BYTES, Supervised

GRACE_S = 2  # after SIGTERM: clients that keep their connections are told to open others
# What a replica is told comes from the definition alone. These say where things of the machine are.
_KEPT = frozenset({"ACCELSERVE_LEASE_DIR", "ACCELSERVE_OPENVINO_PLUGINS"})
_TF_SERVINGS = frozenset({"MODEL_NAME", "MODEL_BASE_PATH"})
# Of azureml-inference-server-http, which scripts read too. A deploying shell may be within another service.
_AZURES = frozenset(
    {
        *("WORKSPACE_NAME", "SCORING_TIMEOUT_MS", "WORKER_COUNT", "WORKER_TIMEOUT", "WORKER_PRELOAD"),
        *("SEPERATE_HEALTH_ENDPOINT", "HEALTH_PORT", "SERVER_PORT", "SERVER_VERSION_LOG_RESPONSE_ENABLED"),
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
    }
)
_FOREIGN = ("AZUREML_", "AML_", "SERVICE_")


def environment(environ: Mapping[str, str], definition: ServiceDefinition) -> dict[str, str]:
    """A replica's: that of the supervisor without what would configure a server, and where its script is at home."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or not (name in _TF_SERVINGS | _AZURES or name.startswith(("ACCELSERVE_", *_FOREIGN)))
    }
    if not definition.entry_script:
        return kept
    return {**kept, "AML_APP_ROOT": definition.source_directory or str(Path(definition.entry_script).parent)}


def command(definition: ServiceDefinition, slot: int, keys: Path, supervised: Supervised) -> list[str]:
    """`accelserve serve` with all that it has to know; no secret is among it."""
    ours = ("--supervised", supervised, "--host", definition.host, "--grpc-port", definition.grpc_port)
    words = serve_words(definition, _here(definition, slot, keys))
    return [sys.executable, "-m", "accelserve", *words, *map(str, ours)]


def _here(d: ServiceDefinition, slot: int, keys: Path) -> Place:
    return Place(
        device=d.device_of(slot),
        grace_s=GRACE_S,
        keys=str(keys),
        tls_cert=d.tls_cert,
        tls_key=d.tls_key,
        model={"--store": d.store, "--model": d.reference},
        entry_script=d.entry_script,
        version_folder=str(Path(d.store, d.model, str(d.version))),
        files=d.model_files,
    )


def cores_of(definition: ServiceDefinition, slot: int, cores: Sequence[int]) -> set[int] | None:
    """The cores that a replica is bound to: whole ones, the next replica the next; None for no limit."""
    limit = definition.cpu_cores_limit
    if limit is None or math.ceil(limit) >= len(cores):
        return None
    count = math.ceil(limit)
    return {cores[(slot * count + at) % len(cores)] for at in range(count)}


class Replica:
    """A started process, and the supervisor's end of its line."""

    def __init__(self, process: "subprocess.Popen[bytes]", line: socket.socket, mark: str) -> None:
        """mark: what it and all that it starts carry."""
        self.process = process
        self.line = line
        self._mark = mark
        self.exits = os.pidfd_open(process.pid)  # readable when it has ended
        self.is_closed = False  # its end of the line

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self) -> None:
        with suppress(OSError):  # it is full of questions that were not answered, or gone
            self.line.send(b"?")

    def hear(self) -> Report | None:
        """What it has answered last; None when nothing that makes sense is there."""
        report = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            while answer := self.line.recv(MOST_BYTES):
                told = json.loads(answer)
                report = Report(bool(told["ready"]), str(told["reason"]), int(told["in_flight"]))
            self.is_closed = not answer
        return report

    def kill(self) -> None:
        """With all that it has started."""
        below = family(self.pid)[1:]
        self.process.kill()
        for number in below:
            with suppress(OSError):  # it has ended
                os.kill(number, signal.SIGKILL)
        kill_marked(self._mark)

    def close(self) -> int:
        """Once it has ended: so does all that it has left. Returns how: its exit code, or minus a signal's number."""
        kill_marked(self._mark)
        os.close(self.exits)
        self.line.close()
        return self.process.wait()


def start(
    definition: ServiceDefinition,
    slot: int,
    keys: Path,
    http: socket.socket,
    log: int,
    cores: Iterable[int] | None,
    mark: str,
) -> Replica:
    """From a single-threaded process, whose death kills it. mark: for what it starts. Raises OSError."""
    line, its_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its_line:
        line.setblocking(False)
        supervised = Supervised(its_line.fileno(), http.fileno(), os.getpid())
        try:
            process = subprocess.Popen(
                command(definition, slot, keys, supervised),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(its_line.fileno(), http.fileno()),
                cwd="/",
                env={**environment(os.environ, definition), MARK: mark},
            )
        except BaseException:
            line.close()
            raise
    try:
        if cores is not None:
            os.sched_setaffinity(process.pid, cores)
        return Replica(process, line, mark)
    except BaseException:  # it would serve on, known to nobody
        process.kill()
        process.wait()
        line.close()
        raise
