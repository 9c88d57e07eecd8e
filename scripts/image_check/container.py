"""A container of the image: started on free ports of the loopback, asked over HTTP, looked into, ended."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from image_check.progress import CheckFailed
from image_check.workplace import Workplace

HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",  # podman would make /run and /var/tmp writable too
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=2g",
    "--pids-limit=200",
)
# Timed health checks are systemd's work, which a build machine may lack; they are asked for by hand.
_UNTIMED = "--health-interval=disable"
_PATIENCE_S = 60.0
_POLL_S = 0.05


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_until(condition: Callable[[], Any], wanted: str, limit_s: float = _PATIENCE_S) -> Any:
    """The condition's first true value. Raises CheckFailed naming what was wanted."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise CheckFailed(f"{wanted}: not within {limit_s:.0f} s")
        time.sleep(_POLL_S)
    return value


class Container:
    """`with Container(place, image, models) as container`: it is ready; removed at the end.

    models: a folder of the host, mounted read-only at /models; None for an image that holds its own. environ: over the
    image's own.
    """

    def __init__(
        self, place: Workplace, image: str, models: Path | None, *options: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.http_port, grpc_port = free_port(), free_port()
        self._place = place
        self._image = image
        here = {
            "ACCELSERVE_HOST": "127.0.0.1",
            "ACCELSERVE_HTTP_PORT": str(self.http_port),
            "ACCELSERVE_GRPC_PORT": str(grpc_port),
            **(environ or {}),
        }
        self._options = (
            *options,
            *(f"--env={name}={value}" for name, value in here.items()),
            *([f"--volume={models}:/models:ro"] if models is not None else []),
        )
        self._id = ""

    def __enter__(self) -> "Container":
        self._id = self._place.text("podman", "run", "--detach", _UNTIMED, *self._options, self._image)
        try:
            wait_until(self.is_ready, "the container serves")
        except CheckFailed as error:
            logs = self.logs()
            self.__exit__()
            raise CheckFailed(f"{error}; it said:\n{logs}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._place.run("podman", "rm", "--force", "--time=0", self._id, check=False)

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own; the status and the body."""
        status, _, answer = self.exchange(method, path, body)
        return status, answer

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """As `ask`, with the headers, whose names are in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=_PATIENCE_S)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def best_label(self, picture: Path) -> str:
        status, body = self.ask("POST", "/score?top=1", picture.read_bytes())
        return str(json.loads(body)[0]["label"]) if status == 200 else f"{status} {body!r}"

    def python(self, program: str) -> str:
        """What a program prints that this container's Python runs inside of it."""
        return self._place.text("podman", "exec", self._id, "python", "-c", program)

    def command(self, *words: str) -> str:
        return self._place.text("podman", "exec", self._id, *words)

    def health_check(self) -> int:
        return self._place.run("podman", "healthcheck", "run", self._id, check=False).returncode

    def state(self, field: str) -> str:
        return self._place.text("podman", "inspect", f"--format={{{{.{field}}}}}", self._id)

    def stop(self) -> int:
        """Ask it to end as a cluster would; its exit code."""
        self._place.run("podman", "stop", "--time=60", self._id)
        return int(self.state("State.ExitCode"))

    def logs(self) -> str:
        done = self._place.run("podman", "logs", self._id, check=False)
        return done.stdout + done.stderr


def run_to_end(place: Workplace, image: str, *options: str) -> tuple[int, str]:
    """The exit code of a container that ends by itself, and all that it said."""
    done = place.run("podman", "run", "--rm", "--no-healthcheck", *options, image, check=False)
    return done.returncode, done.stdout + done.stderr
