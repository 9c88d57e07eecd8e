"""What the server is told to do: one frozen value, and the one table of options that it is built from.

The command line (`--http-port`), the environment (`ACCELSERVE_HTTP_PORT`) and the file (`http_port = 8501`) are three
spellings of a row of `OPTIONS`; `config_sources.py` reads them.
"""

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelserve.devices import DEVICE_FORMS, DeviceKind, parse_device_request
from accelserve.errors import ScoringError
from accelserve.preprocessing import DEFAULT_MAX_PIXELS

BACKENDS_HELP = "plug-ins of other packages that may run (default: none; `accelserve devices` names those installed)"
ENV_PREFIX = "ACCELSERVE_"
_RUN_ENDS_S = 2  # after the scoring timeout: who does not heed it is killed a second later
_YEAR_S = 365 * 86400.0
_MOST_MESSAGE_BYTES = 2**31 - 1
_VERSIONS = 10**18  # as many digits as a version folder's name may have


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
    """Everything `accelserve serve` can be told; see `OPTIONS` for what each field means."""

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


def _whole(least: int, most: int, wanted: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # also for thousands of digits, which Python refuses to read
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"want {wanted}")
        return number

    return parse


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= _YEAR_S:
        raise ValueError("want a number of seconds from 0 to 31536000 (a year)")
    return number


def _patience(text: str) -> float:
    """Seconds that are never 0: nobody can be waited for without waiting."""
    seconds = _seconds(text)
    if not seconds:
        raise ValueError("want a number of seconds above 0")
    return seconds


def parse_bytes(text: str) -> int:
    """`64MiB`, `64M`, `67108864` -> bytes. Units are powers of 1024."""
    found = re.fullmatch(r"([0-9]{1,15})\s*([kmg]?)(i?b)?", str(text).strip(), re.IGNORECASE)
    if not found or not (number := int(found[1])):
        raise ValueError("want a number of bytes above 0, such as 67108864 or 64MiB")
    return number * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[found[2].lower()]


def _message_bytes(text: str) -> int:
    number = parse_bytes(text)
    if number > _MOST_MESSAGE_BYTES:
        raise ValueError("want at most 2147483647 bytes, which is all that gRPC can count; leave it out for no limit")
    return number


def parse_device(text: str) -> str:
    """A device request that is well-formed; whether the device is here is the back ends' to say. Raises ValueError."""
    try:
        return str(parse_device_request(text))
    except ScoringError as error:
        raise ValueError(f"want {DEVICE_FORMS}") from error


def _jpeg_decoder(text: str) -> str:
    """`cpu`, or one GPU, which is then required; `gpu` is the first."""
    try:
        request = parse_device_request(text)
    except ScoringError:
        request = None
    one_gpu = request is not None and request.kind is DeviceKind.GPU and len(request.ids) <= 1
    if request is None or not (one_gpu or request.kind is DeviceKind.CPU):
        raise ValueError("want cpu, gpu or gpu:N")
    return str(request)


def _host(text: str) -> str:
    try:
        fits = bool(text.encode("idna")) and not re.search(r"[\s\0]", text)  # as a socket will encode it
    except UnicodeError:
        fits = False
    if not fits:
        raise ValueError("want an address or a host's name, such as 127.0.0.1 or 0.0.0.0")
    return text


def _service(text: str) -> str:
    """What can stand in a path and in gRPC metadata as it is."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,255}", text):
        raise ValueError("want letters, digits, . _ -")
    return text


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("want true or false")


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"want one of {', '.join(words)}")
        return text.lower()

    return parse


def _script_nan(text: str) -> str:
    found = {word.lower(): word for word in ("null", "NaN", "refuse")}.get(text.lower())
    if found is None:
        raise ValueError("want null, NaN or refuse")
    return found


def parse_versions(value: Any) -> VersionPolicy:
    """`latest`, `latest:2`, `all`, or a list of numbers (also a text of one number). Raises ValueError."""
    numbers = [int(value)] if _is_version(value) else value
    if isinstance(numbers, list) and numbers and all(type(n) is int and 0 <= n < _VERSIONS for n in numbers):
        return VersionPolicy(specific=tuple(sorted(set(numbers))))
    if value == "all":
        return ALL_VERSIONS
    word, colon, count = value.partition(":") if isinstance(value, str) else ("", "", "")
    if word == "latest" and (not colon or (_is_version(count) and int(count))):
        return VersionPolicy(int(count) if colon else 1)
    raise ValueError('want "latest", "latest:N", "all" or a list of version numbers such as [1, 3]')


def _is_version(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9]{1,18}", text) is not None


def _folder(text: str) -> str:
    try:
        if text and "\0" not in text:
            return str(Path(text).expanduser())
    except RuntimeError:  # ~ of nobody
        pass
    raise ValueError("want a folder")


def _file(text: str) -> str:
    try:
        if text and "\0" not in text:
            return str(Path(text).expanduser())
    except RuntimeError:  # ~ of nobody
        pass
    raise ValueError("want a file")


def parse_model_files(text: str) -> tuple[tuple[str, str], ...]:
    """`a=/files/a b=/files/b`, quoted as in a shell -> (name, path) of each. Raises ValueError."""
    pairs = [word.partition("=") for word in shlex.split(text)]
    if not all(name and path for name, _, path in pairs):
        raise ValueError("want NAME=PATH, for example mnist=models/mnist")
    return tuple([(name, _file(path)) for name, _, path in pairs])


def _file_path(text: str) -> str:
    try:
        return _folder(text)
    except ValueError:
        raise ValueError("want a file's path") from None


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


def parse_backends(text: str) -> tuple[str, ...]:
    """`npu,tiny`: names of plug-ins; "" is none. Raises ValueError."""
    names = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if not all(re.fullmatch(r"[^\s,=:\[\]]+", name) for name in names):
        raise ValueError("want names of installed plug-ins, such as npu,other")
    return tuple(dict.fromkeys(names))


parse_port = _whole(0, 65535, "a port from 0 to 65535 (0 takes a free one)")
parse_threads = _whole(1, 1024, "a number of threads from 1 to 1024")
parse_instances = _whole(1, 64, "a number of instances from 1 to 64")
_attempts = _whole(0, 1000, "a number of attempts from 0 to 1000")
_decode_threads = _whole(0, 1024, "a number of threads from 1 to 1024, or 0 for the default")
_workers = _whole(1, 256, "a number of workers from 1 to 256")
_queue_ms = _whole(1, 24 * 3600 * 1000, "a number of milliseconds from 1 to 86400000 (a day)")
_concurrent = _whole(1, 10**6, "a number of requests from 1 to 1000000")
_pixels = _whole(1, 10**12, "a number of pixels above 0, such as 100000000")


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
        return self.parse is _flag


OPTIONS: tuple[Option, ...] = (
    Option("host", _host, "ADDRESS", "address to listen on; 0.0.0.0 for all"),
    Option("http_port", parse_port, "PORT", "HTTP port; 0 takes a free one"),
    Option("grpc_port", parse_port, "PORT", "gRPC port; 0 takes a free one"),
    Option("device", parse_device, "DEVICE", "auto, cpu, gpu[:N[,M]], fpga[:ID], fpga-emulator; all but auto required"),
    Option("threads", parse_threads, "N", "CPU threads of each model's session (default: the back end's choice)"),
    Option("instances", parse_instances, "N", "sessions of a model on each of its devices; the least busy runs"),
    Option(
        "store",
        _folder,
        "DIR",
        "serve the models registered in this store, and follow it; without DIR the one of `register`",
    ),
    Option("poll_interval_s", _seconds, "SECONDS", "how often to look for new and removed versions; 0: never"),
    Option(
        "reload_attempts",
        _attempts,
        "N",
        "failed reloads after a lost device until it counts as gone, and the process ends if nothing else is served",
    ),
    Option("default_model", str, "NAME", "model for requests that name none (default: the only one)"),
    Option(
        "service",
        _service,
        "NAME",
        "the service's name: /api/v1/service/NAME/... means the default model then (default: only a model's name does)",
    ),
    Option("max_body_bytes", parse_bytes, "BYTES", "largest HTTP body; more is refused with 413 at the header"),
    Option("max_header_bytes", parse_bytes, "BYTES", "largest HTTP header block; more is refused with 431"),
    Option("max_pixels", _pixels, "PIXELS", "largest picture, in pixels; more is refused (decompression bombs)"),
    Option("grpc_max_message_bytes", _message_bytes, "BYTES", "largest gRPC message (default: no limit)"),
    Option("read_timeout_s", _patience, "SECONDS", "silence allowed while a request is being sent"),
    Option("keep_alive_s", _seconds, "SECONDS", "how long an idle HTTP connection is kept"),
    Option(
        "decode_threads", _decode_threads, "N", "threads that decode pictures (default 0: usable cores - 1, at least 1)"
    ),
    Option(
        "jpeg_decoder", _jpeg_decoder, "DEVICE", "what decodes JPEGs: cpu, or gpu[:N] through nvImageCodec, required"
    ),
    Option(
        "auth_keys",
        _file_path,
        "FILE",
        'who asks needs one of these keys: {"primary": KEY, "secondary": KEY}; a changed file is read again',
    ),
    Option("auth_everywhere", _flag, "", "ask for a key on /healthz, /readyz, /metrics and gRPC health too"),
    Option(
        "tls_cert",
        _file_path,
        "FILE",
        "PEM with the certificate and its chain: TLS on HTTP and gRPC; a changed file is read again",
    ),
    Option("tls_key", _file_path, "FILE", "PEM with the certificate's private key"),
    Option("tls_client_ca", _file_path, "FILE", "PEM: clients must have a certificate that one of these has signed"),
    Option("grace_period_s", _seconds, "SECONDS", "after SIGTERM: how long to keep answering, readiness off"),
    Option(
        "drain_timeout_s",
        _seconds,
        "SECONDS",
        "after the grace period: how long accepted requests may take (default: 30, with an entry script at least 2 more"
        " than its scoring timeout)",
    ),
    Option(
        "strict",
        _flag,
        "",
        "exit as soon as one model fails to load, and do not start with keys that every user of the machine can read",
    ),
    Option(
        "entry_script",
        _file,
        "FILE",
        "Python file with init() and run(): /score is answered by it, in processes of its own",
    ),
    Option("workers", _workers, "N", "processes that run the entry script"),
    Option("scoring_timeout_s", _patience, "SECONDS", "longest run() of the entry script; 504 after that"),
    Option("script_start_timeout_s", _patience, "SECONDS", "longest start of the entry script, init() included"),
    Option(
        "max_queue_ms",
        _queue_ms,
        "MILLISECONDS",
        "longest wait of a request for a worker of the entry script; 503 after that (default: no limit)",
    ),
    Option(
        "max_concurrent",
        _concurrent,
        "N",
        "requests of the entry script that may run and wait at once; 503 beyond (default: 1024 waiting)",
    ),
    Option(
        "legacy_tensorflow",
        _flag,
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
        _script_nan,
        "WORD",
        "what run() returns of NaN and infinities: null, NaN (no JSON), or refuse: 500",
    ),
    Option("backends", parse_backends, "NAME[,NAME]", BACKENDS_HELP),
    Option(
        "lease_dir",
        _folder,
        "DIR",
        "who holds which exclusive device; to be shared by all who can reach one (default: in the user's cache)",
    ),
    Option("log_format", _one_of("plain", "json"), "FORMAT", "plain or json"),
    Option("log_level", _one_of("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error"),
)
