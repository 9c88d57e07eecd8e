"""The flags that say what a service is: those of `deploy`, and of `services update`, which changes some of them."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.commands.stored import REFERENCE_HELP, Typed
from accelserve.config_parsers import parse_backends
from accelserve.devices import DEVICE_FORMS


@dataclass(frozen=True, slots=True)
class _Flag:
    """One field of the definition.

    read: from the text as typed; raises ValueError with what is wanted. default: of a new service, in words.
    """

    flag: str
    field: str
    read: Callable[[str], Any]
    metavar: str
    help: str
    default: str = ""

    def told(self, changes: bool) -> str:
        """Its help. changes: of a service that is there, where what is not said stays."""
        return self.help if changes or not self.default else f"{self.help} (default: {self.default})"


def read_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("want a whole number") from None


def read_number(text: str) -> float:
    """Raises ValueError, for not-a-number too."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ValueError("want a number")
    return number


def _milliseconds(text: str) -> int:
    number = read_number(text) * 1000
    if math.isinf(number):
        raise ValueError("want a number of seconds")
    return math.ceil(number)


def _path(text: str) -> str:
    try:
        if text and "\0" not in text:
            return str(Path(text).expanduser().absolute())
    except RuntimeError:  # ~ of nobody
        pass
    raise ValueError("want a path")


_CONCURRENT_HELP = "requests that a replica is to have at a time: --autoscale goes by it, a script gets no more (503)"
_BACKENDS_HELP = "plug-ins of other packages that may run; `accelserve devices` names those installed"
_FLAGS = (
    _Flag("--device", "device", str, "DEVICE", f"{DEVICE_FORMS}; all but auto are required", "auto"),
    _Flag("--entry-script", "entry_script", _path, "FILE.py", "init() and run() answer POST /score"),
    _Flag("--source-directory", "source_directory", _path, "DIR", "folder that goes with the script (at most 300 MB)"),
    _Flag("--replicas", "replicas", read_whole, "N", "server processes", "1"),
    _Flag("--cpu-cores", "cpu_cores", read_number, "N", "cores for a replica; local: threads of each model session"),
    _Flag("--cpu-cores-limit", "cpu_cores_limit", read_number, "N", "cores that it cannot exceed; local: whole ones"),
    _Flag("--memory-gb", "memory_gb", read_number, "GB", "memory for a replica; local: nothing is reserved"),
    _Flag(
        "--memory-gb-limit",
        "memory_gb_limit",
        read_number,
        "GB",
        "memory that it cannot exceed; local: looked at every second",
    ),
    _Flag("--auth", "auth", str, "key|none", "whether requests need one of the service's two keys", "key"),
    _Flag("--tls-cert", "tls_cert", _path, "FILE", "certificate (PEM) for HTTP and gRPC"),
    _Flag("--tls-key", "tls_key", _path, "FILE", "its key (PEM)"),
    _Flag("--host", "host", str, "ADDRESS", "address to listen on; 0.0.0.0 for all", "127.0.0.1"),
    _Flag("--http-port", "http_port", read_whole, "PORT", "HTTP port", "a free one, which is kept"),
    _Flag("--grpc-port", "grpc_port", read_whole, "PORT", "gRPC port", "a free one, which is kept"),
    _Flag("--workers", "workers", read_whole, "N", "script processes of each replica", "1"),
    _Flag("--scoring-timeout", "scoring_timeout_ms", _milliseconds, "SECONDS", "longest run() of the script", "60"),
    _Flag("--max-queue-ms", "max_queue_ms", read_whole, "MS", "longest wait for a script process; then 503", "none"),
    _Flag("--max-concurrent", "max_concurrent", read_whole, "N", _CONCURRENT_HELP),
    _Flag("--backends", "backends", parse_backends, "NAME[,NAME]", _BACKENDS_HELP, "none"),
)
_FIXED = ("host", "http_port", "grpc_port")  # as long as a service lives, its clients know where it is


def add_service_flags(parser: argparse.ArgumentParser, changes: bool = False) -> None:
    """changes: of a service that is there; what cannot change is left out."""
    parser.add_argument("--model", metavar="NAME[:VERSION]", help=REFERENCE_HELP)
    parser.add_argument(
        "--serve-model",
        action=argparse.BooleanOptionalAction,
        help="the server loads the model; with an entry script, for accelserve.score(...) in it"
        + ("" if changes else " (default: only without an entry script, which opens the model by itself)"),
    )
    parser.add_argument(
        "--model-files",
        action="append",
        metavar="NAME=PATH",
        help="further files or folders that the script finds by get_model_path; may be repeated",
    )
    parser.add_argument(
        "--autoscale",
        metavar="MIN:MAX[:TARGET[:SECONDS]]|off",
        help="as many replicas as keep each at TARGET percent (70 unless said) of its --max-concurrent, "
        "looked at every SECONDS (1)",
    )
    parser.add_argument(
        "--legacy-tensorflow",
        action=argparse.BooleanOptionalAction,
        help="the script sees TensorFlow 1",
    )
    for flag in _FLAGS:
        if not (changes and flag.field in _FIXED):
            parser.add_argument(flag.flag, dest=flag.field, metavar=flag.metavar, help=flag.told(changes))


def read_service_flags(parsed: argparse.Namespace, typed: Typed) -> dict[str, Any]:
    """What was typed, by field; what cannot be read is told to `typed` and left out."""
    changes: dict[str, Any] = {}
    for flag in _FLAGS:
        text = getattr(parsed, flag.field, None)
        if text is None:
            continue
        try:
            changes[flag.field] = flag.read(text)
        except ValueError as error:
            typed.problems.append(f"{flag.flag} {text!r}: {error}")
    for field in ("serve_model", "legacy_tensorflow"):
        if getattr(parsed, field) is not None:
            changes[field] = getattr(parsed, field)
    if "source_directory" in changes and "entry_script" in changes:
        changes["entry_script"] = _within(changes["source_directory"], parsed.entry_script, changes["entry_script"])
    elif "entry_script" in changes:
        changes["source_directory"] = ""
    elif "source_directory" in changes:
        typed.problems.append("--source-directory: say with --entry-script which of its files is the script")
    if parsed.model is not None:
        changes["model"], changes["version"] = typed.reference(parsed.model)
    if parsed.model_files is not None:
        files = typed.named_files("--model-files", parsed.model_files)
        changes["model_files"] = tuple(sorted((name, str(path)) for name, path in files.items()))
    return changes | _scale(parsed.autoscale, "replicas" in changes, typed)


def _within(folder: str, text: str, otherwise: str) -> str:
    """A script may be named from its folder, as Azure ML's are."""
    inside = Path(folder, text)
    return str(inside) if inside.is_file() and not Path(otherwise).is_file() else otherwise


def _scale(text: str | None, has_replicas: bool, typed: Typed) -> dict[str, Any]:
    """One of the two takes the place of the other; both at once is a mistake that the definition's rules tell."""
    from accelserve.deploy.definition import parse_autoscale

    if text is None:
        return {"autoscale": None} if has_replicas else {}
    unless_given: dict[str, Any] = {} if has_replicas else {"replicas": None}
    if text == "off":
        return {"autoscale": None, **unless_given}
    try:
        return {"autoscale": parse_autoscale(text), **unless_given}
    except ValueError as error:
        typed.problems.append(f"--autoscale {text!r}: {error}")
        return {}
