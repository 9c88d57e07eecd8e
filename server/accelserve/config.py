"""What the server is told to do: frozen values, and what in them contradicts itself.

`config_options.py` is the one table that they are built from, `config_sources.py` reads it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from accelserve.preprocessing import DEFAULT_MAX_PIXELS

_RUN_ENDS_S = 2  # after the scoring timeout: who does not heed it is killed a second later


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which of a model's versions are served: TF Serving's `model_version_policy`.

    latest: how many, the highest numbers; 0 with no `specific` for all. specific: these, as far as they are there.
    """

    latest: int = 1
    specific: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.specific:
            return ", ".join(map(str, self.specific))
        return f"latest:{self.latest}" if self.latest else "all"


ALL_VERSIONS = VersionPolicy(latest=0)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to serve.

    path: None for a model of the store. device, threads and instances: None leaves it to the model's own file, then
    to the server's.
    """

    name: str
    path: Path | None
    device: str | None = None
    threads: int | None = None
    instances: int | None = None
    versions: VersionPolicy = VersionPolicy()


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything `accelserve serve` can be told; see `config_options` for what each field means."""

    models: tuple[ModelConfig, ...] = ()
    host: str = "127.0.0.1"
    http_port: int = 8501
    grpc_port: int = 8500
    device: str = "auto"
    threads: int | None = None
    instances: int = 1
    default_model: str = ""
    service: str = ""
    store: str = ""
    poll_interval_s: float = 2.0
    reload_attempts: int = 5
    max_body_bytes: int = 64 * 2**20
    max_header_bytes: int = 32768
    max_pixels: int = DEFAULT_MAX_PIXELS
    grpc_max_message_bytes: int = -1
    read_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    decode_threads: int = 0
    jpeg_decoder: str = "cpu"
    grace_period_s: float = 5.0
    drain_timeout_s: float = 30.0
    auth_keys: str = ""
    auth_everywhere: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    strict: bool = False
    entry_script: str = ""
    workers: int = 1
    scoring_timeout_s: float = 60.0
    script_start_timeout_s: float = 300.0
    max_queue_ms: int | None = None
    max_concurrent: int | None = None
    legacy_tensorflow: bool = False
    model_files: tuple[tuple[str, str], ...] = ()
    script_nan: Literal["null", "NaN", "refuse"] = "null"
    log_format: str = "plain"
    log_level: str = "info"
    backends: tuple[str, ...] = ()
    lease_dir: str = ""


def drain_for_runs(scoring_timeout_s: float) -> float:
    """The drain timeout with an entry script: time for a run() that has just begun to end or be ended."""
    return max(ServerConfig().drain_timeout_s, math.ceil(scoring_timeout_s) + _RUN_ENDS_S)


def security_problems(config: ServerConfig) -> list[str]:
    """Options of keys and TLS that want each other."""
    problems = []
    if bool(config.tls_cert) != bool(config.tls_key):
        here, lacks = ("--tls-cert", "--tls-key") if config.tls_cert else ("--tls-key", "--tls-cert")
        problems.append(f"{here} without {lacks}: TLS wants both")
    if config.tls_client_ca and not (config.tls_cert or config.tls_key):
        problems.append("--tls-client-ca without --tls-cert and --tls-key: client certificates are a part of TLS")
    if config.auth_everywhere and not config.auth_keys:
        problems.append("--auth-everywhere without --auth-keys: there is no key to ask for")
    return problems
