"""Where a configuration comes from: flags > environment > file > defaults, with all mistakes reported at once."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.config import ENV_PREFIX, OPTIONS, ModelConfig, Option, ServerConfig, parse_device

# Kubernetes injects ACCELSERVE_SERVICE_HOST, ACCELSERVE_PORT_8501_TCP, ... for a Service named accelserve.
_KUBERNETES = re.compile(r"ACCELSERVE_(SERVICE_|PORT($|_))")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_BY_KEY = {option.key: option for option in OPTIONS}
_OTHER_ENVIRONMENT = frozenset({"ACCELSERVE_MODEL", "ACCELSERVE_CONFIG", "ACCELSERVE_STORE"})


class ConfigError(Exception):
    """The configuration is wrong. problems: every mistake found, each naming the thing and the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


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
            device = parse_device(str(table["device"])) if "device" in table else None
            self.models[name] = ModelConfig(_model_name(name), place, device, threads)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")

    def environment(self, environ: Mapping[str, str]) -> None:
        by_env = {option.env: option for option in OPTIONS}
        for name, value in environ.items():
            if name in by_env:
                self.option(by_env[name], value, name)
            elif name.startswith(ENV_PREFIX) and name not in _OTHER_ENVIRONMENT and not _KUBERNETES.match(name):
                self.warnings.append(f"unknown environment variable {name} is ignored")

    def environment_models(self, environ: Mapping[str, str]) -> None:
        for text in environ.get("ACCELSERVE_MODEL", "").split():
            self.model(text, "ACCELSERVE_MODEL")
        if not self.models and ("MODEL_NAME" in environ or "MODEL_BASE_PATH" in environ):
            name = environ.get("MODEL_NAME", "model")  # the defaults of TF Serving's image
            self.model(f"{name}={environ.get('MODEL_BASE_PATH', '/models')}/{name}", "MODEL_NAME and MODEL_BASE_PATH")


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
