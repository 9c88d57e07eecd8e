"""The one table of options: each row has three spellings and is a field of `ServerConfig`.

The command line (`--http-port`), the environment (`ACCELSERVE_HTTP_PORT`) and the file (`http_port = 8501`) are read by
`config_sources.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelserve.config import ServerConfig
from accelserve.config_parsers import (
    one_of,
    parse_attempts,
    parse_backends,
    parse_bytes,
    parse_concurrent,
    parse_decode_threads,
    parse_device,
    parse_file,
    parse_flag,
    parse_folder,
    parse_host,
    parse_instances,
    parse_jpeg_decoder,
    parse_message_bytes,
    parse_model_files,
    parse_patience,
    parse_pixels,
    parse_port,
    parse_queue_ms,
    parse_seconds,
    parse_service,
    parse_threads,
    parse_workers,
)

BACKENDS_HELP = "plug-ins of other packages that may run (default: none; `accelserve devices` names those installed)"
ENV_PREFIX = "ACCELSERVE_"


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table. name: field of ServerConfig; parse: raises ValueError with what is wanted."""

    name: str
    parse: Callable[[str], Any]
    metavar: str
    help: str

    @property
    def is_text(self) -> bool:
        """Whether the file must say it in quotes."""
        return isinstance(getattr(ServerConfig(), self.name), str)

    @property
    def flag(self) -> str:
        """`--http-port`; a unit in the field's name (_s) is left out of the flag."""
        return "--" + self.key.replace("_", "-")

    @property
    def key(self) -> str:
        return self.name.removesuffix("_s")

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.key.upper()

    @property
    def is_switch(self) -> bool:
        return self.parse is parse_flag


OPTIONS: tuple[Option, ...] = (
    Option("host", parse_host, "ADDRESS", "address to listen on; 0.0.0.0 for all"),
    Option("http_port", parse_port, "PORT", "HTTP port; 0 takes a free one"),
    Option("grpc_port", parse_port, "PORT", "gRPC port; 0 takes a free one"),
    Option("device", parse_device, "DEVICE", "auto, cpu, gpu[:N[,M]], fpga[:ID], fpga-emulator; all but auto required"),
    Option("threads", parse_threads, "N", "CPU threads of each model's session (default: the back end's choice)"),
    Option("instances", parse_instances, "N", "sessions of a model on each of its devices; the least busy runs"),
    Option(
        "store",
        parse_folder,
        "DIR",
        "serve the models registered in this store, and follow it; without DIR the one of `register`",
    ),
    Option("poll_interval_s", parse_seconds, "SECONDS", "how often to look for new and removed versions; 0: never"),
    Option(
        "reload_attempts",
        parse_attempts,
        "N",
        "failed reloads after a lost device until it counts as gone, and the process ends if nothing else is served",
    ),
    Option("default_model", str, "NAME", "model for requests that name none (default: the only one)"),
    Option(
        "service",
        parse_service,
        "NAME",
        "the service's name: /api/v1/service/NAME/... means the default model then (default: only a model's name does)",
    ),
    Option("max_body_bytes", parse_bytes, "BYTES", "largest HTTP body; more is refused with 413 at the header"),
    Option("max_header_bytes", parse_bytes, "BYTES", "largest HTTP header block; more is refused with 431"),
    Option("max_pixels", parse_pixels, "PIXELS", "largest picture, in pixels; more is refused (decompression bombs)"),
    Option("grpc_max_message_bytes", parse_message_bytes, "BYTES", "largest gRPC message (default: no limit)"),
    Option("read_timeout_s", parse_patience, "SECONDS", "silence allowed while a request is being sent"),
    Option("keep_alive_s", parse_seconds, "SECONDS", "how long an idle HTTP connection is kept"),
    Option(
        "decode_threads",
        parse_decode_threads,
        "N",
        "threads that decode pictures (default 0: usable cores - 1, at least 1)",
    ),
    Option(
        "jpeg_decoder",
        parse_jpeg_decoder,
        "DEVICE",
        "what decodes JPEGs: cpu, or gpu[:N] through nvImageCodec, required",
    ),
    Option(
        "auth_keys",
        parse_file,
        "FILE",
        'who asks needs one of these keys: {"primary": KEY, "secondary": KEY}; a changed file is read again',
    ),
    Option("auth_everywhere", parse_flag, "", "ask for a key on /healthz, /readyz, /metrics and gRPC health too"),
    Option(
        "tls_cert",
        parse_file,
        "FILE",
        "PEM with the certificate and its chain: TLS on HTTP and gRPC; a changed file is read again",
    ),
    Option("tls_key", parse_file, "FILE", "PEM with the certificate's private key"),
    Option("tls_client_ca", parse_file, "FILE", "PEM: clients must have a certificate that one of these has signed"),
    Option("grace_period_s", parse_seconds, "SECONDS", "after SIGTERM: how long to keep answering, readiness off"),
    Option(
        "drain_timeout_s",
        parse_seconds,
        "SECONDS",
        "after the grace period: how long accepted requests may take (default: 30, with an entry script at least 2 more"
        " than its scoring timeout)",
    ),
    Option(
        "strict",
        parse_flag,
        "",
        "exit as soon as one model fails to load, and do not start with keys that every user of the machine can read",
    ),
    Option(
        "entry_script",
        parse_file,
        "FILE",
        "Python file with init() and run(): /score is answered by it, in processes of its own",
    ),
    Option("workers", parse_workers, "N", "processes that run the entry script"),
    Option("scoring_timeout_s", parse_patience, "SECONDS", "longest run() of the entry script; 504 after that"),
    Option("script_start_timeout_s", parse_patience, "SECONDS", "longest start of the entry script, init() included"),
    Option(
        "max_queue_ms",
        parse_queue_ms,
        "MILLISECONDS",
        "longest wait of a request for a worker of the entry script; 503 after that (default: no limit)",
    ),
    Option(
        "max_concurrent",
        parse_concurrent,
        "N",
        "requests of the entry script that may run and wait at once; 503 beyond (default: 1024 waiting)",
    ),
    Option(
        "legacy_tensorflow",
        parse_flag,
        "",
        "for entry scripts of 2019: tensorflow is TensorFlow 1, ujson takes arrays, outputs have a fixed order",
    ),
    Option(
        "model_files",
        parse_model_files,
        "NAME=PATH",
        "what the entry script's get_model_path finds, beside the models served; may be repeated",
    ),
    Option(
        "script_nan",
        one_of("null", "NaN", "refuse"),
        "WORD",
        "what run() returns of NaN and infinities: null, NaN (no JSON), or refuse: 500",
    ),
    Option("backends", parse_backends, "NAME[,NAME]", BACKENDS_HELP),
    Option(
        "lease_dir",
        parse_folder,
        "DIR",
        "who holds which exclusive device; to be shared by all who can reach one (default: in the user's cache)",
    ),
    Option("log_format", one_of("plain", "json"), "FORMAT", "plain or json"),
    Option("log_level", one_of("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error"),
)
