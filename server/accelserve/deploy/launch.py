"""Starting a supervisor that outlives the terminal, and ending it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.descendants import MARK, kill_left
from accelserve.deploy.folder import ServiceFolder, folder_errors
from accelserve.deploy.logs import open_log, supervisor_log
from accelserve.deploy.ports import Ports
from accelserve.errors import Kind, ScoringError

_BEGINS_S = 120.0  # on a machine that is busy; one that dies is known at once
_ENDS_S = 30.0  # beyond the time that its replicas may take to drain
_LOOK_S = 0.05


def launch(folder: ServiceFolder, ports: Ports, environ: Mapping[str, str]) -> None:
    """Start the supervisor and wait until it supervises. It keeps the ports; those of this process may be closed.

    Raises ScoringError(CONFLICT) when there is one already, or when it does not come up.
    """
    with folder_errors(folder.path):
        folder.stop.unlink(missing_ok=True)
        log = open_log(supervisor_log(folder.log))
    reading, writing = os.pipe()
    descriptors = (ports.http.fileno(), ports.grpc.fileno(), writing)
    command = [sys.executable, "-m", "accelserve.deploy.supervise", str(folder.path), *map(str, descriptors)]
    with open(reading, "rb", buffering=0) as answers:
        try:
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                start_new_session=True,
                cwd="/",
                env=_environment(environ),
            )
        finally:
            os.close(writing)
            os.close(log)
        told = _read(answers.fileno())
    started.wait()  # the supervisor itself is its child
    if told != b"ok":
        why = told.decode(errors="replace") or f"it did not come up; see {supervisor_log(folder.log)}"
        raise ScoringError(Kind.CONFLICT, f'service "{folder.name}": {why}')


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For a process that works elsewhere, and is no replica's that its starter may be of."""
    environ = {name: value for name, value in environ.items() if name != MARK}
    places = environ.get("PYTHONPATH", "")
    absolute = os.pathsep.join(os.path.abspath(place) for place in places.split(os.pathsep) if place)
    return {**environ, "PYTHONPATH": absolute} if places else environ


def _read(descriptor: int) -> bytes:
    """All that is said on the pipe until it is closed or time is over."""
    os.set_blocking(descriptor, False)
    deadline = time.monotonic() + _BEGINS_S
    told = b""
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            part = os.read(descriptor, 65536)
            if not part:
                break
            told += part
            continue
        time.sleep(_LOOK_S)
    return told


def stop(folder: ServiceFolder) -> None:
    """Drain the replicas and end the supervisor; by force if it takes too long. Raises ScoringError."""
    if folder.supervisor() is not None:
        _end(folder)
    kill_left(folder.path)  # where a supervisor was killed, what scripts have started lives on


def _end(folder: ServiceFolder) -> None:
    try:
        folder.stop.touch(mode=0o600)
    except OSError:  # a full disk: who deletes may want to make room
        _send(folder, signal.SIGTERM)
    if _ended(folder, _drain_s(folder) + _ENDS_S):
        return
    _send(folder, signal.SIGKILL)
    if not _ended(folder, _ENDS_S):
        raise ScoringError(Kind.CONFLICT, f'service "{folder.name}": its supervisor does not end')


def _drain_s(folder: ServiceFolder) -> int:
    """Of its replicas; that of a plain model where the definition is damaged."""
    try:
        return folder.read()[1].drain_s
    except ScoringError:
        return ServiceDefinition(folder.name).drain_s


def _send(folder: ServiceFolder, number: int) -> None:
    """To the supervisor, if it lives and its process number is known."""
    if supervisor := folder.supervisor():
        with suppress(ProcessLookupError):
            os.kill(supervisor, number)


def _ended(folder: ServiceFolder, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while folder.supervisor() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True
