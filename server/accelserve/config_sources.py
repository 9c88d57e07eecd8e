"""Where a configuration comes from: flags > environment > file > defaults, with all mistakes reported at once."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelserve.config import ModelConfig, ServerConfig, drain_for_runs, security_problems
from accelserve.config_options import ENV_PREFIX, OPTIONS, Option
from accelserve.config_parsers import parse_versions

# Kubernetes injects ACCELSERVE_SERVICE_HOST, ACCELSERVE_PORT_8501_TCP, ... for a Service named accelserve.
_KUBERNETES = re.compile(r"ACCELSERVE_(SERVICE_|PORT($|_))")
# A Service named accelserve-http brings a name that is ours; its value is an address and no port.
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_BY_KEY = {option.key: option for option in OPTIONS}
_BY_ENV = {option.env: option for option in OPTIONS}
_BY_NAME = {option.name: option for option in OPTIONS}
# ACCELSERVE_OPENVINO_PLUGINS is the back end's: backends.openvino.devices. ACCELSERVE_REPLICA: deploy.descendants.
_OTHER_ENVIRONMENT = frozenset(
    {
        *("ACCELSERVE_MODEL", "ACCELSERVE_CONFIG", "ACCELSERVE_OPENVINO_PLUGINS"),
        *("ACCELSERVE_KEY", "ACCELSERVE_SERVICES", "ACCELSERVE_REPLICA"),
    }
)
_MODEL_OPTIONS = ("device", "threads", "instances")  # of the server, that a model may choose for itself
_MODEL_KEYS = "path, versions, device, threads, instances (batching and preprocessing live in its accelserve.toml)"
_FROM_THE_FILE = frozenset({"store", "entry_script", "auth_keys", "tls_cert", "tls_key", "tls_client_ca"})  # paths
_SHOWN = 60  # characters of a wrong value


class ConfigError(Exception):
    """The configuration is wrong. problems: every mistake found, each naming the thing and the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def parse_model(text: str, store: bool = False) -> ModelConfig:
    """`NAME=PATH`, and with a store also `NAME` and `NAME:VERSION`. Raises ValueError."""
    name, equals, path = text.partition("=")
    if equals and path:
        return ModelConfig(_model_name(name), _path(path))
    if equals or not store:
        wanted = "NAME=PATH, for example resnet50=models/resnet50.onnx"
        raise ValueError(f"{_shown(text)}: want {wanted}; or NAME or NAME:VERSION of a --store DIR")
    name, colon, version = text.partition(":")
    if not colon:
        return ModelConfig(_model_name(name), None)
    if not re.fullmatch("[0-9]{1,18}", version):
        raise ValueError(f"{_shown(text)}: want NAME:VERSION with a number, for example resnet50:3")
    return ModelConfig(_model_name(name), None, versions=parse_versions(version))


def _model_name(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        wanted = "a model's name starts with a letter or digit and has only letters, digits, . _ -, at most 255"
        raise ValueError(f"{_shown(name)}: {wanted}")
    return name


def _path(text: str) -> Path:
    try:
        if text and "\0" not in text:
            return Path(text).expanduser()
    except RuntimeError:  # ~ of nobody
        pass
    raise ValueError(f"{_shown(text)}: want a path")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class _Reader:
    """Collects values and problems from the three sources, later sources winning."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.models: dict[str, ModelConfig] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        # What was meant and is wrong is told once, and not again as missing.
        self.unread_models = False
        self.wrong_options: set[str] = set()
        self.wrong_models: set[str] = set()

    def option(self, option: Option, value: Any, source: str) -> None:
        found = self.read(option, value, source)
        if found is None:
            self.wrong_options.add(option.name)
        else:
            self.values[option.name] = found

    def read(self, option: Option, value: Any, source: str) -> Any:
        """value: text as typed, or what the file's TOML says. Returns None when it is wrong, which is then told."""
        try:
            if option.is_text and not isinstance(value, str):
                raise ValueError("want a text in quotes")
            return option.parse(str(value))
        except ValueError as error:
            self.problems.append(f"{source}: {_shown(value)}: {error}")
            return None

    def model(self, text: str, source: str) -> None:
        try:
            # A store that was meant and is wrong is told once.
            found = parse_model(text, "store" in self.values or "store" in self.wrong_options)
        except ValueError as error:
            self.wrong_models.add(text.partition("=")[0])
            self.problems.append(f"{source}: {error}")
            return
        if found.name in self.models:
            self.problems.append(f"{source}: model {found.name!r} is given twice; names must differ")
        self.models[found.name] = found

    def file(self, path: Path, source: str) -> None:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, no TOML, a number of thousands of digits
            self.problems.append(f"{source} {path}: {getattr(error, 'strerror', None) or error}")
            self.unread_models = True
            return
        tables = content.pop("models", {})
        if "backends" in content:
            self.allowed_backends(path, content.pop("backends"))
        for key, value in content.items():
            if key in _BY_KEY:
                self.option(_BY_KEY[key], value, f"{path}: {key}")
                if key in self.values and key in _FROM_THE_FILE:  # a relative path is meant from where the file stands
                    self.values[key] = str(path.parent / self.values[key])
            else:
                self.problems.append(f"{path}: unknown key {_shown(key)}; known: models, {', '.join(_BY_KEY)}")
        if not isinstance(tables, dict):
            self.problems.append(f'{path}: models: want a table [models.NAME] with path = "..." for each')
            self.unread_models = True
            return
        for name, table in tables.items():
            self.model_table(path, name, table)

    def allowed_backends(self, path: Path, table: Any) -> None:
        """`[backends] allow = ["npu"]`."""
        names = table.get("allow") if isinstance(table, dict) and table.keys() <= {"allow"} else None
        if isinstance(names, list) and all(isinstance(name, str) and name for name in names):
            self.option(_BY_KEY["backends"], ",".join(names), f"{path}: [backends] allow")
        else:
            self.problems.append(f'{path}: [backends]: want allow = ["NAME", ...] and nothing else')

    def model_table(self, path: Path, name: str, table: Any) -> None:
        where = f"{path}: [models.{name}]"
        if not isinstance(table, dict) or not isinstance(table.get("path", ""), str):
            self.problems.append(f'{where}: want path = "..."')
            self.wrong_models.add(name)
            return
        unknown = sorted(table.keys() - {"path", "versions", *_MODEL_OPTIONS})
        if unknown:
            self.problems.append(f"{where}: unknown key {', '.join(map(_shown, unknown))}; known: {_MODEL_KEYS}")
            if "path" not in table:  # the unknown key may be meant for it
                self.wrong_models.add(name)
                return
        own = {key: self.read(_BY_KEY[key], table[key], f"{where} {key}") for key in _MODEL_OPTIONS if key in table}
        if "versions" in table:
            try:
                own["versions"] = parse_versions(table["versions"])
            except ValueError as error:
                self.problems.append(f"{where} versions: {_shown(table['versions'])}: {error}")
        try:
            # A relative path is meant from where the file stands.
            place = path.parent / _path(table["path"]) if "path" in table else None
            self.models[name] = ModelConfig(_model_name(name), place, **own)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")
            self.wrong_models.add(name)

    def environment(self, environ: Mapping[str, str]) -> None:
        for name, value in environ.items():
            if name == "ACCELSERVE_STORE" and not value:
                continue  # as if it were not set, to the store's commands too
            if name in _BY_ENV:
                if not _KUBERNETES_ADDRESS.match(value):
                    self.option(_BY_ENV[name], value, name)
            elif name.startswith(ENV_PREFIX) and name not in _OTHER_ENVIRONMENT and not _KUBERNETES.match(name):
                self.warnings.append(f"unknown environment variable {name} is ignored")

    def only_models(self, texts: Sequence[str], source: str, own_store: bool) -> None:
        """Models of a source that wins: they replace what was read before, the store of another source too.

        own_store: the store is this source's, or of one above it. Another's is kept for models that are named from it.
        """
        self.models.clear()
        for text in texts:
            self.model(text, source)
        if not own_store and all(model.path is not None for model in self.models.values()):
            self.values.pop("store", None)

    def contradictions(self, config: ServerConfig) -> list[str]:
        problems = []
        store = bool(config.store) or "store" in self.wrong_options
        script = bool(config.entry_script) or "entry_script" in self.wrong_options
        if not (config.models or store or self.wrong_models or self.unread_models or script):
            problems.append(
                "no model given: say --model NAME=PATH (a .onnx file, a SavedModel or a folder of versions), "
                "or --store DIR; or --entry-script FILE"
            )
        if not store:
            lost = [model.name for model in config.models if model.path is None]
            problems += [f'[models.{name}]: want path = "...", or --store DIR that it is in' for name in lost]
        names = [model.name for model in config.models]
        any_name = store and all(model.path is not None for model in config.models)
        unknown = config.default_model not in ("", *names, *self.wrong_models)
        if unknown and not any_name and not self.unread_models:
            listed = ", ".join(names) or "(none)"
            problems.append(f"--default-model {_shown(config.default_model)}: not among the models {listed}")
        if not self.wrong_options & {"auth_keys", "tls_cert", "tls_key"}:
            problems += security_problems(config)
        ports_are_read = not self.wrong_options & {"http_port", "grpc_port"}
        if ports_are_read and config.http_port and config.http_port == config.grpc_port:
            problems.append(f"--http-port and --grpc-port are both {config.http_port}; they must differ")
        return problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what was odd but no mistake."""

    config: ServerConfig
    warnings: tuple[str, ...]


def load_config(
    flags: Mapping[str, str], models: list[str], environ: Mapping[str, str], file: Path | None = None
) -> Loaded:
    """Join the sources.

    flags: option name -> text as typed; models: as typed after --model (they replace the other sources' models).
    file: from --config; else ACCELSERVE_CONFIG names it.
    Raises ConfigError with every problem found.
    """
    reader = _Reader()
    if file is not None:
        reader.file(file, "--config")
    elif environ.get("ACCELSERVE_CONFIG"):
        reader.file(Path(environ["ACCELSERVE_CONFIG"]), "ACCELSERVE_CONFIG")
    reader.environment(environ)
    for name, text in flags.items():
        reader.option(_BY_NAME[name], text, _BY_NAME[name].flag)
    if models:
        reader.only_models(models, "--model", "store" in flags)
    elif named := environ.get("ACCELSERVE_MODEL", "").split():
        reader.only_models(named, "ACCELSERVE_MODEL", "store" in flags or bool(environ.get("ACCELSERVE_STORE")))
    elif (
        not reader.models
        and "store" not in reader.values
        and (environ.get("MODEL_NAME") or environ.get("MODEL_BASE_PATH"))
    ):
        name = environ.get("MODEL_NAME") or "model"  # the defaults of TF Serving's image
        base = environ.get("MODEL_BASE_PATH") or "/models"
        reader.only_models([f"{name}={base}/{name}"], "MODEL_NAME and MODEL_BASE_PATH", own_store=True)
    config = ServerConfig(models=tuple(reader.models.values()), **reader.values)
    if config.entry_script and "drain_timeout_s" not in reader.values:
        config = replace(config, drain_timeout_s=drain_for_runs(config.scoring_timeout_s))
    problems = reader.problems + reader.contradictions(config)
    if problems:
        raise ConfigError(problems)
    return Loaded(config, tuple(reader.warnings))
