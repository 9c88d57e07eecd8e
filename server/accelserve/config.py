"""What the server is told to do: one frozen value, built once from flags > environment > file > defaults.

Every option stands in one table, `OPTIONS`; the command line, the environment (`ACCELSERVE_HTTP_PORT`) and the file
(`http_port = 8501`) are three spellings of its rows. All mistakes are collected and reported at once.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.preprocessing import DEFAULT_MAX_PIXELS

ENV_PREFIX = "ACCELSERVE_"
# Kubernetes injects ACCELSERVE_SERVICE_HOST, ACCELSERVE_PORT_8501_TCP, ... for a Service named accelserve.
_KUBERNETES = re.compile(r"ACCELSERVE_(SERVICE_|PORT($|_))")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


class ConfigError(Exception):
    """The configuration is wrong. problems: every mistake found, each naming the thing and the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to serve. device and threads: None leaves it to the model's own file, then to the server's."""

    name: str
    path: Path
    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything `accelserve serve` can be told; see `OPTIONS` for what each field means."""

    models: tuple[ModelConfig, ...] = ()
    host: str = "127.0.0.1"
    http_port: int = 8501
    grpc_port: int = 8500
    device: str = "auto"
    threads: int | None = None
    default_model: str = ""
    max_body_bytes: int = 64 * 2**20
    max_header_bytes: int = 32768
    max_pixels: int = DEFAULT_MAX_PIXELS
    grpc_max_message_bytes: int = -1
    read_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    decode_threads: int = 0
    grace_period_s: float = 5.0
    drain_timeout_s: float = 30.0
    strict: bool = False
    log_format: str = "plain"
    log_level: str = "info"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("want a number above 0")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError("want a port from 0 to 65535 (0 takes a free one)")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError("want a number of seconds, 0 or more")
    return number


def parse_bytes(text: str) -> int:
    """`64MiB`, `64M`, `67108864` -> bytes. Units are powers of 1024."""
    found = re.fullmatch(r"(\d+)\s*([kmg]?)(i?b)?", str(text).strip(), re.IGNORECASE)
    if not found or not (number := int(found[1])):
        raise ValueError("want a number of bytes above 0, such as 67108864 or 64MiB")
    return number * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[found[2].lower()]


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


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table. name: field of ServerConfig; parse: raises ValueError with what is wanted."""

    name: str
    parse: Callable[[str], Any]
    metavar: str
    help: str

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
    Option("host", str, "ADDRESS", "address to listen on; 0.0.0.0 for all"),
    Option("http_port", _port, "PORT", "HTTP port; 0 takes a free one"),
    Option("grpc_port", _port, "PORT", "gRPC port; 0 takes a free one"),
    Option("device", str, "DEVICE", "auto, cpu, gpu[:N], fpga[:ID] or fpga-emulator; all but auto are requirements"),
    Option("threads", _positive, "N", "CPU threads of each model's session (default: the back end's choice)"),
    Option("default_model", str, "NAME", "model for requests that name none (default: the only one)"),
    Option("max_body_bytes", parse_bytes, "BYTES", "largest HTTP body; more is refused with 413 at the header"),
    Option("max_header_bytes", parse_bytes, "BYTES", "largest HTTP header block; more is refused with 431"),
    Option("max_pixels", parse_bytes, "N", "most pixels of one picture (guards against decompression bombs)"),
    Option("grpc_max_message_bytes", parse_bytes, "BYTES", "largest gRPC message (default: no limit)"),
    Option("read_timeout_s", _seconds, "SECONDS", "silence allowed while a request is being sent"),
    Option("keep_alive_s", _seconds, "SECONDS", "how long an idle HTTP connection is kept"),
    Option("decode_threads", int, "N", "threads that decode pictures (default: cores - 1, at least 1)"),
    Option("grace_period_s", _seconds, "SECONDS", "after SIGTERM: how long to keep answering, readiness off"),
    Option("drain_timeout_s", _seconds, "SECONDS", "after the grace period: how long accepted requests may take"),
    Option("strict", _flag, "", "exit as soon as one model fails to load"),
    Option("log_format", _one_of("plain", "json"), "FORMAT", "plain or json"),
    Option("log_level", _one_of("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error"),
)
_BY_KEY = {option.key: option for option in OPTIONS}


def parse_model(text: str) -> ModelConfig:
    """`NAME=PATH`. Raises ValueError."""
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise ValueError(f"{text!r}: want NAME=PATH, for example resnet50=models/resnet50.onnx")
    return ModelConfig(_model_name(name), Path(path).expanduser())


def _model_name(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a model's name starts with a letter or digit and has only letters, digits, . _ -")
    return name


class _Reader:
    """Collects values and problems from the three sources, later sources winning."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.models: dict[str, ModelConfig] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def option(self, option: Option, text: Any, source: str) -> None:
        try:
            self.values[option.name] = option.parse(str(text))
        except ValueError as error:
            reason = str(error) if "want" in str(error) else "want a number"
            self.problems.append(f"{source}: {text!r}: {reason}")

    def model(self, text: str, source: str) -> None:
        try:
            found = parse_model(text)
        except ValueError as error:
            self.problems.append(f"{source}: {error}")
            return
        if found.name in self.models:
            self.problems.append(f"{source}: model {found.name!r} is given twice; names must differ")
        self.models[found.name] = found

    def file(self, path: Path) -> None:
        try:
            content = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self.problems.append(f"--config {path}: {getattr(error, 'strerror', None) or error}")
            return
        tables = content.pop("models", {})
        for key, value in content.items():
            if key in _BY_KEY:
                self.option(_BY_KEY[key], value, f"{path}: {key}")
            else:
                self.problems.append(f"{path}: unknown key {key!r}; known: models, {', '.join(_BY_KEY)}")
        for name, table in (tables if isinstance(tables, dict) else {}).items():
            self.model_table(path, name, table)

    def model_table(self, path: Path, name: str, table: Any) -> None:
        where = f"{path}: [models.{name}]"
        if not isinstance(table, dict) or not isinstance(table.get("path"), str):
            self.problems.append(f'{where}: want path = "..."')
            return
        unknown = set(table) - {"path", "device", "threads"}
        if unknown:
            known = "path, device, threads (batching and preprocessing live in the model's accelserve.toml)"
            self.problems.append(f"{where}: unknown key {', '.join(map(repr, sorted(unknown)))}; known: {known}")
        threads = table.get("threads")
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            self.problems.append(f"{where}: threads: want a number above 0, got {threads!r}")
            threads = None
        try:
            # A relative path is meant from where the file stands.
            place = path.parent / Path(table["path"]).expanduser()
            self.models[name] = ModelConfig(_model_name(name), place, table.get("device"), threads)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")

    def environment(self, environ: Mapping[str, str]) -> None:
        by_env = {option.env: option for option in OPTIONS}
        for name, value in environ.items():
            if name in by_env:
                self.option(by_env[name], value, name)
            elif name.startswith(ENV_PREFIX) and name not in OTHER_ENVIRONMENT and not _KUBERNETES.match(name):
                self.warnings.append(f"unknown environment variable {name} is ignored")

    def environment_models(self, environ: Mapping[str, str]) -> None:
        for text in environ.get("ACCELSERVE_MODEL", "").split():
            self.model(text, "ACCELSERVE_MODEL")
        if not self.models and ("MODEL_NAME" in environ or "MODEL_BASE_PATH" in environ):
            name = environ.get("MODEL_NAME", "model")  # the defaults of TF Serving's image
            self.model(f"{name}={environ.get('MODEL_BASE_PATH', '/models')}/{name}", "MODEL_NAME and MODEL_BASE_PATH")


OTHER_ENVIRONMENT = frozenset({"ACCELSERVE_MODEL", "ACCELSERVE_CONFIG", "ACCELSERVE_STORE"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what was odd but no mistake."""

    config: ServerConfig
    warnings: tuple[str, ...]


def load_config(
    flags: Mapping[str, str], models: list[str], environ: Mapping[str, str], file: Path | None = None
) -> Loaded:
    """Join the sources.

    flags: option name -> text as typed; models: `NAME=PATH` as typed (they replace the other sources' models).
    file: from --config; else ACCELSERVE_CONFIG names it.
    Raises ConfigError with every problem found.
    """
    reader = _Reader()
    if file is None and environ.get("ACCELSERVE_CONFIG"):
        file = Path(environ["ACCELSERVE_CONFIG"])
    if file is not None:
        reader.file(file)
    reader.environment(environ)
    by_name = {option.name: option for option in OPTIONS}
    for name, text in flags.items():
        reader.option(by_name[name], text, by_name[name].flag)
    if models:
        reader.models.clear()
        for text in models:
            reader.model(text, "--model")
    elif not reader.models:
        reader.environment_models(environ)
    config = ServerConfig(models=tuple(reader.models.values()), **reader.values)
    problems = reader.problems + _contradictions(config)
    if problems:
        raise ConfigError(problems)
    return Loaded(config, tuple(reader.warnings))


def _contradictions(config: ServerConfig) -> list[str]:
    problems = []
    if not config.models:
        problems.append("no model given: say --model NAME=PATH (a .onnx file, a SavedModel or a folder of versions)")
    names = [model.name for model in config.models]
    if config.default_model and config.default_model not in names:
        problems.append(
            f"--default-model {config.default_model!r}: not among the models {', '.join(names) or '(none)'}"
        )
    if config.http_port and config.http_port == config.grpc_port:
        problems.append(f"--http-port and --grpc-port are both {config.http_port}; they must differ")
    return problems
