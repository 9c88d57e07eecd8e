"""What azmlinfsrv is told: flags > environment > config.json > defaults, under the original's names.

Our own settings (host, limits, logs) are rows of `accelserve.config_options`, as flags and as ACCELSERVE_* names.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelserve.config import ServerConfig, drain_for_runs, security_problems
from accelserve.config_options import OPTIONS, Option
from accelserve.config_sources import ConfigError

OWN_OPTIONS = (
    "host",
    "max_body_bytes",
    "max_header_bytes",
    "read_timeout_s",
    "keep_alive_s",
    "grace_period_s",
    "drain_timeout_s",
    "script_start_timeout_s",
    "max_queue_ms",
    "max_concurrent",
    "legacy_tensorflow",
    "auth_keys",
    "auth_everywhere",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "script_nan",
    "log_format",
)
_LOG_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "WARN": "warning", "ERROR": "error"}
_LOG_LEVELS |= {"CRITICAL": "error", "FATAL": "error", "NOTSET": "debug"}
# Names that the original knows too, and what becomes of them here.
_NO_INSIGHTS = "nothing is sent to Application Insights: scrape /metrics"
_WITHOUT_EFFECT = {
    "AML_APP_INSIGHTS_ENABLED": _NO_INSIGHTS,
    "AML_MODEL_DC_STORAGE_ENABLED": "no inputs and predictions are collected",
    "AZUREML_DEBUG_PORT": "no debugger is attached",
}
_LOGGING = "logging.json"
_KNOWN_QUIETLY = frozenset(
    {
        *("AML_APP_ROOT", "AZUREML_SOURCE_DIRECTORY", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR", "SERVICE_NAME"),
        *("WORKSPACE_NAME", "SERVICE_PATH_PREFIX", "SERVICE_VERSION", "SCORING_TIMEOUT_MS", "AZUREML_LOG_LEVEL"),
        *("AML_APP_INSIGHTS_KEY", "APP_INSIGHTS_LOG_RESPONSE_ENABLED"),
        *("AML_CORS_ORIGINS", "HOSTNAME", "AZUREML_CONFIG_FILE", "WORKER_COUNT", "WORKER_TIMEOUT", "WORKER_PRELOAD"),
        *("SEPERATE_HEALTH_ENDPOINT", "SERVER_VERSION_LOG_RESPONSE_ENABLED", "SERVER_PORT", "HEALTH_PORT"),
    }
)


@dataclass(frozen=True, slots=True)
class AzmlFlags:
    """The original's command line, as typed; None for what was not."""

    entry_script: str | None = None
    model_dir: str | None = None
    port: str | None = None
    health_port: str | None = None
    worker_count: str | None = None
    access_control_allow_origins: str | None = None
    config_file: str | None = None
    insights: bool = False  # --appinsights_instrumentation_key, whose value nobody needs
    own: Mapping[str, str] = field(default_factory=dict)  # of OWN_OPTIONS, by name
    strict: bool = False


@dataclass(frozen=True, slots=True)
class AzmlConfig:
    """server: our own settings. health_port: None without a separate endpoint. timeout_ms: of one run()."""

    entry_script: Path
    app_root: Path
    server: ServerConfig
    source_directory: str = ""
    model_dir: str = ""
    port: int = 5001
    health_port: int | None = None
    workers: int = 1
    cors_origins: tuple[str, ...] = ()
    service: str = "ML service"
    service_version: str = "1.0"
    path_prefix: str = ""
    timeout_ms: int = 300_000
    log_level: str = "info"
    tells_version: bool = True
    strict: bool = False


@dataclass(frozen=True, slots=True)
class AzmlLoaded:
    """A configuration, and what was odd but no mistake."""

    config: AzmlConfig
    warnings: tuple[str, ...]


class AzmlConfigError(ConfigError):
    """exit_code: the original's. Its command line ends it with 1, what its workers read with 3."""

    def __init__(self, problems: list[str], exit_code: int) -> None:
        super().__init__(problems)
        self.exit_code = exit_code


def load_azml_config(flags: AzmlFlags, environ: Mapping[str, str], folder: Path) -> AzmlLoaded:
    """folder: the working folder, AML_APP_ROOT's default. Raises AzmlConfigError with every problem found."""
    reader = _Reader(flags, environ, folder)
    config = reader.config()
    if problems := [*reader.problems, *reader.problems_of_workers]:
        raise AzmlConfigError(problems, 1 if reader.problems else 3)
    return AzmlLoaded(config, tuple(reader.warnings))


class _Reader:
    """Reads names from the environment, then from config.json, and collects what is wrong."""

    def __init__(self, flags: AzmlFlags, environ: Mapping[str, str], folder: Path) -> None:
        self.problems: list[str] = []
        self.problems_of_workers: list[str] = []  # in what the original's workers read: environment and file
        self.warnings: list[str] = []
        self._flags = flags
        self._environ = environ
        self._folder = folder
        self._file: dict[str, Any] = {}
        self._file_name = "config.json"
        self._app_root = Path(folder, environ.get("AML_APP_ROOT") or folder)
        self._read_file()

    def config(self) -> AzmlConfig:
        flags = self._flags
        own = self._own()
        script = self._script()
        self._tell_what_has_no_effect(script)
        worker_timeout_s = self._whole("WORKER_TIMEOUT", None, 300, least=1)
        scoring_timeout_ms = self._whole("SCORING_TIMEOUT_MS", None, 3_600_000, least=1)
        separate = self._text("SEPERATE_HEALTH_ENDPOINT") == "true"
        port = self._whole("--port", flags.port, 5001, least=0, most=65535)
        health_port = self._whole("--health_port", flags.health_port, 5000, least=1, most=65535)
        if separate and port and port == health_port:
            self.problems.append(f"--port and --health_port are both {port}; they must differ")
        timeout_ms = min(scoring_timeout_ms, worker_timeout_s * 1000)
        model_dir = flags.model_dir or self._text("AZUREML_MODEL_DIR")
        origins = flags.access_control_allow_origins
        if origins is None:
            origins = self._text("AML_CORS_ORIGINS")
        return AzmlConfig(
            entry_script=script,
            app_root=self._app_root,
            server=ServerConfig(**{"drain_timeout_s": drain_for_runs(timeout_ms / 1000), **own}),
            source_directory=self._text("AZUREML_SOURCE_DIRECTORY"),
            model_dir=str(Path(self._folder, model_dir)) if model_dir else "",
            port=port,
            health_port=health_port if separate else None,
            workers=self._whole("WORKER_COUNT", flags.worker_count, 1, least=1, most=256, flag="--worker_count"),
            cors_origins=tuple([origin.strip() for origin in origins.split(",") if origin.strip()]),
            service=self._text("SERVICE_NAME") or "ML service",
            service_version=self._text("SERVICE_VERSION") or "1.0",
            path_prefix=self._text("SERVICE_PATH_PREFIX"),
            timeout_ms=timeout_ms,
            log_level=self._log_level(),
            tells_version=self._text("SERVER_VERSION_LOG_RESPONSE_ENABLED", "true").lower() == "true",
            strict=flags.strict,
        )

    # -- the file

    def _read_file(self) -> None:
        """The one that is named, else config.json in the app root, else beside the script; an empty one is none."""
        named = self._flags.config_file or self._environ.get("AZUREML_CONFIG_FILE")
        script = self._flags.entry_script or self._environ.get("AZUREML_ENTRY_SCRIPT")
        places = [Path(self._folder, named)] if named else []
        places.append(self._app_root / "config.json")
        if script:
            places.append(Path(self._folder, script).parent / "config.json")
        found = next((place for place in places if place.is_file() and place.stat().st_size), None)
        if found is None:
            if named:  # the original goes on without it
                told = self.warnings if self._flags.strict else self.problems
                told.append(f"--config_file {named}: no such file, or it is empty")
            return
        self._file_name = str(found)
        try:
            content = json.loads(found.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.problems_of_workers.append(f"{found}: {getattr(error, 'strerror', None) or error}")
            return
        if not isinstance(content, dict):
            self.problems_of_workers.append(f"{found}: want a JSON object of environment names and values")
            return
        unknown = sorted(content.keys() - _KNOWN_QUIETLY - _WITHOUT_EFFECT.keys())
        if unknown:
            self.warnings.append(f"{found}: unknown keys are ignored: {', '.join(map(str, unknown))}")
        self._file = content
        if isinstance(root := content.get("AML_APP_ROOT"), str) and not self._environ.get("AML_APP_ROOT"):
            self._app_root = Path(self._folder, root)

    def _text(self, name: str, default: str = "") -> str:
        if name in self._environ:
            return self._environ[name]
        value = self._file.get(name, default)
        if value is True or value is False:
            return str(value).lower()
        return default if value is None else str(value)

    # -- values

    def _script(self) -> Path:
        flags = self._flags
        if flags.entry_script:
            return Path(os.path.realpath(Path(self._folder, flags.entry_script)))
        if named := self._text("AZUREML_ENTRY_SCRIPT"):
            return Path(self._app_root, named)
        if not (flags.config_file or self._file):
            self.problems.append(
                "Either provide an entry script with --entry_script or a configuration file with --config_file"
            )
        return self._app_root / "main.py"

    def _whole(
        self, name: str, typed: str | None, default: int, *, least: int = 0, most: int = 2**53, flag: str = ""
    ) -> int:
        """A flag's, else the environment's or the file's, else the default."""
        source, text = (flag or name, typed) if typed is not None else (name, self._text(name, str(default)))
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if least <= number <= most:
            return number
        wanted = f"want a whole number from {least} to {most}" if most < 2**53 else f"want a whole number from {least}"
        (self.problems if typed is not None else self.problems_of_workers).append(f"{source}: {text[:60]!r}: {wanted}")
        return default

    def _log_level(self) -> str:
        text = self._text("AZUREML_LOG_LEVEL", "INFO").upper()
        if text not in _LOG_LEVELS:
            self.problems_of_workers.append(f"AZUREML_LOG_LEVEL: {text[:60]!r}: want one of {', '.join(_LOG_LEVELS)}")
        return _LOG_LEVELS.get(text, "info")

    def _own(self) -> dict[str, Any]:
        """Our own settings, by field.

        The original listens on every address, and answers NaN: as it is to be imitated or not.
        """
        values: dict[str, Any] = {"host": "0.0.0.0", "script_nan": "NaN"} if self._flags.strict else {}
        for option in own_options():
            for source, texts in ((option.env, self._environ), (option.flag, self._flags.own)):
                text = texts.get(option.env if texts is self._environ else option.name)
                if text is not None and (parsed := self._parsed(option, text, source)) is not None:
                    values[option.name] = parsed
        self.problems += security_problems(ServerConfig(**values))
        return values

    def _parsed(self, option: Option, text: str, source: str) -> Any:
        parse: Callable[[str], Any] = option.parse
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{source}: {text[:60]!r}: {error}")
            return None

    def _tell_what_has_no_effect(self, script: Path) -> None:
        for name, why in _WITHOUT_EFFECT.items():
            if self._text(name).lower() not in ("", "false"):
                self.warnings.append(f"{name} has no effect here: {why}")
        if self._flags.insights:
            self.warnings.append(f"--appinsights_instrumentation_key has no effect here: {_NO_INSIGHTS}")
        for folder in dict.fromkeys((self._app_root, script.parent)):
            if (folder / _LOGGING).is_file():
                self.warnings.append(f"{folder / _LOGGING} is not read: say --log-format and AZUREML_LOG_LEVEL")


def own_options() -> tuple[Option, ...]:
    return tuple([option for option in OPTIONS if option.name in OWN_OPTIONS])
