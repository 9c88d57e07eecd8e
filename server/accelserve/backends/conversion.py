"""A conversion in a process of its own: `accelserve convert`, watched. TensorFlow's memory goes when it ends."""

import json
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelserve.backends.base import CONVERSION_FAILED, Progress
from accelserve.errors import ExitCode, Kind, ScoringError
from accelserve.process_ends import signal_name

COMMAND = (sys.executable, "-m", "accelserve", "convert")
_OPSETS = range(13, 24)  # what `accelserve convert --opset` takes
_LIMIT_S = 1800
_MOST_LIMIT_S = 7 * 24 * 3600
_KEPT_LINES = 5


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """None: the command's own choice. sample: a file to compare with. limit_s: how long it may take."""

    precision: str | None = None
    opset: int | None = None
    sample: str | None = None
    tolerance: float | None = None
    limit_s: int = _LIMIT_S


# Key of `[backend]` -> whether a value fits, and what is wanted.
_FITS: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "opset": (
            lambda value: type(value) is int and value in _OPSETS,
            f"a number from {_OPSETS[0]} to {_OPSETS[-1]}",
        ),
        "sample": (lambda value: type(value) is str and value != "", "the path of a file"),
        "tolerance": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1"),
        "limit_s": (
            lambda value: type(value) is int and 0 < value <= _MOST_LIMIT_S,
            f"whole seconds from 1 to {_MOST_LIMIT_S}",
        ),
    }
)
SETTINGS = frozenset(_FITS)


def read_settings(model: str, extra: Mapping[str, Any]) -> ConversionOptions:
    """Those of `[backend]` that are a conversion's. Raises ScoringError(INVALID) for a value that does not fit."""
    chosen = {key: extra[key] for key in _FITS if key in extra}
    for key, value in chosen.items():
        fits, wanted = _FITS[key]
        if not fits(value):
            raise ScoringError(Kind.INVALID, f'{model}: setting "{key}" wants {wanted}, got {value!r}')
    return ConversionOptions(**chosen)


# (model, SavedModel or ONNX file, folder to write, options, progress); raises ScoringError and leaves no folder behind.
Convert = Callable[[str, Path, Path, ConversionOptions, Progress], None]


def run_conversion(
    model: str,
    source: Path,
    output: Path,
    options: ConversionOptions,
    progress: Progress,
    command: Sequence[str] = COMMAND,
) -> None:
    """Convert `source` into the folder `output`; blocks.

    The process ends with this one, however that ends: it watches its standard input, which closes then.
    Raises ScoringError(PRECONDITION) in the converter's own last words.
    """
    arguments = [*command, str(source), "--output", str(output), *_flags(options)]
    with subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        failure = _watch(process, options.limit_s, progress)
    if failure:
        shutil.rmtree(output, ignore_errors=True)
        raise ScoringError(Kind.PRECONDITION, f"{model}: {failure}", reason=CONVERSION_FAILED)


def _watch(process: subprocess.Popen[str], limit_s: int, progress: Progress) -> str:
    """Wait for its end, which comes when its time is over at the latest. Why it failed, "" when it did not."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True  # a server that is told to stop does not wait for it
    timer.start()
    try:
        last_words = _relay(process.stderr or (), progress)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
    if code == ExitCode.OK:
        return ""
    return _over_time(limit_s) if late.is_set() else _reason(code, last_words)


def _flags(options: ConversionOptions) -> list[str]:
    flags = ["--to", "onnx", "--progress", "json", "--end-with-stdin"]
    for name in ("precision", "opset", "sample", "tolerance"):
        value = getattr(options, name)
        flags += [f"--{name}", str(value)] if value is not None else []
    return flags


def _relay(lines: Iterable[str], progress: Progress) -> list[str]:
    """Pass progress on until the process closes its end; the last other lines."""
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    for line in lines:
        step = _progress_of(line)
        if step is not None:
            progress(*step)
        elif line.strip():
            kept.append(line.strip())
    return list(kept)


def _progress_of(line: str) -> tuple[str, float] | None:
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
        return str(content["progress"]), float(content["done"])
    except (ValueError, KeyError, TypeError):
        return None


def _reason(code: int, last_words: Sequence[str]) -> str:
    """The command's error is its last line, after its name; a crash has more to tell."""
    if code < 0:
        name = signal_name(-code)
        hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
        return f"the conversion was ended by {name}{hint}. Its last words: {' | '.join(last_words) or 'none'}"
    if last_words and last_words[-1].startswith("accelserve: "):
        return last_words[-1].removeprefix("accelserve: ")
    return f"the conversion ended with code {code}: {' | '.join(last_words) or 'without a word'}"


def _over_time(limit_s: int) -> str:
    remedy = "raise limit_s in [backend] of its accelserve.toml, or convert it beforehand with `accelserve convert`"
    return f"the conversion took longer than {limit_s} s and was ended; {remedy}"
