"""The promises of an image, each looked at in a real container."""

import json
import os
import signal
from collections import Counter
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Subject:
    """What an image is asked to serve. models: a folder that holds `model`. device: where it has to run.

    labels: of the ten pictures digit-0.jpg to digit-9.jpg in `pictures`. told: what the device is called in answers.
    absent: a device that is not here, and a word of what the refusal names.
    """

    models: Path
    model: str
    pictures: Path
    labels: tuple[str, ...]
    device: str
    told: str
    absent: tuple[str, str]

    def picture(self, digit: int) -> Path:
        return self.pictures / f"digit-{digit}.jpg"


def digits(builtin: Path) -> Subject:
    """The built-in model, on the CPU."""
    return Subject(builtin, "digits", builtin / "pictures", LABELS, "cpu", "cpu:0", ("gpu", "libcuda.so.1"))


class ImageChecks:
    """The promises of every image."""

    def __init__(self, place: Workplace, image: str, subject: Subject) -> None:
        self._place = place
        self._image = image
        self._subject = subject

    def run(self) -> None:
        self._a_hardened_container()
        self._any_user()
        self._a_killed_container()
        self._a_missing_device()
        self._what_is_inside()

    def _container(self, *options: str) -> Container:
        subject = self._subject
        environ = {"MODEL_NAME": subject.model, "ACCELSERVE_DEVICE": subject.device}
        return Container(self._place, self._image, subject.models, *options, environ=environ)

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
        subject = self._subject
        found = tuple(container.best_label(subject.picture(digit)) for digit in range(len(subject.labels)))
        require(found == subject.labels, f"{len(found)} JPEGs are scored right", found)
        _, headers, _ = container.exchange("POST", "/score", subject.picture(0).read_bytes())
        told = headers.get("x-accelserve-device")
        require(told == subject.told, f"an answer says where it was computed: {subject.told}", told)

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
        picture, label = self._subject.picture(digit).read_bytes(), self._subject.labels[digit]
        clients = [LoadClient(container.http_port, picture, label) for _ in range(_CLIENTS)]
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
            label = container.best_label(self._subject.picture(3))
            require(label == self._subject.labels[3], "it serves as any user", label)

    def _a_killed_container(self) -> None:
        options = (*HARDENED, "--restart=always")
        with step("killing it under a restart policy"), self._container(*options) as container:
            os.kill(int(container.state("State.Pid")), signal.SIGKILL)
            wait_until(lambda: container.state("RestartCount") == "1", "the container is started again")
            wait_until(container.is_ready, "it serves again")
            label = container.best_label(self._subject.picture(4))
            require(label == self._subject.labels[4], "it serves again after kill -9", label)

    def _a_missing_device(self) -> None:
        device, named = self._subject.absent
        with step(f"asking it for a {device} that it is not given"):
            code, said = run_to_end(
                self._place,
                self._image,
                *HARDENED,
                f"--volume={self._subject.models}:/models:ro",
                *(f"--env=MODEL_NAME={self._subject.model}", f"--env=ACCELSERVE_DEVICE={device}"),
                "--env=ACCELSERVE_HOST=127.0.0.1",
                *("--env=ACCELSERVE_HTTP_PORT=0", "--env=ACCELSERVE_GRPC_PORT=0"),
            )
            require(code == 6 and named in said, f"it ends with 6 and names what lacks ({named})", (code, said))
            tell(f"        {said.strip().splitlines()[-1]}")

    def _what_is_inside(self) -> None:
        with step("looking for what should not be in it"):
            pip = (*HARDENED, "--entrypoint=" + json.dumps(["pip", "--python", "/opt/venv/bin/python", "check"]))
            code, said = run_to_end(self._place, self._image, *pip)
            require(code == 0, "its packages agree with each other", said)
            shell = (*HARDENED, "--entrypoint=" + json.dumps(["sh", "-c", _INSIDE]))
            code, said = run_to_end(self._place, self._image, *shell)
            require((code, said.split()) == (0, ["0"]), "no compiler, and nothing of the build's pip settings", said)
