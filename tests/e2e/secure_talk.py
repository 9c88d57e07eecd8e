"""A server with keys and TLS, and clients that speak to it as any would."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from server_process import Server, serving
from talk import PATIENCE_S, Connection

from accelserve.client import ClientTls
from accelserve.keys import Keys, write_keys
from certificates import Pair, authority, signed
from model_builders import synthetic_model

DOUBLE = 'behaviour = "double"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, {columns}]\noutput = "y"\n'
PREDICT = "/v1/models/m:predict"
KEYS = Keys("primary-primary-primary", "secondary-secondary-secondary")


def bearer(key: str = KEYS.primary) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def double(folder: Path, settings: str = "", columns: int = 2) -> Path:
    return synthetic_model(folder / "m.synthetic.toml", DOUBLE.format(settings=settings, columns=columns))


@dataclass(frozen=True)
class Files:
    """Of a server: its keys, its certificate, and who signed that."""

    keys: Path
    pair: Pair
    ca: Pair

    @property
    def tls(self) -> ClientTls:
        return ClientTls(roots=self.ca.cert)


def make_files(folder: Path) -> Files:
    write_keys(folder / "keys.json", KEYS)
    ca = authority(folder)
    return Files(folder / "keys.json", signed(ca, folder), ca)


@contextmanager
def secure_server(
    folder: Path, files: Files, *arguments: object, settings: str = "", columns: int = 2
) -> Iterator[Server]:
    """With model m, which doubles."""
    secured = ("--auth-keys", files.keys, "--tls-cert", files.pair.cert, "--tls-key", files.pair.key)
    path = double(folder, settings, columns)
    with serving(f"--model=m={path}", *secured, *arguments, log=folder / "log") as server:
        yield server


class SecureConnection(Connection):
    """Over TLS."""

    def __init__(self, server: Server, tls: ClientTls) -> None:
        plain = socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S)
        self.socket: ssl.SSLSocket = tls.context().wrap_socket(plain, server_hostname="localhost")
        self._file = self.socket.makefile("rb")

    @property
    def server_name(self) -> str:
        """What the server's certificate calls it."""
        return dict(pair[0] for pair in self.socket.getpeercert()["subject"])["commonName"]


@contextmanager
def secure_channel(server: Server, tls: ClientTls) -> Iterator[grpc.Channel]:
    with grpc.secure_channel(server.grpc, tls.grpc_credentials()) as channel:
        yield channel
