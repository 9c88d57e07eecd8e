"""Where files are sent: an address and a key, and the way to it."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from accelserve.client import Client, GrpcClient
from accelserve.client.tls import ClientTls
from accelserve.config_sources import ConfigError
from accelserve.score_files.asking import Asker, Question
from accelserve.score_files.over_grpc import GrpcAsker
from accelserve.score_files.over_http import HttpAsker

KEY_VARIABLE = "ACCELSERVE_KEY"
_MOST_KEY_CHARACTERS = 4096
_ROUTE = "x-ms-aml-grpc-service-route"


@dataclass(frozen=True, slots=True)
class Target:
    """address: "http://host:port/prefix", without the last "/score"; of gRPC "host:port".

    service: its name, for gRPC's route header; "" where it is not known. tls: None for none over gRPC, and for the
    system's roots over https.
    """

    address: str
    grpc: bool = False
    key: str = field(default="", repr=False)
    service: str = ""
    tls: ClientTls | None = None

    def open(self, question: Question) -> Asker:
        """A connection of its own, made when it is used."""
        if self.grpc:
            routed = ((_ROUTE, f"/api/v1/service/{self.service}"),) if self.service else ()
            client = GrpcClient(self.address, metadata=routed, key=self.key, tls=self.tls)
            return GrpcAsker(client, self.address, question, time.perf_counter)
        http = Client(self.address, key=self.key, tls=self.tls)
        return HttpAsker(http, self.address, question, time.perf_counter)


def parse_address(url: str, grpc: bool) -> tuple[str, bool, bool]:
    """What a user types -> the address, whether it is gRPC's, and whether it says TLS. Raises ValueError.

    HTTP: the server's address, or the service's scoring address, which ends in /score. gRPC: HOST:PORT, grpc://HOST:PORT
    or, with TLS, grpcs://HOST:PORT.
    """
    if grpc or url.startswith(("grpc://", "grpcs://")):
        rest = url.removeprefix("grpc://").removeprefix("grpcs://").rstrip("/")
        parts = urlsplit(f"//{rest}")
        if "://" in rest or not parts.hostname or _port(f"//{rest}") is None or parts.path:
            raise ValueError("want HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT for gRPC")
        return rest, True, url.startswith("grpcs://")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("want an address like http://127.0.0.1:8501 or http://HOST/api/v1/service/NAME/score")
    if parts.username is not None:
        raise ValueError("a key does not belong into an address, which others can see: use --key-file")
    _port(url)
    return url.rstrip("/").removesuffix("/score"), False, parts.scheme == "https"


def _port(url: str) -> int | None:
    """Raises ValueError."""
    try:
        return urlsplit(url).port
    except ValueError as error:
        raise ValueError("the port is no number from 0 to 65535") from error


def checked_tls(roots: Path | None, cert: Path | None, key: Path | None) -> ClientTls:
    """Raises ConfigError for files that cannot be used."""
    if (cert is None) != (key is None):
        raise ConfigError(["--tls-cert and --tls-key: want both or none"])
    tls = ClientTls(roots, cert, key)
    try:
        tls.context()
    except OSError as error:  # ssl.SSLError too
        given = {"--tls-roots": roots, "--tls-cert": cert, "--tls-key": key}
        files = ", ".join(f"{flag} {path}" for flag, path in given.items() if path is not None)
        raise ConfigError([f"{files}: {error.strerror or error}; want PEM files"]) from error
    return tls


def read_key(path: Path | None, environ: Mapping[str, str]) -> str:
    """The key to show, "" for none: of a file, else of the environment. Raises ConfigError, which never tells it.

    The file holds the key alone, or is a service's keys.json, of which the primary key is taken.
    """
    if path is None:
        return _checked(environ.get(KEY_VARIABLE, ""), KEY_VARIABLE)
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            text = json.loads(text)["primary"]
    except OSError as error:
        # The name is not told: somebody may have typed the key itself.
        raise ConfigError([f"--key-file wants a file that holds the key: {error.strerror}"]) from error
    except (ValueError, KeyError, RecursionError):
        raise ConfigError([f"--key-file {path}: neither a key nor a service's keys.json"]) from None
    key = _checked(text, f"--key-file {path}")
    if not key:
        raise ConfigError([f"--key-file {path}: it holds no key"])
    return key


def _checked(text: object, source: str) -> str:
    key = text.strip() if isinstance(text, str) else "\n"
    if len(key) > _MOST_KEY_CHARACTERS or not all("!" <= letter <= "~" for letter in key):
        raise ConfigError([f"{source}: no key: want one line of visible ASCII characters without spaces"])
    return key
