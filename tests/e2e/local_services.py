"""Services on this machine, deployed by the commands that users type; and clients that behave well."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from hammering import Client, over_grpc
from server_process import wait_until
from talk import Calls, instances

from accelserve.cli import main
from accelserve.models.store import ModelStore
from model_builders import synthetic_model

PATIENCE_S = 30.0
SPEC = 'behaviour = "{behaviour}"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'


@dataclass
class Shop:
    """A store and a services folder of our own. capsys: takes what the commands print."""

    folder: Path
    capsys: Any

    @property
    def services(self) -> Path:
        return self.folder / "services"

    def register(self, behaviour: str = "echo", settings: str = "", name: str = "m") -> int:
        """The next version of a model that answers with its input times 1 (echo) or 2 (double)."""
        source = self.folder / "sources" / f"{name}.synthetic.toml"
        text = SPEC.format(behaviour=behaviour, settings=settings)
        return ModelStore(self.folder / "store").register(name, synthetic_model(source, text)).version

    def type(self, line: str, code: int = 0) -> str:
        """What a command prints, of both streams; it has to end with `code`."""
        ended = main(line.split())
        said = self.capsys.readouterr()
        assert ended == code, f"{line}: {ended}\n{said.out}{said.err}"
        return said.out + said.err

    def deploy(self, name: str, *options: str) -> "Service":
        self.type(" ".join(("deploy", name, "--auth none --wait --timeout 60", *options)))
        return Service(self, name)


@dataclass
class Service:
    """A deployed one."""

    shop: Shop
    name: str

    @property
    def folder(self) -> Path:
        return self.shop.services / self.name

    @property
    def status(self) -> dict[str, Any]:
        return json.loads(self.shop.type(f"services status {self.name} --json"))

    @property
    def state(self) -> str:
        return str(self.status["state"])

    @property
    def replicas(self) -> list[int]:
        """Their process numbers, by slot."""
        return [replica["pid"] for replica in self.status["replicas"]]

    @property
    def address(self) -> SimpleNamespace:
        """What the helpers for a server take."""
        status = self.status
        port = status["definition"]["http_port"]
        return SimpleNamespace(http=f"http://127.0.0.1:{port}", http_port=port, grpc=status["grpc"])

    def becomes(self, state: str) -> None:
        wait_until(lambda: self.state == state, 40)


@contextmanager
def shop(folder: Path, monkeypatch: Any, capsys: Any) -> Iterator[Shop]:
    """At the end all services are deleted, and nothing of them may be left."""
    monkeypatch.setenv("ACCELSERVE_STORE", str(folder / "store"))
    monkeypatch.setenv("ACCELSERVE_SERVICES", str(folder / "services"))
    opened = Shop(folder, capsys)
    try:
        yield opened
    finally:
        names = [path.name for path in opened.services.glob("*")] if opened.services.is_dir() else []
        for name in names:
            main(["services", "delete", name])
        assert processes_of(opened.services) == []
        assert not opened.services.is_dir() or os.listdir(opened.services) == []


def processes_of(services: Path) -> list[int]:
    """Supervisors of the folder's services, by their command lines."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"accelserve.deploy.supervise" in words and any(str(services).encode() in word for word in words):
            found.append(int(place.name))
    return found


def is_running(pid: int) -> bool:
    """Zombies are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def over_kept_http(service: Service) -> Client:
    """Keeps its connection as long as the server does not say that it closes it, as HTTP has it."""
    connection = HTTPConnection("127.0.0.1", service.address.http_port, timeout=PATIENCE_S)

    def ask_once(number: float) -> tuple[int, float]:
        return _predict(connection, number)

    return Client(ask_once, connection.close)


def over_new_http(service: Service) -> Client:
    """A connection for each request."""
    port = service.address.http_port

    def ask_once(number: float) -> tuple[int, float]:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            return _predict(connection, number)
        finally:
            connection.close()

    return Client(ask_once)


def over_patient_grpc(calls: Calls) -> Client:
    """Asks again as the accel clients do. A call that comes while a connection is being closed may be cancelled."""
    once = over_grpc(calls)

    def ask_once(number: float) -> tuple[int, float]:
        try:
            return once.ask_once(number)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
                raise
            return once.ask_once(number)

    return Client(ask_once)


def _predict(connection: HTTPConnection, number: float) -> tuple[int, float]:
    connection.request("POST", "/v1/models/m:predict", instances((number, number)))
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    version = int((answer.getheader("x-accelserve-model") or "").removeprefix("m:"))
    return version, json.loads(body)["predictions"][0][0]


def faults_of(clients: Sequence[Client]) -> list[str]:
    return [fault for client in clients for fault in client.faults]
