"""The promises of an image, each looked at in a real container."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

from image_check.container import HARDENED, Container, run_to_end, wait_until
from image_check.load import ANSWERED, FINE, LoadClient
from image_check.progress import require, step, tell
from image_check.workplace import Workplace

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ANY_UID = 1234560000  # as OpenShift chooses them
_CLIENTS = 8
_WRITE = """
import os
def attempt(folder):
    try:
        open(os.path.join(folder, "attempt"), "w").close()
    except OSError as error:
        return type(error).__name__ if error.errno != 30 else "read-only"
    return "written"
print(*map(attempt, ("/", "/etc", "/opt/venv", "/var/tmp", "/models", "/tmp")))
"""
_COMPILED = """
import sys, os
import accelserve.cli, accelserve.commands.serve, accelserve.runtime, accelserve.backends.onnx_runtime.backend
cached = [m.__cached__ for m in list(sys.modules.values()) if getattr(m, "__cached__", None)]
print(len(cached), [path for path in cached if not os.path.exists(path)])
"""
_INSIDE = """
set -e
wc -c < /etc/pip.conf 2>/dev/null || echo 0
command -v cc gcc g++ make || true
"""


class ImageChecks:
    """models: holds `digits`; pictures: digit-0.jpg to digit-9.jpg."""

    def __init__(self, place: Workplace, image: str, models: Path, pictures: Path) -> None:
        self._place = place
        self._image = image
        self._models = models
        self._pictures = pictures

    def run(self) -> None:
        self._a_hardened_container()
        self._any_user()
        self._a_killed_container()
        self._a_missing_gpu()
        self._what_is_inside()

    def _container(self, *options: str) -> Container:
        return Container(self._place, self._image, self._models, *options, environ={"MODEL_NAME": "digits"})

    def _a_hardened_container(self) -> None:
        with step(f"running it with {' '.join(HARDENED)}"), self._container(*HARDENED) as container:
            self._privileges(container)
            code = container.health_check()
            require(code == 0, "the health check says 0", code)
            self._pictures_are_scored(container)
            self._devices(container)
            self._bytecode(container)
            self._a_stop_under_load(container)

    def _privileges(self, container: Container) -> None:
        ids = container.python("import os; print(os.getuid(), os.getgid())")
        require(ids == "10001 0", "it runs as user 10001 of group 0", ids)
        status = dict(line.split(":\t", 1) for line in container.command("cat", "/proc/1/status").splitlines())
        first = status["Name"]
        require(first == "tini", "its first process is tini", first)
        held = (int(status["CapEff"], 16), status["NoNewPrivs"], status["Seccomp"])
        require(held == (0, "1", "2"), "it has no capabilities, can gain none, and its system calls are filtered", held)
        written = container.python(_WRITE)
        wanted = "read-only read-only read-only read-only read-only written"
        require(written == wanted, "nothing but /tmp can be written", written)

    def _pictures_are_scored(self, container: Container) -> None:
        found = tuple(container.best_label(self._picture(digit)) for digit in range(len(LABELS)))
        require(found == LABELS, f"{len(LABELS)} JPEGs are scored right", found)

    def _picture(self, digit: int) -> Path:
        return self._pictures / f"digit-{digit}.jpg"

    def _devices(self, container: Container) -> None:
        text = container.command("accelserve", "devices")
        require(
            "cpu:0" in text and "no gpu" in text, "`accelserve devices` names the CPU, and why there is no GPU", text
        )
        for line in text.splitlines():
            tell(f"        {line}")

    def _bytecode(self, container: Container) -> None:
        count, _, missing = container.python(_COMPILED).partition(" ")
        require(missing == "[]", f"all {count} modules that it loads are compiled", missing)

    def _a_stop_under_load(self, container: Container) -> None:
        digit = 7
        picture = self._picture(digit).read_bytes()
        clients = [LoadClient(container.http_port, picture, LABELS[digit]) for _ in range(_CLIENTS)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.answered > 20 for client in clients), "the clients are answered")
        code = container.stop()
        outcomes = sum((client.outcomes() for client in clients), Counter())
        told = f"SIGTERM under load of {_CLIENTS} clients: exit code 0, {outcomes[ANSWERED]} answered, none lost"
        require(code == 0 and outcomes.keys() <= FINE, told, (code, dict(outcomes), container.logs().splitlines()[-5:]))

    def _any_user(self) -> None:
        options = (*HARDENED, f"--user={_ANY_UID}:0")
        with step(f"running it as user {_ANY_UID} of group 0"), self._container(*options) as container:
            label = container.best_label(self._picture(3))
            require(label == "three", "it serves as any user", label)

    def _a_killed_container(self) -> None:
        options = (*HARDENED, "--restart=always")
        with step("killing it under a restart policy"), self._container(*options) as container:
            os.kill(int(container.state("State.Pid")), signal.SIGKILL)
            wait_until(lambda: container.state("RestartCount") == "1", "the container is started again")
            wait_until(container.is_ready, "it serves again")
            label = container.best_label(self._picture(4))
            require(label == "four", "it serves again after kill -9", label)

    def _a_missing_gpu(self) -> None:
        with step("asking it for a GPU that it is not given"):
            code, said = run_to_end(
                self._place,
                self._image,
                *HARDENED,
                f"--volume={self._models}:/models:ro",
                *("--env=MODEL_NAME=digits", "--env=ACCELSERVE_DEVICE=gpu", "--env=ACCELSERVE_HOST=127.0.0.1"),
                *("--env=ACCELSERVE_HTTP_PORT=0", "--env=ACCELSERVE_GRPC_PORT=0"),
            )
            require(code == 6 and "libcuda.so.1" in said, "it ends with 6 and names the driver's library", (code, said))
            tell(f"        {said.strip().splitlines()[-1]}")

    def _what_is_inside(self) -> None:
        with step("looking for what should not be in it"):
            pip = (*HARDENED, "--entrypoint=" + json.dumps(["pip", "--python", "/opt/venv/bin/python", "check"]))
            code, said = run_to_end(self._place, self._image, *pip)
            require(code == 0, "its packages agree with each other", said)
            shell = (*HARDENED, "--entrypoint=" + json.dumps(["sh", "-c", _INSIDE]))
            code, said = run_to_end(self._place, self._image, *shell)
            require((code, said.split()) == (0, ["0"]), "no compiler, and nothing of the build's pip settings", said)
