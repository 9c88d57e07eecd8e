"""`accelserve.toml` beside a model: labels, device, instances, batching, preprocessing."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelserve.batching.policy import BatchPolicy
from accelserve.config_parsers import parse_bytes, parse_instances, parse_threads
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing

FILE_NAME = "accelserve.toml"
DECODE_TOLERANCE = 0.02
_LONGEST_OBJECTIVE_MS = 60_000
_LONGEST_DELAY_US = 60_000_000  # without an end of its own, a request waits as long for company


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model's own file says; what it leaves out is None or empty.

    labels: name of each class, by index. preprocessing: fields of `Preprocessing`, joined with what the signature
    says once the model is loaded. normalize: who turns pixels into the input, "device" or "host". decode: who decodes
    pictures where the model's own graph does, "model" or "server"; decode_tolerance: how far outputs may be off then.
    runtime: the back end's name, where several could run the model. backend: settings that only the model's back end
    knows, which refuses unknown ones.
    source: the file, None when there is none.
    """

    labels: tuple[str, ...] | None = None
    device: str | None = None
    runtime: str | None = None
    threads: int | None = None
    instances: int | None = None
    batching: BatchPolicy = field(default_factory=BatchPolicy)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    normalize: str | None = None
    decode: str = "model"
    decode_tolerance: float = DECODE_TOLERANCE
    backend: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None


def read_manifest(path: Path) -> Manifest:
    """Read one file; a missing file is an empty manifest.

    Raises ScoringError(PRECONDITION) naming the file, the key and what is wanted; unknown keys are refused.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Manifest()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScoringError(Kind.PRECONDITION, f"{path}: {error}") from error
    try:
        return _manifest(content, path)
    except ScoringError as error:
        raise ScoringError(Kind.PRECONDITION, f"{path}: {error.message}") from error


def files_of_manifest(path: Path) -> tuple[Path, ...]:
    """The file, and the labels that it names if it can be read; they need not exist."""
    try:
        # A pipe of this name would never end.
        labels = tomllib.loads(path.read_text(encoding="utf-8")).get("labels") if path.is_file() else None
    except (OSError, ValueError):  # loading tells what is wrong
        return (path,)
    return (path, path.parent / labels) if labels and isinstance(labels, str) else (path,)


def _manifest(content: Mapping[str, Any], path: Path) -> Manifest:
    keys = ("labels", "device", "runtime", "threads", "instances", "batching", "preprocessing", "backend")
    _known(content, keys, "")
    labels = _typed(content, "labels", str)
    return Manifest(
        labels=_read_labels(path.parent / labels) if labels else None,
        device=_typed(content, "device", str),
        runtime=_typed(content, "runtime", str),
        threads=_count(content, "threads", parse_threads),
        instances=_count(content, "instances", parse_instances),
        batching=_batching(_table(content, "batching")),
        preprocessing=_preprocessing(_table(content, "preprocessing")),
        normalize=_normalize(_table(content, "preprocessing")),
        decode=_decode(_table(content, "preprocessing")),
        decode_tolerance=_decode_tolerance(_table(content, "preprocessing")),
        backend=_table(content, "backend"),
        source=path,
    )


def _count(content: Mapping[str, Any], key: str, parse: Callable[[str], int]) -> int | None:
    """parse: the limits of the server's option of this name."""
    number: int | None = _typed(content, key, int)
    try:
        return None if number is None else parse(str(number))
    except ValueError as error:
        raise ScoringError(Kind.INVALID, f"{key}: {error}, got {number}") from error


def _read_labels(path: Path) -> tuple[str, ...]:
    """One label a line; trailing empty lines are nothing."""
    try:
        return tuple(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScoringError(Kind.PRECONDITION, f"labels: cannot read {path}: {error}") from error


def _batching(table: Mapping[str, Any]) -> BatchPolicy:
    limits = ("max_batch_size", "allowed_batch_sizes", "max_queue_delay_us", "max_queue_rows", "max_queue_bytes")
    _known(table, (*limits, "latency_slo_ms"), "batching")
    values: dict[str, Any] = {}
    for key in ("max_batch_size", "max_queue_rows"):
        if (number := _typed(table, key, int)) is not None:
            values[key] = number
    if "max_queue_bytes" in table:
        values["max_queue_bytes"] = _bytes(table["max_queue_bytes"])
    if (delay := _typed(table, "max_queue_delay_us", int)) is not None:
        if not 0 <= delay <= _LONGEST_DELAY_US:
            wanted = f"from 0 to {_LONGEST_DELAY_US} (a minute)"
            raise ScoringError(Kind.INVALID, f"max_queue_delay_us must be {wanted}, got {delay}")
        values["max_queue_delay_ns"] = delay * 1000
    if "latency_slo_ms" in table:
        values["latency_slo_ns"] = _objective_ns(table)
    if "allowed_batch_sizes" in table:
        sizes = values["allowed_batch_sizes"] = _numbers(table, "allowed_batch_sizes", int)
        values.setdefault("max_batch_size", max(sizes, default=1))
    return BatchPolicy(**values)


def _objective_ns(table: Mapping[str, Any]) -> int:
    """Raises ScoringError(INVALID), also beside a delay of the file's own: the objective is what chooses it."""
    value = table["latency_slo_ms"]
    wanted = f"a number of milliseconds above 0, up to {_LONGEST_OBJECTIVE_MS}"
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= _LONGEST_OBJECTIVE_MS:
        raise ScoringError(Kind.INVALID, f"latency_slo_ms: want {wanted} (a minute), got {value!r}")
    if table.get("max_queue_delay_us"):
        raise ScoringError(Kind.INVALID, "latency_slo_ms chooses the delay; leave out max_queue_delay_us")
    return max(1, round(value * 1_000_000))


def _bytes(value: Any) -> int:
    try:
        return parse_bytes(str(value))
    except ValueError as error:
        raise ScoringError(Kind.INVALID, f"max_queue_bytes: {error}, got {value!r}") from error


def _preprocessing(table: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("resize", "size", "channel_order", "layout", "mean", "scale", "exif", "resampling", "normalize", "decode")
    _known(table, (*keys, "decode_tolerance"), "preprocessing")
    values: dict[str, Any] = {}
    for key in ("resize", "channel_order", "layout", "resampling"):
        if (word := _typed(table, key, str)) is not None:
            values[key] = word
    for key in ("mean", "scale"):
        if key in table:
            values[key] = tuple(float(n) for n in _numbers(table, key, (int, float)))
    if "size" in table:
        values["size"] = _numbers(table, "size", int)
        if len(values["size"]) != 2:
            raise ScoringError(Kind.INVALID, f"preprocessing size: want [height, width], got {table['size']!r}")
    if (exif := _typed(table, "exif", bool)) is not None:
        values["exif"] = exif
    Preprocessing(**{"size": (1, 1), **values})  # refuses bad words here, before any model is loaded
    return values


def _normalize(table: Mapping[str, Any]) -> str | None:
    where: str | None = _typed(table, "normalize", str)
    if where not in (None, "device", "host"):
        raise ScoringError(Kind.INVALID, f'preprocessing normalize: want "device" or "host", got {where!r}')
    return where


def _decode(table: Mapping[str, Any]) -> str:
    """Raises ScoringError(INVALID), also for steps beside "server": it does the graph's own and no others."""
    who: str | None = _typed(table, "decode", str)
    if who not in (None, "model", "server"):
        raise ScoringError(Kind.INVALID, f'preprocessing decode: want "model" or "server", got {who!r}')
    said = sorted(set(table) - {"decode", "decode_tolerance", "normalize"})
    if who == "server" and said:
        message = f'preprocessing decode = "server" does what the model\'s graph does; leave out {", ".join(said)}'
        raise ScoringError(Kind.INVALID, message)
    return who or "model"


def _decode_tolerance(table: Mapping[str, Any]) -> float:
    value = table.get("decode_tolerance", DECODE_TOLERANCE)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise ScoringError(Kind.INVALID, f"decode_tolerance: want a number of 0 or more, got {value!r}")
    return float(value)


def with_signature(values: Mapping[str, Any], guess: Preprocessing | None) -> Preprocessing | None:
    """What the file says on top of what the signature says; None when there is no picture and the file is silent.

    Raises ScoringError(PRECONDITION) when neither names the pictures' size.
    """
    if not values:
        return guess
    if guess is None:
        if "size" not in values:
            message = "preprocessing: the signature names no picture size; add size = [height, width]"
            raise ScoringError(Kind.PRECONDITION, message)
        return Preprocessing(**values)
    # Numbers said for one channel order do not fit another, so a guess gives way as a whole where the file speaks.
    said = dict(values)
    if "mean" in said or "scale" in said:
        said.setdefault("mean", (0.0,))
        said.setdefault("scale", (1.0,))
    return replace(guess, **said, guessed=False)


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(keys))
    if unknown:
        place = f"[{where}] " if where else ""
        raise ScoringError(
            Kind.INVALID, f"{place}unknown key {', '.join(map(repr, unknown))}; known: {', '.join(keys)}"
        )


def _table(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise ScoringError(Kind.INVALID, f"{key}: want a table [{key}], got {table!r}")
    return table


def _typed(table: Mapping[str, Any], key: str, wanted: type) -> Any:
    value = table.get(key)
    if value is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
        raise ScoringError(Kind.INVALID, f"{key}: want {wanted.__name__}, got {value!r}")
    return value


def _numbers(table: Mapping[str, Any], key: str, wanted: type | tuple[type, ...]) -> tuple[Any, ...]:
    value = table[key]
    many = value if isinstance(value, list) else [value]
    if not many or any(not isinstance(n, wanted) or isinstance(n, bool) for n in many):
        raise ScoringError(Kind.INVALID, f"{key}: want a list of numbers, got {value!r}")
    return tuple(many)
